"""Canaries are what their kind says, and nothing else in the pool is touched."""

import numpy as np
import pytest
from support import CLASSES, records

from rpjax.attacks import plant
from rpjax.attacks.canaries import KINDS
from rpjax.audits import independent
from rpjax.data.records import Records
from rpjax.errors import InputError

PLENTY = records(3_000)
OTHERS = records(40, seed=5)


def planted(kind, count=30, seed=0, source=PLENTY):
    others = OTHERS if kind == "out_of_distribution" else None
    return plant(source, kind, count, seed=seed, others=others)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_leaves_all_other_records_as_they_are(kind):
    found = planted(kind)
    kept = found.pool.take(found.fixed)
    originals = PLENTY.take(found.fixed)
    for part in ("images", "labels", "ids"):
        np.testing.assert_array_equal(getattr(kept, part), getattr(originals, part))
    both = np.concatenate([found.fixed, found.canaries.reshape(-1)])
    assert sorted(both) == list(range(len(found.pool)))
    assert len(np.unique(found.pool.ids)) == len(found.pool), "noise hangs on the id"
    assert found.share == 30 / len(found.fixed)
    again, other = planted(kind), planted(kind, seed=1)
    np.testing.assert_array_equal(again.asked.images, found.asked.images)
    np.testing.assert_array_equal(again.asked.labels, found.asked.labels)
    assert (other.asked.images != found.asked.images).any()


@pytest.mark.parametrize("kind", KINDS)
def test_coins_say_who_is_in(kind):
    found, coins = planted(kind, 8), independent(5, 8, seed=2)
    membership = found.membership(coins)
    paired = "replace a canary by its pair, label equal"
    single = "add or remove one canary"
    assert membership.adjacency == (paired if kind == "opposite" else single)
    for row, inside in zip(membership.lists(), coins.inside, strict=True):
        own = set(row[row >= 0].tolist()) - set(found.fixed.tolist())
        if kind == "opposite":
            first, second = found.canaries.T
            assert own == set(np.where(inside, first, second).tolist())
        else:
            assert own == set(found.canaries[inside].tolist())


def test_clean_canaries_are_training_records():
    found = planted("clean")
    assert found.pool is PLENTY
    assert len(set(found.canaries.tolist())) == 30


def test_wrong_labels_are_wrong_and_each_as_likely():
    """Of 3,000; each of two wrong ones within five deviations of a half."""
    found = planted("mislabelled", 3_000 - 1)
    true = PLENTY.labels[found.canaries]
    np.testing.assert_array_equal(found.asked.images, PLENTY.images[found.canaries])
    shift = (found.asked.labels - true) % CLASSES
    assert set(shift) == {1, 2}
    assert abs((shift == 1).mean() - 0.5) < 5 * 0.5 / np.sqrt(2_999)


def test_near_duplicates_are_moved_by_a_pixel_and_mislabelled():
    found = planted("near_duplicate")
    assert len(found.fixed) == 3_000, "the originals stay in training"
    by_content = {
        image[:, :-1].tobytes(): label
        for image, label in zip(PLENTY.images, PLENTY.labels, strict=True)
    }
    for image, label in zip(found.asked.images, found.asked.labels, strict=True):
        assert by_content[image[:, 1:].tobytes()] != label


def test_others_keep_their_images_and_lose_their_labels():
    found = planted("out_of_distribution", 40)
    ours = sorted(image.tobytes() for image in found.asked.images)
    assert ours == sorted(image.tobytes() for image in OTHERS.images)
    assert 0 < (found.asked.labels == OTHERS.labels).mean() < 1
    assert set(found.asked.labels) <= set(range(CLASSES))


def test_blank_images_have_a_colour_each():
    found = planted("blank", 256)
    first = found.asked.images[:, :1, :1]
    assert (found.asked.images == first).all()
    assert len(np.unique(first)) == 256
    rgb = Records(
        np.zeros((50, 4, 4, 3), np.uint8),
        np.arange(50, dtype=np.int32) % 2,
        np.arange(50, dtype=np.int32),
    )
    colours = plant(rgb, "blank", 300).asked.images[:, 0, 0]
    assert len(np.unique(colours, axis=0)) == 300


def test_opposites_are_as_far_apart_as_their_norm_allows():
    found = planted("opposite", 12)
    image = found.asked.images.reshape(12, 2, -1).astype(float)
    first, second = (image[:, i] / 127.5 - 1 for i in range(2))
    np.testing.assert_allclose(
        np.linalg.norm(first - second, axis=1), 2 * np.linalg.norm(first, axis=1)
    )
    labels = found.asked.labels.reshape(12, 2)
    np.testing.assert_array_equal(labels[:, 0], labels[:, 1])


def test_a_pair_has_one_score():
    found = planted("opposite", 3)
    asked = np.arange(12.0).reshape(2, 6) ** 2
    np.testing.assert_array_equal(found.scores(asked), asked[:, ::2] - asked[:, 1::2])
    draws = np.stack([asked, asked], -1)
    assert found.scores(draws).shape == (2, 3, 2)
    single = np.ones((2, 30))
    np.testing.assert_array_equal(planted("clean").scores(single), single)


def test_what_cannot_be_planted_is_refused(unchecked):
    square = records(4, shape=(3, 3, 1))
    one_class = Records(PLENTY.images, np.zeros(3_000, np.int32), PLENTY.ids)
    for call, message in (
        (lambda: plant(PLENTY, "odd", 3), "kind is 'odd'"),
        (lambda: plant(PLENTY, "clean", 0), "count is 0"),
        (lambda: plant(PLENTY, "clean", 3_001), "3000 to choose clean"),
        (lambda: plant(PLENTY, "blank", 257), "256 to choose blank"),
        (lambda: plant(PLENTY, "out_of_distribution", 3), "others is None"),
        (lambda: plant(PLENTY, "clean", 3, others=OTHERS), "no other kind does"),
        (
            lambda: plant(PLENTY, "out_of_distribution", 3, others=square),
            r"others has images of \(3, 3, 1\)",
        ),
        (lambda: plant(one_class, "mislabelled", 3), "has one class"),
        (lambda: planted("opposite").scores(np.ones((2, 30))), r"must be \(models, 60"),
    ):
        with pytest.raises(InputError, match=message):
            call()
