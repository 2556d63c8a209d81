"""A guarantee as a table: deltas proved at some epsilons.

A table bounds delta between two of its epsilons as well: delta is convex as a function
of e^epsilon, so a chord lies above it. That holds for whatever accountant the numbers
come from, and a table fits into a file.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rpjax.errors import InputError
from rpjax.privacy import gdp
from rpjax.privacy.curves import Curve

Array = npt.NDArray[np.float64]

# e^epsilon has to be a number
LARGEST = 700.0


@dataclasses.dataclass(frozen=True)
class Tabulated(Curve):
    """Deltas proved at some epsilons.

    epsilons: rising, from 0 on. deltas: an upper bound for each; beyond the last
        epsilon no smaller one is stated.

    >>> from rpjax.privacy.curves import Gaussian
    >>> exact = Gaussian(1.0)
    >>> table = Tabulated((0.0, 2.0, 4.0), [exact.delta(e) for e in (0.0, 2.0, 4.0)])
    >>> f"{table.delta(2.0) - exact.delta(2.0):g} {table.delta(3.0):.4f}"
    '0 0.0153'
    """

    epsilons: Sequence[float]
    deltas: Sequence[float]

    def __post_init__(self) -> None:
        if not self.epsilons or len(self.epsilons) != len(self.deltas):
            raise InputError(
                f"deltas: {len(self.deltas)} for {len(self.epsilons)} epsilons; one "
                "each, and at least one"
            )
        at, deltas = np.array(self.epsilons, float), np.array(self.deltas, float)
        if not (at[0] == 0 and (np.diff(at) > 0).all() and at[-1] <= LARGEST):
            raise InputError(f"epsilons: must rise from 0, to {LARGEST:g} at most")
        if not ((deltas >= 0) & (deltas <= 1)).all():
            raise InputError("deltas: must lie in [0, 1]")
        # what is proved at a smaller epsilon holds at a larger one
        falling = np.minimum.accumulate(deltas).tolist()
        object.__setattr__(self, "epsilons", tuple(at.tolist()))
        object.__setattr__(self, "deltas", tuple(falling))

    def tpr(self, fpr: npt.ArrayLike) -> gdp.Floats:
        """The least of e^epsilon FPR + delta and 1 - e^-epsilon (1 - delta - FPR).

        Over the entries alone, since both are linear from one to the next.
        """
        rates = np.asarray(fpr, dtype=np.float64)
        if not ((rates >= 0) & (rates <= 1)).all():
            raise InputError("fpr: every rate must lie in [0, 1]")
        at, deltas = self._arrays
        growth = np.exp(at)
        direct = growth * rates[..., None] + deltas
        reverse = 1 - (1 - deltas - rates[..., None]) / growth
        bound: Array = np.minimum(direct, reverse).min(axis=-1)
        return np.clip(bound, rates, 1.0)[()]

    def _pure(self) -> float:
        at, deltas = self._arrays
        return float(at[deltas == 0].min(initial=math.inf))

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        at, deltas = self._arrays
        asked = np.minimum(np.asarray(epsilons, np.float64), at[-1])
        right = np.searchsorted(at, asked)
        left = np.maximum(right - 1, 0)
        # from the right, so that an entry comes out as it was put in
        gap = np.expm1(at[left] - at[right])
        share = np.expm1(asked - at[right]) / np.where(gap < 0, gap, 1.0)
        found: Array = deltas[right] + share * (deltas[left] - deltas[right])
        return found[()]

    @functools.cached_property
    def _arrays(self) -> tuple[Array, Array]:
        return np.array(self.epsilons), np.array(self.deltas)

    def __str__(self) -> str:
        return f"delta at {len(self.epsilons)} epsilons"


def tabulated(
    epsilons: npt.ArrayLike,
    deltas: npt.ArrayLike,
    known: Sequence[tuple[float, float]] = (),
) -> Tabulated:
    """The table of deltas that were found at some epsilons, from 0 on.

    known: more proved pairs (epsilon, delta), for the table to give exactly.

    >>> from rpjax.privacy.curves import Gaussian
    >>> at = np.linspace(0.0, 8.0, 400)
    >>> table = tabulated(at, Gaussian(1.0).profile(at), [(5.0, 1e-7)])
    >>> f"{table.epsilon(1e-5):.4f} {table.delta(5.0):g}"
    '4.3774 1e-07'
    """
    pairs = zip(np.asarray(epsilons), np.asarray(deltas), strict=True)
    best: dict[float, float] = {}
    for epsilon, delta in [*pairs, *known]:
        if epsilon <= LARGEST:
            best[float(epsilon)] = min(float(delta), best.get(float(epsilon), 1.0))
    at = sorted(best)
    return Tabulated(at, [best[epsilon] for epsilon in at])
