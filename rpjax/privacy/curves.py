"""The kinds of curves: Gaussian, a single point, visible mixtures, Renyi, numerical.

What they have in common, and what a profile is, stands in `rpjax.privacy.curve`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp
from rpjax.privacy.curve import LARGEST_EPSILON, Array, Curve, checked_rates
from rpjax.privacy.numerical import Numerical

__all__ = [
    "LARGEST_EPSILON",
    "Array",
    "Curve",
    "Gaussian",
    "Mixture",
    "Numerical",
    "Point",
    "Renyi",
]


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
        rates = checked_rates(fpr)
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
        at = np.asarray(epsilons).reshape(-1)
        weights, mus = self._gaussians
        # so many at once that the table of them stays small
        rows = 10**6 // max(mus.size, 1) + 1
        pieces = [at[i : i + rows] for i in range(0, at.size, rows)]
        mean: Any = np.concatenate(
            [gdp.delta(piece[:, None], mus) @ weights for piece in pieces]
        )
        for weight, part in self._others:
            mean = mean + weight * part._deltas(at)
        return np.asarray(np.minimum(mean, 1.0)).reshape(np.shape(epsilons))[()]

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
