"""Imbalanced splits: the published counts, who is chosen, what is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.counts import Counts, counted
from rpjax.data import imbalance
from rpjax.data.records import Dataset, Records, numbered
from rpjax.errors import InputError

CIFAR10_LT = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


def reference(largest, classes, factor):
    """`get_img_num_per_cls` of kaidic/LDAM-DRW, exponential."""
    return tuple(int(largest * factor ** (c / (classes - 1.0))) for c in range(classes))


def test_long_tailed_cifar_has_the_published_counts():
    ten = imbalance.exponential_counts(5000, 10, 100)
    assert ten == CIFAR10_LT
    assert sum(ten) == 12_406
    hundred = imbalance.exponential_counts(500, 100, 100)
    assert hundred[:3] == (500, 477, 455)
    assert hundred[-3:] == (5, 5, 5)
    assert sum(hundred) == 10_847


@pytest.mark.parametrize("ratio", [1, 10, 20, 50, 100, 200])
@pytest.mark.parametrize(("largest", "classes"), [(5000, 10), (500, 100), (1280, 1000)])
def test_counts_are_those_of_the_published_code(largest, classes, ratio):
    found = imbalance.exponential_counts(largest, classes, ratio)
    assert found == reference(largest, classes, 1 / ratio)


def test_a_step_has_two_sizes_and_rounding_does_not_cost_a_record():
    assert imbalance.step_counts(5000, 10, 100) == (5000,) * 5 + (50,) * 5
    assert imbalance.step_counts(10, 3, 4) == (10, 2, 2)
    assert int(4900 * (1 / 49)) == 99
    assert imbalance.step_counts(4900, 2, 49) == (4900, 100)


@SETTINGS
@given(st.integers(20, 3000), st.integers(2, 30), st.floats(1, 20))
def test_counts_fall_and_end_at_the_ratio(largest, classes, ratio):
    counts = imbalance.exponential_counts(largest, classes, ratio)
    assert list(counts) == sorted(counts, reverse=True)
    assert counts[0] == largest
    assert counts[-1] == math.floor(largest / ratio * (1 + 1e-9))
    assert set(imbalance.exponential_counts(largest, classes, 1)) == {largest}


LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 50))


@pytest.mark.parametrize("shape", ["exponential", "step"])
def test_a_split_keeps_so_many_records_of_each_class(shape):
    cut = imbalance.imbalanced(LABELS, 4, shape, 10, seed=3)
    kept = LABELS[cut.positions]
    assert tuple(np.bincount(kept, minlength=4)) == cut.counts
    assert np.all(np.diff(cut.positions) > 0)
    assert cut.available == (50, 50, 50, 50)
    assert (cut.kind, cut.ratio, cut.seed) == (shape, 10.0, 3)
    assert cut.counts == {"exponential": (50, 23, 10, 5), "step": (50, 50, 5, 5)}[shape]


def test_a_split_is_those_of_its_classes_whose_draws_are_smallest():
    one, same, other = (
        imbalance.imbalanced(LABELS, 4, "exponential", 25, seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.positions, same.positions)
    assert not np.array_equal(one.positions, other.positions)
    draws = np.random.PCG64(0).random_raw(200)  # which NumPy promises never to change
    expected = [
        sorted(np.flatnonzero(c == LABELS), key=lambda i: draws[i])[:count]
        for c, count in enumerate((50, 17, 5, 2))
    ]
    assert one.positions.tolist() == sorted(np.concatenate(expected))


def test_a_harder_split_of_the_same_seed_is_a_part_of_an_easier_one():
    easy, hard = (imbalance.imbalanced(LABELS, 4, "exponential", r) for r in (2, 10))
    assert set(hard.positions) < set(easy.positions)


def test_within_a_class_everybody_is_as_likely_to_stay():
    stays = np.zeros(200)
    for seed in range(400):
        stays[imbalance.with_counts(LABELS, (10,) * 4, seed).positions] += 1
    z = (stays - 80) / math.sqrt(400 * 0.2 * 0.8)
    assert np.abs(z).max() < 4.5
    assert 0.7 < z.std() < 1.3


def test_weights_take_as_many_as_there_are():
    cut = imbalance.with_weights(LABELS, (4, 2, 1, 1))
    assert cut.counts == (50, 25, 12, 12)
    assert imbalance.weighted_counts((30, 100, 100), (1, 1, 2)) == (30, 30, 60)
    assert (
        imbalance.balanced(LABELS[:120], 4).counts
        == (np.bincount(LABELS[:120]).min(),) * 4
    )


def test_the_table_and_the_record_are_plain_values():
    cut = imbalance.with_counts(LABELS, (40, 10, 20, 30), seed=2)
    rows = cut.table(["a", "b", "c", "d"])
    assert rows[1] == {
        "class": 1,
        "name": "b",
        "available": 50,
        "records": 10,
        "share": 0.1,
    }
    assert json.loads(json.dumps(cut.as_dict()))["counts"] == [40, 10, 20, 30]
    assert cut.public_counts() == Counts((40, 10, 20, 30), "public")
    assert counted(LABELS[cut.positions], 4).source == "data"


def dataset():
    images = np.zeros((len(LABELS), 2, 2, 1), np.uint8)
    train = numbered(images, LABELS)
    test = numbered(images[:40], np.repeat(np.arange(4), 10), start=len(LABELS))
    return Dataset("made", train, test, 4, ("a", "b", "c", "d"), "Made up.")


def test_a_thinned_data_set_keeps_its_test_part_and_its_ids():
    data = dataset()
    cut = imbalance.imbalanced(data.train.labels, 4, "exponential", 10)
    thin = imbalance.thinned(data, cut)
    assert isinstance(thin.train, Records)
    assert thin.test is data.test
    np.testing.assert_array_equal(thin.train.ids, data.train.ids[cut.positions])
    assert thin.source == (
        "Made up. Exponential imbalance, ratio 10, 88 of 200 train records, seed 0."
    )
    assert thin.data_hash != data.data_hash
    with pytest.raises(InputError, match="make it from train's labels"):
        imbalance.thinned(thin, cut)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: imbalance.imbalanced(LABELS, 4, "exponential", 0.5), "ratio is 0.5"),
        (lambda: imbalance.imbalanced(LABELS, 4, "step", math.nan), "ratio is nan"),
        (lambda: imbalance.imbalanced(LABELS, 4, "step", 51), "class 2 would keep 0"),
        (lambda: imbalance.imbalanced(LABELS, 5, "step", 2), "largest is 0"),
        (lambda: imbalance.imbalanced(LABELS, 3, "step", 2), "labels: from 0 to 3"),
        (lambda: imbalance.imbalanced(LABELS, 4, "step", 2, -1), "seed: -1"),
        (lambda: imbalance.imbalanced(LABELS, 4, "ramp", 2), "shape is 'ramp'"),
        (lambda: imbalance.with_counts(LABELS, (51, 1, 1, 1)), "51 records of class 0"),
        (lambda: imbalance.with_counts(LABELS, (5, 0, 1, 1)), "class 1 would keep 0"),
        (lambda: imbalance.with_counts(LABELS, (5, 1.5, 1, 1)), "whole numbers"),
        (lambda: imbalance.with_weights(LABELS, (1, 1, 0, 1)), "weights: 0"),
        (lambda: imbalance.weighted_counts((1, 2), (1,)), "weights: 1 for 2"),
        (lambda: Counts((1.0,), "public"), "counts: 1 classes"),
        (lambda: Counts((1.0, -1.0), "public"), "-1.0 records of class 1"),
        (lambda: Counts((0.0, 0.0), "public"), "no records at all"),
        (lambda: Counts((1.0, 1.0), "rumour"), "source is 'rumour'"),
        (lambda: Counts((1.0, 0.0), "public").positive(), "class 1 has no record"),
        (lambda: counted([0, 1, 7], 3), "labels: from 0 to 7"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [4, 40])
def test_the_figure_shows_the_counts_in_both_themes(classes):
    from rpjax import report

    labels = np.repeat(np.arange(classes), 20)
    cut = imbalance.imbalanced(labels, classes, "exponential", 10)
    for theme in (report.LIGHT, report.DARK):
        figure = report.class_counts_figure(cut.table(), theme)
        axes = figure.axes[0]
        kept = [bar.get_height() for bar in axes.containers[1]]
        assert kept == list(cut.counts)
        assert axes.get_ylim()[0] == 0
        assert len(axes.texts) == (classes if classes == 4 else 0)
    with pytest.raises(InputError, match="no class"):
        report.class_counts_figure([])
