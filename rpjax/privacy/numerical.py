"""Curves from privacy loss distributions on a grid, as dp-accounting computes them."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rpjax.errors import InputError
from rpjax.privacy import gdp
from rpjax.privacy.curve import Array, Curve


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
    def _tails(self) -> tuple["_Tail", ...]:
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


def _tail(pmf: Any) -> _Tail:
    """Sums from the largest loss down; convolution leaves masses just below zero."""
    masses = np.maximum(pmf._probs, 0.0)
    held = np.flatnonzero(masses)
    losses = (held + pmf._lower_loss) * pmf._discretization
    beyond = np.concatenate([[pmf._infinity_mass], masses[held][::-1]])
    lower = np.concatenate([[-np.inf], (np.log(masses[held]) - losses)[::-1]])
    return _Tail(losses, np.cumsum(beyond)[::-1], np.logaddexp.accumulate(lower)[::-1])
