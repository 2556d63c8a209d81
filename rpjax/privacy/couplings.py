"""Two ways to get a guarantee from others: the worst of several, or one nearby.

`Worst` is for a mechanism of which only a list is known that it is on. `Coupled` is for
one whose output differs with some small probability from that of a mechanism with a
known guarantee, such as DP-SGD whose batches are cut and the same without a limit.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp
from rpjax.privacy.curve import Curve


@dataclasses.dataclass(frozen=True)
class Worst(Curve):
    """What holds whichever of several guarantees is the true one.

    >>> from rpjax.privacy.curves import Gaussian, Point
    >>> w = Worst((Gaussian(1.0), Point(2.0)))
    >>> f"{w.epsilon(1e-5):.3f} {w.epsilon(0.3):.3f} {Point(2.0).epsilon(0.3):.3f}"
    '4.377 1.584 1.584'
    """

    curves: Sequence[Curve]

    def __post_init__(self) -> None:
        if not self.curves:
            raise InputError("curves: none given; at least one is needed")
        object.__setattr__(self, "curves", tuple(self.curves))

    def _pure(self) -> float:
        return max(curve.epsilon(0.0) for curve in self.curves)

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        found = [curve.profile(epsilons) for curve in self.curves]
        return np.asarray(np.max(found, axis=0))[()]

    def __str__(self) -> str:
        return "the worst of: " + "; ".join(map(str, self.curves))


@dataclasses.dataclass(frozen=True)
class Coupled(Curve):
    """Of a mechanism that can be coupled with another so that they seldom differ.

    For both neighbours they differ with probability `distance` at most. Changing both
    sides of P[S] <= e^epsilon Q[S] + delta by that much gives
    delta + (1 + e^epsilon) distance, or that of a smaller epsilon where it is less.

    >>> from rpjax.privacy.curves import Gaussian
    >>> c = Coupled(Gaussian(1.0), 1e-9)
    >>> f"{c.epsilon(1e-5):.4f} {c.epsilon(1e-7)}"
    '4.3791 inf'
    """

    curve: Curve
    distance: float

    def __post_init__(self) -> None:
        checks.probability("distance", self.distance)

    def _pure(self) -> float:
        return self.curve.epsilon(0.0) if self.distance == 0 else math.inf

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        at = epsilons
        if self.distance > 0:
            at = np.minimum(epsilons, self._best)
        return np.minimum(self._nearby(at), 1.0)

    def _nearby(self, epsilons: gdp.Floats) -> gdp.Floats:
        paid = (1 + np.exp(epsilons)) * self.distance
        return np.asarray(self.curve.profile(epsilons) + paid)

    @functools.cached_property
    def _best(self) -> float:
        """The epsilon beyond which delta would rise again; the sum is convex in e^eps.

        Beyond log(1 / distance) it exceeds 1.
        """
        return float(
            scipy.optimize.minimize_scalar(
                lambda e: math.log(float(self._nearby(np.float64(e)))),
                bounds=(0.0, -math.log(self.distance)),
                method="bounded",
                options={"xatol": 1e-9},
            ).x
        )

    def __str__(self) -> str:
        return f"{self.curve}, but for a probability of {self.distance:.2g}"
