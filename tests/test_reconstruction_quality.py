"""PSNR, SSIM and matching: closed forms, another library's values, slow twins."""

import itertools

import numpy as np
import pytest

from rpjax.attacks import reconstruction as rec
from rpjax.errors import InputError

# scikit-image 0.26: structural_similarity(gaussian_weights=True, sigma=1.5,
# use_sample_covariance=False, data_range=1), peak_signal_noise_ratio
LIBRARY = {(16, 16, 1): 0.7186915223959824, (12, 20, 3): 0.6383285761868939}
LIBRARY_PSNR = 12.356076391595344


def pairs():
    """The images of `LIBRARY`, in its order, from one generator."""
    rng = np.random.default_rng(0)
    for shape in LIBRARY:
        one = rng.random(shape)
        yield shape, one, np.clip(one + 0.3 * rng.normal(size=shape), 0, 1)


def test_ssim_and_psnr_are_those_of_scikit_image():
    for shape, one, other in pairs():
        assert rec.ssim(one, other, 1.0) == pytest.approx(LIBRARY[shape], abs=1e-12)
        assert rec.ssim(other, one, 1.0) == pytest.approx(LIBRARY[shape], abs=1e-12)
    _, one, other = next(pairs())
    assert rec.psnr(one, other, 1.0) == pytest.approx(LIBRARY_PSNR, abs=1e-12)


def test_equal_images_are_perfect():
    images = np.random.default_rng(1).normal(size=(3, 8, 8, 1))
    np.testing.assert_allclose(rec.ssim(images, images), 1.0)
    assert np.isinf(rec.psnr(images, images)).all()


def test_a_shift_of_a_constant_image_has_a_closed_form():
    """No variance: SSIM is its luminance term, PSNR the shift's square."""
    a, b, peak = 0.25, 0.75, 2.0
    one, other = np.full((8, 8, 1), a), np.full((8, 8, 1), b)
    c1 = (0.01 * peak) ** 2
    luminance = (2 * a * b + c1) / (a * a + b * b + c1)
    assert rec.ssim(one, other, peak) == pytest.approx(luminance, rel=1e-12)
    assert rec.psnr(one, other, peak) == pytest.approx(20 * np.log10(peak / (b - a)))


def slow_ssim(one, other, size, peak):
    """One window at a time, for one channel."""
    at = np.arange(size) - size // 2
    weights = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = []
    for i, j in np.ndindex(one.shape[0] - size + 1, one.shape[1] - size + 1):
        a, b = (x[i : i + size, j : j + size] for x in (one, other))
        m, n = (weights * a).sum(), (weights * b).sum()
        v, w = (weights * (a - m) ** 2).sum(), (weights * (b - n) ** 2).sum()
        both = (weights * (a - m) * (b - n)).sum()
        found.append(
            (2 * m * n + c1) * (2 * both + c2) / ((m * m + n * n + c1) * (v + w + c2))
        )
    return np.mean(found)


@pytest.mark.parametrize(("shape", "size"), [((8, 8), 7), ((9, 14), 9), ((5, 5), 5)])
def test_small_images_have_the_largest_window_that_fits(shape, size):
    rng = np.random.default_rng(2)
    one = rng.uniform(-1, 1, shape)
    other = one + 0.4 * rng.normal(size=shape)
    expected = slow_ssim(one, other, size, 2.0)
    assert rec.ssim(one[..., None], other[..., None]) == pytest.approx(expected)


def test_matching_finds_the_permutation_and_the_least_total():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(4, 5, 5, 1))
    shuffled = np.array([2, 0, 3, 1])
    order = rec.matched(truth[shuffled] + 0.01 * rng.normal(size=truth.shape), truth)
    np.testing.assert_array_equal(shuffled[order], np.arange(4))
    images = rng.normal(size=truth.shape)
    total = lambda order: ((images[list(order)] - truth) ** 2).sum()
    least = min(map(total, itertools.permutations(range(4))))
    assert total(rec.matched(images, truth)) == pytest.approx(least)


def test_baselines_are_of_the_right_class_and_of_the_pool():
    pool = np.arange(6.0).reshape(6, 1, 1, 1)
    labels = np.array([0, 1, 0, 1, 2, 2])
    found = rec.baselines(np.zeros((3, 1, 1, 1)), [1, 0, 2], pool, labels)
    np.testing.assert_array_equal(found.mean.ravel(), [2.5] * 3)
    np.testing.assert_array_equal(found.class_mean.ravel(), [2.0, 1.0, 4.5])
    for value, label in zip(found.same_class.ravel(), [1, 0, 2], strict=True):
        assert labels[int(value)] == label


def test_wrong_images_are_refused():
    image = np.zeros((8, 8, 1))
    with pytest.raises(InputError, match="truth"):
        rec.psnr(image, image[:4])
    with pytest.raises(InputError, match="peak is 0"):
        rec.ssim(image, image, 0.0)
    with pytest.raises(InputError, match="matching needs"):
        rec.matched(image, image)
    with pytest.raises(InputError, match="no image of class 3"):
        rec.baselines(image[None], [3], image[None], [0])
