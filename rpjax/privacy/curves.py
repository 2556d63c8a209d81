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

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp

Array = npt.NDArray[np.float64]

# an epsilon beyond this is none
LARGEST_EPSILON = 1e12


class Curve:
    """A guarantee; immutable. A kind of it says what `delta` is, and the rest follows.

    Every answer holds for both orders of two neighbouring data sets.
    """

    def delta(self, epsilon: float) -> float:
        """Smallest delta proved at this epsilon, zero or more."""
        checks.not_negative("epsilon", epsilon)
        return float(self._deltas(np.float64(epsilon)))

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
        rates = _checked_rates(fpr).reshape(-1)
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

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        """`delta` at several epsilons of any shape."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Gaussian(Curve):
    """Exact mu-GDP: no easier to tell apart than N(0, 1) and N(mu, 1).

    >>> g = Gaussian(1.0)
    >>> f"{g.epsilon(1e-5):.6f}, {g.tpr(0.01):.6f}"
    '4.377178, 0.092362'
    """

    mu: float

    def __post_init__(self) -> None:
        checks.not_negative("mu", self.mu)

    def epsilon(self, delta: float) -> float:
        """By the closed form of delta; 1e-300 is no difficulty."""
        checks.probability("delta", delta)
        if delta == 0:
            return self._pure()
        return self._rounded_up(gdp.epsilon(delta, self.mu), delta)

    def tpr(self, fpr: npt.ArrayLike) -> gdp.Floats:
        """Phi(Phi^-1(FPR) + mu)."""
        return gdp.tpr(fpr, self.mu)

    def _pure(self) -> float:
        return 0.0 if self.mu == 0 else math.inf

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        return gdp.delta(epsilons, self.mu)

    def __str__(self) -> str:
        return f"{self.mu:.4g}-GDP"


@dataclasses.dataclass(frozen=True)
class Point(Curve):
    """(epsilon, delta)-DP and nothing more: pure DP at delta 0, nothing at delta 1.

    Its profile is that of the hardest mechanism with this guarantee: with probability
    delta the data are shown, otherwise they go through binary randomised response.
    Source: Kairouz, Oh, Viswanath, "The Composition Theorem for Differential Privacy",
    2015.

    >>> p = Point(1.0, 1e-6)
    >>> p.epsilon(1e-6), p.epsilon(1e-7)
    (1.0, inf)
    >>> f"{p.tpr(0.01):.5f}"
    '0.02718'
    """

    at_epsilon: float
    at_delta: float = 0.0

    def __post_init__(self) -> None:
        checks.not_negative("epsilon", self.at_epsilon)
        if not 0 <= self.at_delta <= 1:
            raise InputError(f"delta = {self.at_delta!r}: must lie in [0, 1]")

    def epsilon(self, delta: float) -> float:
        """The epsilon itself down to its delta, less above, none below."""
        checks.probability("delta", delta)
        if delta < self.at_delta:
            return math.inf
        if delta == self.at_delta:
            return self.at_epsilon
        spent = (delta - self.at_delta) / (1 - self.at_delta)
        left = 1 - spent * (1 + math.exp(-self.at_epsilon))
        # with e^epsilon (1 + e^-epsilon) of the mass spent down to 1, nothing is left
        if left <= math.exp(-self.at_epsilon):
            return 0.0
        return self._rounded_up(self.at_epsilon + math.log(left), delta)

    def tpr(self, fpr: npt.ArrayLike) -> gdp.Floats:
        """The least of e^epsilon FPR + delta and 1 - e^-epsilon (1 - delta - FPR)."""
        rates = _checked_rates(fpr)
        with np.errstate(divide="ignore"):
            steep = np.exp(np.minimum(self.at_epsilon + np.log(rates), 1.0))
        flat = 1 - math.exp(-self.at_epsilon) * (1 - self.at_delta - rates)
        return np.clip(np.minimum(steep + self.at_delta, flat), 0.0, 1.0)[()]

    def _pure(self) -> float:
        return self.at_epsilon if self.at_delta == 0 else math.inf

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        above = -np.expm1(np.minimum(epsilons - self.at_epsilon, 0.0))
        hidden = (1 - self.at_delta) / (1 + math.exp(-self.at_epsilon))
        return np.asarray(self.at_delta + hidden * above)[()]

    def __str__(self) -> str:
        if self.at_delta == 0:
            return f"{self.at_epsilon:.4g}-DP"
        if self.at_delta == 1:
            return "nothing"
        return f"({self.at_epsilon:.4g}, {self.at_delta:.4g})-DP"


@dataclasses.dataclass(frozen=True)
class Mixture(Curve):
    """One of several mechanisms, chosen by public chance, the choice seen by everyone.

    Such as a record that is used a random number of times and everyone sees how often.
    The profile is the weighted mean of the parts', because the best test for a given s
    is the best one for each outcome of the choice; exact where the parts are and where
    one pair of neighbours is the worst for all of them. By duality `tpr` is then the
    best that a test can do that spreads its false positives over the parts as it
    likes: at its optimum all parts have the same slope.

    >>> m = Mixture((0.5, 0.5), (Gaussian(0.0), Gaussian(2.0)))
    >>> f"{m.delta(1.0):.6f} {Gaussian(2.0).delta(1.0) / 2:.6f}"
    '0.254931 0.254931'
    """

    weights: Sequence[float]
    parts: Sequence[Curve]

    def __post_init__(self) -> None:
        if not self.weights or len(self.weights) != len(self.parts):
            raise InputError(
                f"weights: {len(self.weights)} for {len(self.parts)} parts; one each, "
                "and at least one"
            )
        if not min(self.weights) >= 0 or not math.isclose(
            math.fsum(self.weights), 1.0, rel_tol=1e-9
        ):
            raise InputError("weights: must be zero or more, and add up to 1")
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))
        object.__setattr__(self, "parts", tuple(self.parts))

    def _pure(self) -> float:
        pairs = zip(self.weights, self.parts, strict=True)
        return max(part._pure() for weight, part in pairs if weight > 0)

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        at = np.asarray(epsilons)
        weights, mus = self._gaussians
        mean: Any = gdp.delta(at[..., None], mus) @ weights
        for weight, part in self._others:
            mean = mean + weight * part._deltas(at)
        return np.asarray(np.minimum(mean, 1.0))[()]

    @functools.cached_property
    def _gaussians(self) -> tuple[Array, Array]:
        """Weights and mus of the parts that are Gaussian, to be computed at once."""
        pairs = zip(self.weights, self.parts, strict=True)
        found = [(w, part.mu) for w, part in pairs if isinstance(part, Gaussian)]
        weights, mus = np.array(found, dtype=np.float64).reshape(-1, 2).T
        return weights, mus

    @functools.cached_property
    def _others(self) -> list[tuple[float, Curve]]:
        pairs = zip(self.weights, self.parts, strict=True)
        return [(w, part) for w, part in pairs if not isinstance(part, Gaussian)]

    def __str__(self) -> str:
        likely = self.parts[int(np.argmax(self.weights))]
        return f"a visible choice of {len(self.parts)}, most often {likely}"


@dataclasses.dataclass(frozen=True)
class Renyi(Curve):
    """Upper bounds on Renyi divergences of some orders above 1, in both directions.

    Converted by dp-accounting: Canonne, Kamath, Steinke, "The Discrete Gaussian for
    Differential Privacy", arXiv 2004.00010, Proposition 12, at the best of the orders.

    >>> r = Renyi((2.0, 8.0, 32.0), (1.0, 4.0, 16.0))
    >>> f"{r.epsilon(1e-5):.4f}"
    '5.2141'
    """

    orders: Sequence[float]
    divergences: Sequence[float]

    def __post_init__(self) -> None:
        if not self.orders or len(self.orders) != len(self.divergences):
            raise InputError(
                f"divergences: {len(self.divergences)} for {len(self.orders)} orders; "
                "one each, and at least one"
            )
        if not min(self.orders) > 1:
            raise InputError(f"orders: {min(self.orders)!r} is among them; all above 1")
        if not min(self.divergences) >= 0:
            raise InputError("divergences: must be zero or more")
        object.__setattr__(self, "orders", tuple(map(float, self.orders)))
        object.__setattr__(self, "divergences", tuple(map(float, self.divergences)))

    def epsilon(self, delta: float) -> float:
        """The least over the orders."""
        from dp_accounting import rdp

        checks.probability("delta", delta)
        found = float(rdp.compute_epsilon(self.orders, self.divergences, delta)[0])
        return found if math.isinf(found) else self._rounded_up(found, delta)

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        """As dp-accounting's `compute_delta`, which takes one epsilon at a time."""
        orders, divergences = np.array(self.orders), np.array(self.divergences)
        spent = divergences - np.asarray(epsilons)[..., None] + np.log1p(-1 / orders)
        logs = (orders - 1) * spent - np.log(orders)
        # orders near 1 are worth no more than the Kullback-Leibler divergence
        usable = np.where(orders > 1.01, logs, np.inf).min(axis=-1)
        least = divergences.min()
        by_entropy = np.log1p(-np.exp(-least)) / 2 if least > 0 else -np.inf
        return np.asarray(np.exp(np.minimum(np.minimum(usable, by_entropy), 0.0)))[()]

    def __str__(self) -> str:
        span = f"{min(self.orders):.4g} to {max(self.orders):.4g}"
        return f"Renyi DP at {len(self.orders)} orders, {span}"


