"""What clean features look like, told from noisy ones whose noise is known.

Given its class, a released vector is the clipped deviation plus N(0, pi^2 I). So the
mean of a class estimates its clean mean with an error of variance pi^2 / n an entry,
and the covariance within classes is the clean one plus pi^2 I, which is subtracted.
Both estimates are then pulled towards what is public, by as much as their known error
asks for (empirical Bayes: James and Stein, 1961; Ledoit and Wolf, 2004), and what stays
uncertain is kept beside them.

Averaging K noisy copies of a record with the noise that K copies need, pi sqrt(K), has
the same law as one copy, so copies gain nothing here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rpjax.features.releasing import Released
from rpjax.features.trunk import Features, Sample

Floats = Float[np.ndarray, "..."]


class Moments(NamedTuple):
    """Clean means of each class and their common covariance, as estimated.

    means: (k, d). shifts: (k, d), by how much they differ from the public centres.
    uncertainty: (k, d), the variance that is left in each entry of a mean.
    covariance: (d, d), within classes.
    """

    means: Float[np.ndarray, "k d"]
    shifts: Float[np.ndarray, "k d"]
    uncertainty: Float[np.ndarray, "k d"]
    covariance: Float[np.ndarray, "d d"]


def moments(released: Released) -> Moments:
    """Means and covariance, from the released features and what is public alone."""
    trunk = released.trunk
    shifts, uncertainty = shrunk(*raw_shifts(released), np.diag(trunk.spread))
    centres = trunk.centre_of(np.arange(released.classes))
    within = released.deviations - _class_means(released)[released.labels]
    covariance = pulled(
        clean_covariance(within, released.input_noise),
        trunk.spread,
        covariance_error(within),
    )
    return Moments(centres + shifts, shifts, uncertainty, positive(covariance))


def raw_shifts(released: Released) -> tuple[Floats, Float[np.ndarray, " k"]]:
    """How far each class lies from its public centre, and the error's variance.

    (k, d) and (k,): unbiased where nothing is clipped. Clipping shortens a shift by a
    factor, `clipping_slope`, which is divided out where a public sample tells it. A
    class without a record has a shift of 0 and an infinite error.
    """
    sample, slope = released.trunk.sample, 1.0
    if sample is not None and released.input_noise > 0:
        slope = clipping_slope(sample, released.trunk.bound)
    count = np.bincount(released.labels, minlength=released.classes)
    error = np.where(count > 0, released.input_noise**2 / np.maximum(count, 1), np.inf)
    return _class_means(released) / slope, error / slope**2


def _class_means(released: Released) -> Float[np.ndarray, "k d"]:
    """Means of the deviations of each class, 0 where it has no record."""
    count = np.bincount(released.labels, minlength=released.classes)
    sums = np.zeros((released.classes, released.features.shape[1]))
    np.add.at(sums, released.labels, released.deviations)
    means: Floats = sums / np.maximum(count, 1)[:, None]
    return means


def shrunk(
    shifts: Float[np.ndarray, "k d"],
    errors: Float[np.ndarray, " k"],
    spread: Float[np.ndarray, " d"],
) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "k d"]]:
    """Posterior means and variances of shifts that have an error of known variance.

    A priori a shift is N(0, t^2 spread) in every direction; t^2 is what makes the
    shifts' sum of squares come true. The first k - 1 directions, in which the public
    classes differ most, have a t of their own.
    """
    split = len(shifts) - 1
    parts = [slice(0, split), slice(split, shifts.shape[1])]
    prior = np.hstack([_prior(shifts[:, p], errors, spread[p]) for p in parts])
    share = np.where(errors[:, None] > 0, 0.0, 1.0) + np.zeros_like(shifts)
    known = (errors > 0) & np.isfinite(errors)
    error = errors[known][:, None]
    share[known] = prior / (prior + error)
    return share * shifts, (1 - share) * prior[None]


def _prior(
    shifts: Float[np.ndarray, "k d"],
    errors: Float[np.ndarray, " k"],
    spread: Float[np.ndarray, " d"],
) -> Float[np.ndarray, " d"]:
    """The prior variance t^2 spread of each direction."""
    if not shifts.size:
        return spread
    known = np.isfinite(errors)
    excess = float(((shifts**2).mean(1) - errors)[known].mean())
    return max(excess, 0.0) / float(spread.mean()) * spread


def clipping_slope(sample: Sample, bound: float) -> float:
    """By how much a small shift of a class moves the mean of its clipped features.

    The mean over directions of d clip_R(v + s) / ds at s = 0: 1 inside the ball, and
    outside it R/|v| (1 - 1/d).
    """
    own = sample.features - sample.centres[sample.labels]
    norms = np.maximum(np.linalg.norm(own, axis=1), 1e-12)
    outside = bound / norms * (1 - 1 / own.shape[1])
    return float(np.where(norms <= bound, 1.0, outside).mean())


def clean_covariance(within: Features, noise: float) -> Float[np.ndarray, "d d"]:
    """The covariance of noisy deviations less that of the noise: unbiased."""
    second = within.T @ within / len(within)
    clean: Floats = second - noise**2 * np.eye(len(second))
    return clean


def covariance_error(within: Features) -> float:
    """Expected squared error (Frobenius) of the covariance of Gaussian deviations."""
    second = within.T @ within / len(within)
    return float((np.trace(second) ** 2 + (second**2).sum()) / len(within))


def pulled(
    estimate: Float[np.ndarray, "d d"], target: Float[np.ndarray, "d d"], error: float
) -> Float[np.ndarray, "d d"]:
    """The estimate, moved to the target by the error's share of their distance."""
    distance = float(((estimate - target) ** 2).sum())
    share = 1 - error / distance if distance > error else 0.0
    moved: Floats = target + share * (estimate - target)
    return moved


def positive(symmetric: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """The nearest matrix whose eigenvalues are at least a thousandth of their mean."""
    values, vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)
    floor = max(1e-3 * float(np.maximum(values, 0).mean()), 1e-9)
    kept: Floats = (vectors * np.maximum(values, floor)) @ vectors.T
    return kept
