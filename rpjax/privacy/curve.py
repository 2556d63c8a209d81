"""Privacy curves: a guarantee of any kind, asked for epsilon, delta or power.

A mechanism's guarantee is a bound on how well its outputs on two neighbouring data sets
can be told apart, whichever of the two is called the first. Every such bound is known
by its profile

    D(s) = sup over tests of TPR - s FPR,    s > 0,

which is convex, falls from 1 to the mass that one law has where the other has none, and
is delta(epsilon) at s = e^epsilon. Exchanging the two laws gives the other half,
D(s) = 1 - s + s D(1/s), so delta at epsilon >= 0 says everything: by convex duality no
test exceeds TPR(FPR) = min over s of s FPR + D(s). Source: Dong, Roth, Su, "Gaussian
Differential Privacy", arXiv 1905.02383, Proposition 2.12.

Post-processing is the identity on curves: whatever is computed from the output without
looking at the data again has the same guarantee. Composition, repetition and
calibration are in `rpjax.privacy.algebra`.
"""

import abc
import functools
import math

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp

Array = npt.NDArray[np.float64]

# an epsilon beyond this is none
LARGEST_EPSILON = 1e12


class Curve(abc.ABC):
    """A guarantee; immutable. A kind of it says what `delta` is, and the rest follows.

    Every answer holds for both orders of two neighbouring data sets.
    """

    def delta(self, epsilon: float) -> float:
        """Smallest delta proved at this epsilon, zero or more."""
        checks.not_negative("epsilon", epsilon)
        return float(self._deltas(np.float64(epsilon))) + 0.0  # no -0.0

    def epsilon(self, delta: float) -> float:
        """Smallest epsilon proved at this delta in [0, 1); infinite where none is.

        Rounded upward: `delta` of the answer is never above the delta asked for.
        """
        checks.probability("delta", delta)
        if delta == 0:
            return self._pure()
        if self.delta(0.0) <= delta:
            return 0.0
        high = 1.0
        while self.delta(high) > delta:
            high *= 2
            if high > LARGEST_EPSILON:
                return math.inf
        found = scipy.optimize.brentq(
            lambda e: math.log(max(self.delta(e), 1e-320) / delta),
            *(0.0, high),
            xtol=1e-14 * high,
        )
        return self._rounded_up(float(found), delta)

    def tpr(self, fpr: npt.ArrayLike) -> gdp.Floats:
        """Largest true-positive rate of any test at these false-positive rates.

        The least of s FPR + D(s). Any s gives a bound, so that no more than tightness
        rests on the search, by golden sections in log s.
        """
        shape = np.shape(fpr)
        rates = checked_rates(fpr).reshape(-1)
        lines = functools.partial(self._line, rates)
        # a line is 1 to rounding below e^-40, and exceeds 1 above 1 / FPR
        high = np.where(rates > 0, -np.log(np.maximum(rates, 1e-300)), 1e6)
        low = np.full_like(high, -40.0)
        for _ in range(80):
            third = 0.381966 * (high - low)
            left, right = low + third, high - third
            falls = lines(left) >= lines(right)
            low, high = np.where(falls, left, low), np.where(falls, high, right)
        return np.clip(lines((low + high) / 2), rates, 1.0).reshape(shape)[()]

    def trade_off(self, alpha: npt.ArrayLike) -> gdp.Floats:
        """Type II error that every test of type I error `alpha` has: 1 - tpr(alpha)."""
        return 1 - self.tpr(alpha)

    @property
    def advantage(self) -> float:
        """Largest TPR - FPR of any test."""
        return self.delta(0.0)

    def profile(self, log_s: npt.ArrayLike) -> gdp.Floats:
        """D(s), see the module, at logarithms of s of either sign.

        >>> from rpjax.privacy.curves import Gaussian
        >>> float(Gaussian(1.0).profile(0.5) - Gaussian(1.0).delta(0.5))
        0.0
        """
        t = np.asarray(log_s, dtype=np.float64)
        deltas = self._deltas(np.abs(t))
        return np.where(t < 0, 1 + np.exp(np.minimum(t, 0)) * (deltas - 1), deltas)[()]

    def _line(self, rates: Array, log_s: Array) -> Array:
        return np.asarray(np.exp(np.minimum(log_s, 700)) * rates + self.profile(log_s))

    def _rounded_up(self, epsilon: float, delta: float) -> float:
        step = 1e-15 * max(epsilon, 1e-3)
        while self.delta(epsilon) > delta:
            epsilon, step = epsilon + step, 2 * step
        return epsilon

    def _pure(self) -> float:
        """Smallest epsilon proved at delta 0."""
        return math.inf

    @abc.abstractmethod
    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        """`delta` at several epsilons of any shape."""


def checked_rates(fpr: npt.ArrayLike) -> Array:
    """False-positive rates as an array, refused outside [0, 1]."""
    rates = np.asarray(fpr, dtype=np.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise InputError("fpr: every rate must lie in [0, 1]")
    return rates