class _Tail(NamedTuple):
    """Of a discrete privacy loss distribution, in one direction.

    losses: ascending, (n,). upper, log_lower: mass of the two laws at the i-th loss and
    beyond, and what has infinite loss, (n + 1,).
    """

    losses: Array
    upper: Array
    log_lower: Array

    def deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        at = np.searchsorted(self.losses, epsilons, side="right")
        found = self.upper[at] - np.exp(epsilons + self.log_lower[at])
        return np.asarray(np.maximum(found, self.upper[-1]))


@dataclasses.dataclass(frozen=True, eq=False)
class Numerical(Curve):
    """A `dp_accounting` privacy loss distribution, rounded so that it never flatters.

    pld: a pessimistic `PrivacyLossDistribution`. Where its two directions differ, as
        for adding and removing a record, the worse one counts at each epsilon.

    Its masses carry the rounding of the convolutions that made it, about 1e-15 each:
    deltas below 1e-12 say nothing.

    >>> from dp_accounting.pld import privacy_loss_distribution as distributions
    >>> n = Numerical(distributions.from_laplace_mechanism(1.0))
    >>> f"{n.epsilon(1e-2):.4f} {n.epsilon(0.0):.4f}"
    '0.9799 1.0000'
    """

    pld: Any

    def __post_init__(self) -> None:
        if not all(pmf._pessimistic_estimate for pmf in self._masses):
            raise InputError("pld: made with pessimistic_estimate=False; must be True")

    @property
    def interval(self) -> float:
        """Spacing of the grid of privacy losses."""
        return float(self._masses[0]._discretization)

    @property
    def _masses(self) -> tuple[Any, ...]:
        """Both directions, or the one that serves for both."""
        remove, add = self.pld._pmf_remove, self.pld._pmf_add
        return (remove,) if self.pld._symmetric else (remove, add)

    @property
    def directions(self) -> tuple[Callable[[gdp.Floats], gdp.Floats], ...]:
        """(log s) -> D(s) of each direction, both signs; one where it serves for both.

        >>> from dp_accounting.pld import privacy_loss_distribution as distributions
        >>> n = Numerical(distributions.from_laplace_mechanism(1.0))
        >>> [f"{float(d(np.float64(-1.0))):.4f}" for d in n.directions]
        ['0.6321']
        """
        return tuple(tail.deltas for tail in self._tails)

    @functools.cached_property
    def _tails(self) -> tuple[_Tail, ...]:
        return tuple(_tail(pmf.to_dense_pmf()) for pmf in self._masses)

    def _pure(self) -> float:
        if any(tail.upper[-1] > 0 for tail in self._tails):
            return math.inf
        return max(0.0, *(float(tail.losses[-1]) for tail in self._tails))

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        both = [tail.deltas(epsilons) for tail in self._tails]
        return np.asarray(np.minimum(np.max(both, axis=0), 1.0))[()]

    def __str__(self) -> str:
        return f"a privacy loss distribution on a grid of {self.interval:.4g}"


def _tail(pmf: Any) -> _Tail:
    """Sums from the largest loss down; convolution leaves masses just below zero."""
    masses = np.maximum(pmf._probs, 0.0)
    held = np.flatnonzero(masses)
    losses = (held + pmf._lower_loss) * pmf._discretization
    beyond = np.concatenate([[pmf._infinity_mass], masses[held][::-1]])
    lower = np.concatenate([[-np.inf], (np.log(masses[held]) - losses)[::-1]])
    return _Tail(losses, np.cumsum(beyond)[::-1], np.logaddexp.accumulate(lower)[::-1])


def _checked_rates(fpr: npt.ArrayLike) -> Array:
    rates = np.asarray(fpr, dtype=np.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise InputError("fpr: every rate must lie in [0, 1]")
    return rates
