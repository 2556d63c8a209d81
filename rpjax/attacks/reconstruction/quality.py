"""How good a reconstruction is: PSNR, SSIM, which image it is of, and what luck gives.

float64 on the host, for images of any framework. `peak` is always the whole range of a
pixel: 2 for [-1, 1], rpjax's default after normalisation. A number means something only
beside the same number for images that nobody reconstructed (`baselines`).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError

Floats = npt.NDArray[np.float64]

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def psnr(images: npt.ArrayLike, truth: npt.ArrayLike, peak: float = 2.0) -> Floats:
    """``10 log10(peak^2 / mean squared error)`` of each image, in decibels.

    images, truth: (..., h, w, c). Returns (...); infinite where the two are equal.

    >>> flat = np.zeros((1, 8, 8, 1))
    >>> psnr(flat, flat + 0.2).round(6)
    array([20.])
    """
    a, b = _pair(images, truth, peak)
    with np.errstate(divide="ignore"):
        ratio = peak**2 / np.mean((a - b) ** 2, (-3, -2, -1))
    return np.asarray(10 * np.log10(ratio))


def ssim(images: npt.ArrayLike, truth: npt.ArrayLike, peak: float = 2.0) -> Floats:
    """Structural similarity of each image: 1 if equal, about 0 if unrelated.

    Wang et al. (IEEE Trans. Image Processing 13, 2004), as they compute it: means,
    variances and covariance under a Gaussian window of 11 x 11 pixels with standard
    deviation 1.5, at every place where the window lies inside the image; their mean,
    also over channels. An image that is smaller than the window has the largest odd
    window that fits, with the same standard deviation: 7 x 7 for 8 x 8 pixels.

    images, truth: (..., h, w, c). Returns (...).
    """
    a, b = _pair(images, truth, peak)
    weights = _window(min(WINDOW, *(n - 1 + n % 2 for n in a.shape[-3:-1])))
    mean_a, mean_b = _blurred(a, weights), _blurred(b, weights)
    variances = _blurred(a * a, weights) - mean_a**2
    variances += _blurred(b * b, weights) - mean_b**2
    covariance = _blurred(a * b, weights) - mean_a * mean_b
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    places = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    places /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    return np.asarray(places.mean((-3, -2, -1)))


def matched(images: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Which reconstruction is of which image: a gradient does not say.

    images, truth: (b, h, w, c). Returns `order` (b,) such that ``images[order]`` have
    the least total squared error to `truth`, each used once. It is the judge's choice,
    who knows the truth, and it flatters the attack a little.
    """
    a, b = _pair(images, truth, 1.0)
    if a.ndim != 4:
        raise InputError(f"images have shape {a.shape}; matching needs (b, h, w, c)")
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    distances = ((b[:, None] - a[None]) ** 2).sum(-1)
    _, order = scipy.optimize.linear_sum_assignment(distances)
    return np.asarray(order, np.intp)


class Baselines(NamedTuple):
    """What someone without the gradient or the features would answer, (n, h, w, c).

    mean: the mean image of the data.
    class_mean: the mean image of the record's class.
    same_class: another real image of the class, at random.
    """

    mean: Floats
    class_mean: Floats
    same_class: Floats


def baselines(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    pool: npt.ArrayLike,
    pool_labels: npt.ArrayLike,
    seed: int = 0,
) -> Baselines:
    """Three answers for records with these labels, from a `pool` without them.

    images: (n, h, w, c), for their number and shape alone; pool: (m, h, w, c), in the
    same units.
    """
    known, kinds = np.asarray(pool, np.float64), np.asarray(pool_labels)
    wanted = np.asarray(labels)
    if np.shape(images)[1:] != known.shape[1:] or len(np.shape(images)) != 4:
        raise InputError(
            f"pool has shape {known.shape}, images {np.shape(images)}; both must be "
            "(n, h, w, c) of one size"
        )
    if missing := set(wanted.tolist()) - set(kinds.tolist()):
        raise InputError(f"pool has no image of class {min(missing)}")
    rng = np.random.default_rng(seed)
    own = {label: known[kinds == label] for label in set(wanted.tolist())}
    classes = [own[label] for label in wanted.tolist()]
    return Baselines(
        np.repeat(known.mean(0)[None], len(wanted), 0),
        np.stack([of.mean(0) for of in classes]),
        np.stack([of[rng.integers(len(of))] for of in classes]),
    )


def _window(size: int) -> Floats:
    """One side of the Gaussian window, which sums to 1."""
    x = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(x**2) / (2 * SIGMA**2))
    normalised: Floats = weights / weights.sum()
    return normalised


def _blurred(images: Floats, weights: Floats) -> Floats:
    """Weighted means of all windows inside the images, (..., h', w', c)."""
    for axis in (-3, -2):
        seen = np.lib.stride_tricks.sliding_window_view(images, len(weights), axis)
        images = seen @ weights
    return images


def _pair(
    images: npt.ArrayLike, truth: npt.ArrayLike, peak: float
) -> tuple[Floats, Floats]:
    a, b = np.asarray(images, np.float64), np.asarray(truth, np.float64)
    if a.shape != b.shape or a.ndim < 3:
        raise InputError(
            f"images have shape {a.shape}, truth {b.shape}; both must be the same "
            "(..., h, w, c)"
        )
    if not 0 < peak < np.inf:
        raise InputError(f"peak is {peak}; it must be finite and > 0")
    return a, b
