"""Flips and crops: every outcome, equally often, each record by its own key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image
from support import assert_binomial, assert_close, assert_same, pixels, record_keys

from rpjax.data import boxes
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


BOTH = (
    Augmentation(crop=2, flip=True),
    Augmentation(flip=True, resized_crop=(0.1, 1.0)),
)


@pytest.mark.parametrize("augment", BOTH)
def test_a_records_augmentation_does_not_depend_on_its_companions(augment):
    images, order = pixels(6), [4, 1, 0]
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


@pytest.mark.parametrize("augment", BOTH)
def test_one_view_is_the_augmentation_itself(augment):
    images = pixels(6)
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


# ------------------------------------------------------------ parts, resized
TALL = (9, 7)  # pixels
BOXES = [(0, 0, 9, 7), (2, 1, 5, 4), (8, 6, 1, 1), (0, 3, 9, 1), (3, 0, 1, 7)]


@pytest.mark.parametrize("box", BOXES)
def test_a_part_is_resized_as_pillow_does_it(box):
    """Pillow cuts first, and enlarges what is left by bilinear interpolation."""
    image = np.asarray(pixels(1, shape=(*TALL, 2)))[0]
    found = boxes.resized(jnp.asarray(image), boxes.Box(*map(jnp.int32, box)))
    top, left, height, width = box
    for channel in range(2):
        cut = image[top : top + height, left : left + width, channel]
        twin = Image.fromarray(cut).resize(TALL[::-1], Image.Resampling.BILINEAR)
        assert_close(found[..., channel], np.asarray(twin), rtol=1e-5, atol=1e-5)


def drawn(count, shape, area, aspect=(3 / 4, 4 / 3)):
    """Boxes by as many keys, (count,) each."""
    one = lambda key: boxes.random_box(key, shape, area, aspect)
    found = jax.jit(jax.vmap(one))(record_keys(count))
    return boxes.Box(*(np.asarray(part) for part in found))


def by_hand(rng, shape, area, aspect):
    """Height and width of a box, tried until one fits."""
    while True:
        share, bent = rng.uniform(*area), np.exp(rng.uniform(*np.log(aspect)))
        height = round(np.sqrt(np.prod(shape) * share / bent))
        width = round(np.sqrt(np.prod(shape) * share * bent))
        if 1 <= height <= shape[0] and 1 <= width <= shape[1]:
            return height, width


def test_area_aspect_and_place_are_uniform_and_independent():
    """Where every size fits; seven tests that a right law fails with 1e-4 each."""
    side, area = 4096, (0.08, 0.5)
    box = drawn(2000, (side, side), area)
    share = (box.height * box.width / side**2 - area[0]) / (area[1] - area[0])
    bent = np.log(box.width / box.height) / np.log(16 / 9) + 0.5
    top, left = box.top / (side - box.height), box.left / (side - box.width)
    uniform = {"share": share, "bent": bent, "top": top, "left": left}
    for values in uniform.values():
        assert scipy.stats.kstest(values, "uniform").pvalue > 1e-4
    # its power: a twentieth more area would be seen
    assert scipy.stats.kstest(share * 0.4 / 0.42, "uniform").pvalue < 1e-4
    for one, other in (("share", "bent"), ("top", "left"), ("share", "top")):
        found = scipy.stats.spearmanr(uniform[one], uniform[other]).pvalue
        assert found > 1e-4, (one, other)


def test_the_first_size_that_fits_is_taken():
    """Against the same by hand, where a third of the sizes do not fit: 1e-4 each."""
    law = ((32, 24), (0.5, 1.0), (0.5, 1.5))
    box, rng = drawn(3000, *law), np.random.default_rng(0)
    assert (box.top >= 0).all()
    assert (box.left >= 0).all()
    assert (box.top + box.height <= 32).all()
    assert (box.left + box.width <= 24).all()
    twin = np.array([by_hand(rng, *law) for _ in range(3000)])
    for own, other in zip((box.height, box.width), twin.T, strict=True):
        assert scipy.stats.ks_2samp(own, other).pvalue > 1e-4
        most = max(own.max(), other.max()) + 1
        table = np.stack([np.bincount(v, minlength=most) for v in (own, other)])
        table = table[:, table.sum(0) > 20]
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-4


def test_where_no_size_fits_the_largest_of_such_an_aspect_is_taken():
    box = drawn(200, (8, 24), (1.0, 1.0), (0.5, 1.5))
    assert (set(box.height), set(box.width)) == ({8}, {12})
    assert set(box.left) == set(range(13))
    box = drawn(200, (24, 8), (1.0, 1.0), (0.5, 1.5))
    assert (set(box.height), set(box.width)) == ({16}, {8})


def test_the_whole_image_is_the_image_bit_for_bit():
    whole = Augmentation(resized_crop=(1.0, 1.0), aspect=(1.0, 1.0))
    assert_same(whole(record_keys(3), pixels(3)), pixels(3))


def test_a_resized_crop_is_mirrored_half_of_the_time():
    ramp = np.tile(np.arange(16, dtype=np.float32)[:, None], (16, 1, 1))
    both = Augmentation(flip=True, resized_crop=(0.3, 1.0))
    found = np.asarray(both(record_keys(400), copies(ramp, 400)))
    rises = found[:, 0, -1, 0] > found[:, 0, 0, 0]
    assert_binomial(rises.sum(), 400, 0.5)
    # parts of the ramp, all of it within, and not always the same
    assert (found.min(), found.max()) == (0, 15)
    assert set(np.minimum(found[:, 0, 0, 0], found[:, 0, -1, 0])) >= set(range(7))


# ------------------------------------------------------------------------- refusals


def test_what_no_augmentation_can_be_is_refused():
    with pytest.raises(InputError, match="crop is -1; it must be >= 0 pixels"):
        Augmentation(crop=-1)
    with pytest.raises(InputError, match="count is 0; it must be >= 1 view"):
        Augmentation(crop=1).views(record_keys(1), pixels(1), 0)
    for area in ((0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (float("nan"), 1.0)):
        with pytest.raises(InputError, match=r"resized_crop is .* two shares of the"):
            Augmentation(resized_crop=area)
    with pytest.raises(InputError, match=r"crop is 1 and resized_crop \(0.5, 1\); giv"):
        Augmentation(crop=1, resized_crop=(0.5, 1.0))
    for aspect in ((0.0, 1.0), (2.0, 1.0), (1.0, float("inf"))):
        with pytest.raises(InputError, match=r"aspect is .* it must be two ratios"):
            Augmentation(resized_crop=(0.5, 1.0), aspect=aspect)


def test_unknown_padding_is_refused(unchecked):
    with pytest.raises(InputError, match="padding is 'wrap'; it is 'zeros' or 'symm"):
        Augmentation(crop=1, padding="wrap")
