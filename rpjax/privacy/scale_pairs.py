"""Pairs of normal laws whose scales differ between two values, in either direction.

A coordinate is "up" where its standard deviation is r under the first law and 1 under
the second, and "down" the other way round. What `rpjax.privacy.multiplicative` proves
comes down to such pairs; here their deltas are computed.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.privacy import inversion

Floats = npt.NDArray[np.float64]

# members of a family whose contours are summed at once, for the memory's sake
AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class ScalePairs:
    """Pairs of laws with k coordinates up and the others down, for k = 0..d.

    log_ratio: log r. shift: of the means, in units of the smaller scale; counted as if
    all coordinates were up. beside: mu of a Gaussian mechanism released as well.
    """

    log_ratio: float
    coordinates: int
    shift: float = 0.0
    beside: float = 0.0

    @property
    def excess(self) -> float:
        """r^2 - 1; K is finite below its inverse."""
        return math.expm1(2 * self.log_ratio)

    @property
    def limit(self) -> float:
        """K is finite below it; 1e9 stands for no limit."""
        return 1 / max(self.excess, 1e-9)

    def orders(self) -> Floats:
        """Orders less 1, dense enough to find the best one's epsilon to 1e-4."""
        return np.asarray(self.limit * scipy.special.expit(np.linspace(-35, 25, 2401)))

    def one(self, s: npt.NDArray[Any], up: bool) -> npt.NDArray[Any]:
        """K of the scales of one coordinate: log E exp(s loss)."""
        sign = 1 if up else -1
        opened = np.expm1(2 * sign * self.log_ratio)
        return np.asarray(-sign * s * self.log_ratio - np.log1p(-s * opened) / 2)

    def moved(self, s: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """K of the shift and of the Gaussian beside."""
        squares = self.shift**2 / (1 - s * self.excess) + self.beside**2
        return np.asarray(s * (1 + s) / 2 * squares)

    def all_up(self, s: Floats) -> Floats:
        """K with all coordinates up."""
        return np.asarray(self.coordinates * self.one(s, True) + self.moved(s))

    def renyi_log_delta(self, epsilon: float, every: int = 1) -> float:
        """Logarithm of the delta that the divergences with all up prove.

        every: take only one in so many of the orders.
        """
        s = self.orders()[::every]
        return float(inversion.log_chernoff(self.all_up(s), s, epsilon).min())

    def log_deltas(self, ups: npt.ArrayLike, epsilon: float, saddle: float) -> Floats:
        """Logarithms of delta for these numbers of coordinates up."""
        trend = (2 * np.asarray(ups) - self.coordinates) * self.log_ratio
        moment = self._log_moment(ups)
        return inversion.log_delta(moment, epsilon, saddle, self.limit, trend)

    def log_bounds(self, ups: npt.ArrayLike, epsilon: float, saddle: float) -> Floats:
        """Upper bounds on `log_deltas`."""
        moment = self._log_moment(ups)
        return inversion.log_bound(moment, epsilon, saddle, self.limit)

    def _log_moment(self, ups: npt.ArrayLike) -> inversion.LogMoment:
        k = np.asarray(ups)[:, None]

        def log_moment(s: npt.NDArray[Any]) -> npt.NDArray[Any]:
            scales = k * self.one(s, True) + (self.coordinates - k) * self.one(s, False)
            return np.asarray(scales + self.moved(s))

        return log_moment

    def saddle(self, epsilon: float) -> float:
        """Where the contour for all coordinates up meets the real axis."""
        return inversion.least_order(self.all_up, epsilon, self.limit)


def all_up_log_delta(pairs: ScalePairs, epsilon: float) -> float:
    """Logarithm of delta for all coordinates up, and the full shift."""
    saddle = pairs.saddle(epsilon)
    return float(pairs.log_deltas([pairs.coordinates], epsilon, saddle)[0])


def largest_log_delta(pairs: ScalePairs, epsilon: float) -> float:
    """Over all numbers of coordinates up, from all of them downward."""
    d, saddle = pairs.coordinates, pairs.saddle(epsilon)
    found = float(pairs.log_deltas([d], epsilon, saddle)[0])
    if found == 0:
        return found
    # the logarithm of a bound is linear in the number up
    bound, lowest = pairs.log_bounds([d, 0], epsilon, saddle)
    candidates = d
    if lowest < found:
        candidates = math.ceil(d * (bound - found) / (bound - lowest))
    for first in range(1, candidates + 1, AT_ONCE):
        down = np.arange(first, min(first + AT_ONCE, candidates + 1))
        # with all up in front, whose contour it is
        family = d - np.concatenate([[0], down])
        found = max(found, float(pairs.log_deltas(family, epsilon, saddle).max()))
    return found


def split(pairs: ScalePairs, epsilon: float) -> ScalePairs:
    """Mean and scales released apart, at the c for which Renyi's bound is least.

    c^2 is the mean's share of the smaller variance; any share gives a valid bound.
    """
    closest = min(1e-3, 1e-3 * pairs.excess)
    logits = np.linspace(-10.0, -math.log(closest), 120)
    mean, rest = scipy.special.expit(logits), scipy.special.expit(-logits)
    apart = [
        ScalePairs(
            log_ratio=math.log1p(pairs.excess / r) / 2,
            coordinates=pairs.coordinates,
            beside=pairs.shift / m,
        )
        for m, r in zip(np.sqrt(mean).tolist(), rest.tolist(), strict=True)
    ]
    return min(apart, key=lambda each: each.renyi_log_delta(epsilon, every=8))
