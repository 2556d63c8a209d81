"""How many records a class has, and who may know: counts with their source.

A loss that is weighted by class counts is private only if the counts are: public ones,
or ones that were released with noise and paid for (`rpjax.privacy.histogram`). The
counts of the training data themselves are data.
"""

import dataclasses
import math
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from rpjax.errors import InputError

Source = Literal["public", "released", "data"]
Noise = Literal["gaussian", "geometric"]
Array = npt.NDArray[np.float64]


class Release(NamedTuple):
    """The mechanism that counts went through: `rpjax.privacy.histogram.Histogram`.

    scale: of the noise, in records. noise: its kind.
    """

    scale: float
    noise: Noise = "gaussian"


@dataclasses.dataclass(frozen=True)
class Counts:
    """Records of each class, in label order.

    values: finite and 0 or more, two or more of them; a released count need not be
        whole.
    source: "public", known without looking at the training data; "released", taken
        from them by a mechanism that is accounted; or "data", counted on them.
    release: that mechanism, where a guarantee is to compose with it by itself.

    Raises:
        InputError: for other values, fewer than two, an unknown source, or a release
            of what was not released.

    >>> counts = Counts((90, 10), "public")
    >>> counts.classes, counts.total, counts.shares.tolist()
    (2, 100.0, [0.9, 0.1])
    """

    values: tuple[float, ...]
    source: Source
    release: Release | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))
        if len(self.values) < 2:
            raise InputError(
                f"counts: {len(self.values)} classes; there must be 2 or more"
            )
        for label, value in enumerate(self.values):
            if not 0 <= value < math.inf:
                raise InputError(
                    f"counts: {value} records of class {label}; must be finite and >= 0"
                )
        if sum(self.values) == 0:
            raise InputError("counts: no records at all")
        if self.source not in get_args(Source):
            raise InputError(
                f"source is {self.source!r}; it is one of {', '.join(get_args(Source))}"
            )
        if self.release is not None and self.source != "released":
            raise InputError(
                f"release is {self.release} and source {self.source!r}; only "
                "'released' counts have one"
            )

    @property
    def private(self) -> bool:
        """Whether using them costs nothing more: they are public, or paid for."""
        return self.source != "data"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.values)

    @property
    def total(self) -> float:
        """N, records of all classes."""
        return math.fsum(self.values)

    @property
    def shares(self) -> Array:
        """Each class's share of the records, adding up to 1, float64 (k,)."""
        return np.array(self.values) / self.total

    def positive(self) -> Array:
        """The values, float64 (k,), where a weight divides by them.

        Raises:
            InputError: a class has no record.
        """
        for label, value in enumerate(self.values):
            if value == 0:
                raise InputError(
                    f"counts: class {label} has no record, so that no weight follows "
                    "from its count; leave it out, or give it at least 1"
                )
        return np.array(self.values)


@dataclasses.dataclass(frozen=True)
class ClassLosses:
    """Mean loss of each class, in label order, as MSFE weighs its classes by.

    values: finite and 0 or more, in the loss's unit.
    source: "released", by a mechanism that is accounted, or "data".

    Raises:
        InputError: for other values, or an unknown source.
    """

    values: tuple[float, ...]
    source: Literal["released", "data"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))
        for label, value in enumerate(self.values):
            if not 0 <= value < math.inf:
                raise InputError(
                    f"class losses: {value} for class {label}; must be finite and >= 0"
                )
        if self.source not in ("released", "data"):
            raise InputError(f"source is {self.source!r}; it is one of released, data")

    @property
    def private(self) -> bool:
        """Whether using them costs nothing more."""
        return self.source != "data"


def counted(labels: npt.ArrayLike, classes: int) -> Counts:
    """The counts of these labels: data, until they are released.

    >>> counted([0, 2, 2], 3)
    Counts(values=(1.0, 0.0, 2.0), source='data', release=None)

    Raises:
        InputError: a label that is not one of 0, ..., classes - 1, or no label.
    """
    return Counts(tuple(tally(labels, classes).tolist()), "data")


def tally(labels: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """How often each of 0, ..., classes - 1 occurs, int64 (classes,).

    Raises:
        InputError: a label that is none of them, or no label.
    """
    y = np.asarray(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu" or not y.size:
        raise InputError(
            f"labels: shape {y.shape}, dtype {y.dtype}; must be a non-empty list of "
            "whole numbers"
        )
    if y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"labels: from {y.min()} to {y.max()}; must lie in 0..{classes - 1}"
        )
    return np.bincount(y, minlength=classes).astype(np.int64)
