"""Records, data sets, their splits, and the sources by name."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from support import images, refused

from rpjax.data import Dataset, Records, load
from rpjax.data.records import numbered
from rpjax.data.sources import SOURCES, Request, source
from rpjax.data.splits import Split, shuffled, stratified

DIGITS = "sha256:5c4b6f4a8ff4f30755e847f02881651934453aead6023d761b8a1861b9dcedf1"


def records(count=6, start=0):
    labels = np.arange(count, dtype=np.int32) % 3
    return numbered(images(count, 2, 3, 1), labels, start)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


# Records and Dataset


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("images", lambda x: x[..., 0]),
        ("images", lambda x: x.astype(np.float32)),
        ("images", lambda x: x[:, :0]),
        ("labels", lambda x: x.astype(np.int64)),
        ("labels", lambda x: x[:-1]),
        ("labels", lambda x: x[:, None]),
        ("labels", lambda x: x - 1),
        ("ids", lambda x: x.astype(np.float32)),
        ("ids", lambda x: x[:-1]),
        ("ids", lambda x: x - 1),
    ],
)
def test_records_refuse_a_field_that_does_not_fit(field, change):
    good = records()
    message = refused(
        dataclasses.replace, good, **{field: change(getattr(good, field))}
    )
    assert message.startswith(f"{field}: ")


def test_records_refuse_to_be_empty():
    none = np.zeros(0, np.int32)
    assert "at least one" in refused(Records, images(0, 2, 2, 1), none, none)
    assert refused(records().take, []).startswith("positions: ")


def test_records_cannot_be_written_to_and_leave_the_callers_array_alone():
    pixels = images(3, 2, 2, 1)
    made = numbered(pixels, np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="read-only"):
        made.images[0] = 0
    pixels[0] = 7


def test_take_keeps_image_label_and_id_together():
    pool = records(6, start=10)
    taken = pool.take([4, 0, 4]).take(np.array([2, 1]))
    np.testing.assert_array_equal(taken.ids, [14, 10])
    np.testing.assert_array_equal(taken.labels, pool.labels[[4, 0]])
    np.testing.assert_array_equal(taken.images, pool.images[[4, 0]])


@pytest.mark.parametrize("positions", [[-1], [6], [0.5], [[0]], [True] * 6])
def test_take_refuses_what_is_not_a_position(positions):
    assert refused(records(6).take, np.array(positions)).startswith("positions: ")


def small(**changes) -> Dataset:
    fields = {
        "name": "small",
        "train": records(6),
        "test": records(3, start=6),
        "classes": 3,
        "class_names": ("a", "b", "c"),
        "source": "Made up.",
    }
    return Dataset(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"test": records(3, start=5)}, "ids: "),
        ({"test": numbered(images(3, 3, 2, 1), np.zeros(3), 6)}, "test: images"),
        ({"classes": 1, "class_names": ("a",)}, "classes: 1"),
        ({"classes": 2, "class_names": ("a", "b")}, "train: label 2"),
        ({"class_names": ("a", "b")}, "class_names: 2"),
    ],
)
def test_a_dataset_refuses_parts_that_do_not_fit(changes, start):
    assert refused(small, **changes).startswith(start)


def test_the_hash_sees_every_pixel_label_and_id():
    base, train = small(), records(6)
    pixels, labels = train.images.copy(), train.labels.copy()
    pixels[-1, -1, -1, -1] ^= 1
    labels[0] = 1
    others = [
        small(train=Records(pixels, train.labels, train.ids)),
        small(train=Records(train.images, labels, train.ids)),
        small(train=Records(train.images, train.labels, train.ids + 100)),
        small(test=train.take([0, 1, 2]), train=records(6, start=6)),
    ]
    assert base.data_hash == small(name="other").data_hash
    assert len({data.data_hash for data in [base, *others]}) == 5


# Splits


def test_a_stratified_choice_is_within_one_record_of_proportion():
    labels = np.repeat([0, 3, 7], [50, 31, 19])
    for size in range(1, 101):
        chosen = stratified(labels, size, seed=size)
        assert len(np.unique(chosen)) == size
        counts = np.bincount(labels[chosen], minlength=8)[[0, 3, 7]]
        assert np.all(np.abs(counts - np.array([50, 31, 19]) * size / 100) < 1)


def test_every_record_of_a_class_is_chosen_equally_often():
    # Two tests at level 1e-3. The seeds are fixed, and so is the stream of PCG64, so
    # that what passed once passes always.
    labels = np.repeat([0, 1], [12, 8])
    counts = np.zeros(20)
    for seed in range(2_000):
        counts[stratified(labels, 5, seed)] += 1
    assert counts.sum() == 10_000
    for part, share in ((counts[:12], 3 / 12), (counts[12:], 2 / 8)):
        spread = 2_000 * share * (1 - share) * len(part) / (len(part) - 1)
        statistic = np.sum((part - 2_000 * share) ** 2) / spread
        assert scipy.stats.chi2.sf(statistic, len(part) - 1) > 1e-3


def test_the_order_for_a_seed_never_changes():
    np.testing.assert_array_equal(shuffled(8, seed=0), [3, 2, 1, 6, 0, 7, 4, 5])


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"test_fraction": 0.0}, "test_fraction: 0.0"),
        ({"test_fraction": 1.0}, "test_fraction: 1.0"),
        ({"test_fraction": float("nan")}, "test_fraction: nan"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_load_refuses_an_impossible_split(settings, start):
    assert refused(load, "digits", **settings).startswith(start)


def test_a_split_refuses_to_leave_a_part_empty():
    assert "test_fraction: 0.9" in refused(Split(0.9).positions, np.zeros(3, int))


def test_a_test_fraction_is_rounded_up_but_not_by_rounding_error():
    assert len(Split(0.07).positions(np.zeros(100, int))[1]) == 7
    assert len(Split(0.071).positions(np.zeros(100, int))[1]) == 8


# digits, limit


def test_digits_are_the_same_everywhere(digits):
    assert digits.data_hash == DIGITS
    assert load("digits").data_hash == DIGITS
    assert load("digits", seed=1).data_hash != DIGITS


def test_digits_are_split_by_class_and_every_record_is_kept(digits):
    assert (len(digits.train), len(digits.test), digits.shape) == (1437, 360, (8, 8, 1))
    parts = np.bincount(digits.train.labels), np.bincount(digits.test.labels)
    assert np.all(np.abs(parts[1] - 360 / 1797 * (parts[0] + parts[1])) < 1)
    ids = np.concatenate([digits.train.ids, digits.test.ids])
    np.testing.assert_array_equal(np.sort(ids), np.arange(1797))


def test_an_id_is_the_place_in_the_source(digits):
    from sklearn.datasets import load_digits

    original = load_digits()
    for part in (digits.train, digits.test):
        np.testing.assert_array_equal(part.labels, original.target[part.ids])
        levels = np.rint(original.images[part.ids] * 255 / 16)
        # 255 v / 16 ends in .5 for v = 8 alone, which goes up to 128.
        np.testing.assert_array_equal(part.images[..., 0], levels)


def test_limit_keeps_ids_order_and_proportions_and_says_so(digits):
    few = digits.limit(train=200, test=50, seed=3)
    assert (len(few.train), len(few.test)) == (200, 50)
    for part, whole in ((few.train, digits.train), (few.test, digits.test)):
        at = np.flatnonzero(np.isin(whole.ids, part.ids))
        np.testing.assert_array_equal(part.ids, whole.ids[at])
        np.testing.assert_array_equal(part.images, whole.images[at])
        shares = np.bincount(whole.labels) * len(part) / len(whole)
        assert np.all(np.abs(np.bincount(part.labels) - shares) < 1)
    assert "200 of 1437 train" in few.source
    assert "50 of 360 test" in few.source
    assert "seed 3" in few.source
    assert few.data_hash == digits.limit(train=200, test=50, seed=3).data_hash
    assert few.data_hash != digits.limit(train=200, test=50, seed=4).data_hash


def test_limit_leaves_a_part_whole_unless_told(digits):
    same = digits.limit()
    assert same.data_hash == DIGITS
    assert same.source == digits.source
    assert len(digits.limit(test=10).train) == 1437


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"train": 1438}, "train: 1438"),
        ({"test": 0}, "test: 0"),
        ({"train": 5, "seed": -1}, "seed: -1"),
    ],
)
def test_limit_refuses_what_is_not_there(digits, settings, start):
    assert refused(digits.limit, **settings).startswith(start)


# load


@pytest.mark.parametrize("name", ["nope", "", "digits:3", "npz:", "tfds", "a:b"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    message = refused(load, name)
    assert all(known in message for known in ("digits", "mnist", "cifar10", "tfds:"))


def test_a_source_is_one_function(monkeypatch):
    monkeypatch.setitem(SOURCES, "mine:", None)

    @source("mine:")
    def mine(request: Request) -> Dataset:
        return small(name=f"{request.path} {request.split.seed}")

    assert load("mine:x", "/data", seed=4).name == "/data/x 4"
    assert "mine:" in refused(load, "mine")


def test_image_size_is_refused_where_it_would_do_nothing(tmp_path):
    assert refused(load, "digits", image_size=(8, 8)).startswith("image_size: ")
    assert refused(load, str(tmp_path), image_size=(0, 8)).startswith("image_size: ")


def test_importing_the_data_package_imports_no_data_library():
    code = (
        "import sys, rpjax.data; print([name for name in "
        "('tensorflow_datasets', 'tensorflow', 'sklearn', 'PIL') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
