"""Flips and crops: every outcome, equally often, each record by its own key."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support import assert_binomial, assert_same, pixels, record_keys

from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError


def copies(image, count):
    return jnp.broadcast_to(jnp.asarray(image), (count, *image.shape))


def test_without_crop_and_flip_images_stay_as_they_are():
    images = pixels(2)
    assert Augmentation()(record_keys(2), images) is images


def test_a_flip_mirrors_left_and_right_half_of_the_time():
    image = np.asarray(pixels(1, shape=(3, 4, 2)))[0]
    found = np.asarray(Augmentation(flip=True)(record_keys(400), copies(image, 400)))
    mirrored = (found == image[:, ::-1]).all((1, 2, 3))
    assert (mirrored | (found == image).all((1, 2, 3))).all()
    assert_binomial(mirrored.sum(), 400, 0.5)


def test_a_crop_is_each_window_of_the_padded_image_equally_often():
    image = np.asarray(pixels(1, shape=(3, 4, 2)))[0]
    found = np.asarray(Augmentation(crop=1)(record_keys(900), copies(image, 900)))
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = [padded[i : i + 3, j : j + 4] for i in range(3) for j in range(3)]
    counts = [(found == window).all((1, 2, 3)).sum() for window in windows]
    assert sum(counts) == 900
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_crop_and_flip_are_independent_of_each_other():
    image = np.arange(9, dtype=np.float32).reshape(3, 3, 1) + 1
    both = Augmentation(crop=1, flip=True)
    found = np.asarray(both(record_keys(900), copies(image, 900)))
    kinds = np.unique(found.reshape(900, -1), axis=0, return_counts=True)[1]
    assert len(kinds) == 18
    assert scipy.stats.chisquare(kinds).pvalue > 1e-4


def test_a_records_augmentation_does_not_depend_on_its_companions():
    augment, images, order = Augmentation(crop=2, flip=True), pixels(6), [4, 1, 0]
    full = augment(record_keys(6), images)
    part = augment(record_keys(6)[np.array(order)], images[np.array(order)])
    assert_same(part, full[np.array(order)])


def test_symmetric_padding_mirrors_the_image_with_its_edge():
    image = np.arange(1, 13, dtype=np.float32).reshape(3, 4, 1)
    crops = Augmentation(crop=2, padding="symmetric")
    found = np.asarray(crops(record_keys(900), copies(image, 900)))
    rows, columns = [2, 1, 1, 2, 3, 3, 2], [2, 1, 1, 2, 3, 4, 4, 3]
    padded = image[np.subtract(rows, 1)][:, np.subtract(columns, 1)]
    windows = {
        padded[i : i + 3, j : j + 4].tobytes() for i in range(5) for j in range(5)
    }
    # one of the 25 windows is missed with probability 25 * 0.96^900 < 1e-14
    assert {one.tobytes() for one in found} == windows


def test_one_view_is_the_augmentation_itself():
    augment, images = Augmentation(crop=2, flip=True), pixels(6)
    one = augment.views(record_keys(6), images, 1)
    assert_same(one[:, 0], augment(record_keys(6), images))


def test_views_of_a_record_are_independent_draws_and_its_own():
    image = np.arange(9, dtype=np.float32).reshape(3, 3, 1) + 1
    augment, count = Augmentation(crop=1), 900
    views = np.asarray(augment.views(record_keys(count), copies(image, count), 3))
    assert views.shape == (count, 3, 3, 3, 1)
    kinds = np.unique(views.reshape(count * 3, -1), axis=0, return_inverse=True)[1]
    kinds = kinds.reshape(count, 3)
    assert kinds.max() == 8
    for one, other in ((0, 1), (0, 2), (1, 2)):
        pairs = np.bincount(9 * kinds[:, one] + kinds[:, other], minlength=81)
        assert scipy.stats.chisquare(pairs).pvalue > 1e-6
    # whatever else is in the batch, and however many views there are
    part = augment.views(record_keys(count)[:2], copies(image, 2), 2)
    assert_same(part, views[:2, :2])


def test_what_no_augmentation_can_be_is_refused():
    with pytest.raises(InputError, match="crop is -1; it must be >= 0 pixels"):
        Augmentation(crop=-1)
    with pytest.raises(InputError, match="count is 0; it must be >= 1 view"):
        Augmentation(crop=1).views(record_keys(1), pixels(1), 0)


def test_unknown_padding_is_refused(unchecked):
    with pytest.raises(InputError, match="padding is 'wrap'; it is 'zeros' or 'symm"):
        Augmentation(crop=1, padding="wrap")
