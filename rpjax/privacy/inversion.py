"""delta(epsilon) from the Renyi divergences of all orders, by one contour integral.

Let L be the privacy loss under the first law, and K(s) = log E exp(s L), which is s
times the Renyi divergence of order 1 + s. For every c > 0 with K(c) finite

    delta(epsilon) = 1 / (2 pi i) integral of exp(K(s) - s epsilon) / (s (1 + s)) ds

along Re s = c. It is Mellin's inversion: delta is the mean of
max(0, 1 - exp(epsilon - L)), and the integral of exp(s epsilon) times that over all
epsilons is exp(K(s)) (1/s - 1/(1 + s)). Through the c where the integrand is least
among the real ones it passes a saddle: its peak is there and nothing cancels, so that
a delta far below the smallest double comes out with ten digits.

`log_chernoff` keeps one order only. It is the usual conversion of a Renyi guarantee,
and their ratio is what that conversion loses.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

Floats = npt.NDArray[np.float64]
# K at real or complex s, for a family of pairs of laws: (..., 1, n) -> (family, n)
LogMoment = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

# The contour is c + width (i sinh u +- SLOPE (cosh u - 1)), summed at steps of u. About
# real u the integrand is analytic in a strip of half width 0.38, and dies at least like
# exp(-1.5 u): errors of exp(-2 pi 0.38 / STEP) and exp(-1.5 REACH).
SLOPE, STEP, REACH = 0.4, 0.04, 25.0


def log_delta(
    log_moment: LogMoment, epsilon: float, saddle: float, limit: float, trend: Floats
) -> Floats:
    """Logarithms of delta at `epsilon` for each member of a family of pairs of laws.

    Args:
        log_moment: K, analytic off the real axis.
        epsilon: of either sign.
        saddle: where the contour meets the real axis, between 0 and `limit`: the
            `least_order` of the family's first. What is far below the first one's
            delta is lost in rounding.
        limit: K is finite below it.
        trend: (family,), K(s) behaves like -s trend where |s| is large, beside its
            logarithms and a Gaussian: the contour bends to where the integrand falls.
    """
    curvature = _curvature(log_moment, saddle, limit)
    if curvature * saddle**2 < 1 / 25:
        # epsilon is five standard deviations or more below the mean of L: delta is
        # within 1e-6 of 1, and its difference from 1 would be lost in rounding
        return np.zeros(len(trend))
    width = 1 / math.sqrt(curvature + saddle**-2 + (1 + saddle) ** -2)
    u = np.arange(0.0, REACH, STEP)[None]
    bend = SLOPE * np.sign(trend + epsilon)[:, None]
    s = saddle + width * (1j * np.sinh(u) + bend * (np.cosh(u) - 1))
    along = width * (np.cosh(u) - 1j * bend * np.sinh(u)) / (s * (1 + s))
    peak = log_moment(np.array([[saddle]])) - saddle * epsilon
    heights = np.exp(log_moment(s) - s * epsilon - peak) * along
    # the other half of the contour is the conjugate of this one
    total = heights.real.sum(axis=1) - heights[:, 0].real / 2
    with np.errstate(divide="ignore"):
        found = peak[:, 0] + np.log(np.maximum(total * STEP / math.pi, 0.0))
    return np.asarray(np.minimum(found, 0.0))


def log_bound(
    log_moment: LogMoment, epsilon: float, saddle: float, limit: float
) -> Floats:
    """Upper bounds on `log_delta`: the same integral of the integrand's modulus.

    Of families too, with Re s = saddle for all. By Hoelder's inequality the bound for a
    K that lies between two others, K = t K' + (1 - t) K'', lies between theirs.
    """
    u = np.arange(0.0, REACH, STEP)[None]
    curvature = _curvature(log_moment, saddle, limit)
    width = 1 / math.sqrt(curvature + saddle**-2 + (1 + saddle) ** -2)
    s = saddle + 1j * width * np.sinh(u)
    peak = log_moment(np.array([[saddle]])) - saddle * epsilon
    sizes = np.exp(log_moment(s).real - saddle * epsilon - peak)
    sizes = sizes * width * np.cosh(u) / np.abs(s * (1 + s))
    total = sizes.sum(axis=1) - sizes[:, 0] / 2
    return np.asarray(peak[:, 0] + np.log(total * STEP / math.pi))


def least_order(log_moment: LogMoment, epsilon: float, limit: float) -> float:
    """The s in (0, limit) at which exp(K(s) - s epsilon) / (s (1 + s)) is least."""

    def height(logit: float) -> float:
        s = limit * scipy.special.expit(logit)
        moment = log_moment(np.array([[s]])).item()
        return float(moment - s * epsilon - math.log(s) - math.log1p(s))

    found = scipy.optimize.minimize_scalar(
        height, bounds=(-50.0, 30.0), method="bounded", options={"xatol": 1e-4}
    )
    return float(limit * scipy.special.expit(found.x))


def log_chernoff(moment: Floats, s: Floats, epsilon: float) -> Floats:
    """Logarithm of the delta that Renyi's order 1 + s alone proves, K(s) given.

    max(0, 1 - exp(epsilon - L)) is at most exp(s (L - epsilon)) s^s / (1 + s)^(1 + s):
    Proposition 12 of Canonne, Kamath, Steinke, arXiv 2004.00010.
    """
    largest = scipy.special.xlogy(s, s) - (1 + s) * np.log1p(s)
    return np.asarray(moment - s * epsilon + largest)


def _curvature(log_moment: LogMoment, saddle: float, limit: float) -> float:
    """Second derivative of the first member's K."""
    y = 1e-3 * min(saddle, limit - saddle)
    on, off = log_moment(np.array([[saddle + 0j, saddle + 1j * y]]))[0].real
    return float(2 * (on - off) / y**2)
