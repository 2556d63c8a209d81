"""Imbalanced training sets cut from balanced ones: seeded, recorded, repeatable.

Counts by class index c = 0, ..., K - 1, with n the records of the largest class:

===========  ==================================================================
exponential  n ratio^(-c / (K - 1)), rounded down ("long tail")
step         n for the first K // 2 classes, n / ratio rounded down for the rest
given        any, by class
===========  ==================================================================

Source: `imbalance_cifar.py` of Cao et al., "Learning Imbalanced Datasets with
Label-Distribution-Aware Margin Loss", NeurIPS 2019; its imbalance factor is 1 / ratio.
The test set is left as it is.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rpjax.counts import Counts, tally
from rpjax.data.records import Dataset, Records
from rpjax.data.splits import shuffled
from rpjax.errors import InputError

Shape = Literal["exponential", "step"]
Kind = Literal["exponential", "step", "given"]


@dataclasses.dataclass(frozen=True, eq=False)
class Imbalance:
    """A record of how a training set was thinned out.

    kind: "exponential", "step" or "given".
    ratio: records of the largest class over those of the smallest, as asked for; for
        given counts as they are.
    seed: from which the choice within each class follows.
    available, counts: records of each class before and after.
    positions: int64, ascending, of the records that are kept. For one seed and pool,
        a class with a smaller count keeps a part of what it keeps with a larger one.
    """

    kind: Kind
    ratio: float
    seed: int
    available: tuple[int, ...]
    counts: tuple[int, ...]
    positions: npt.NDArray[np.int64]

    def table(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One row a class: class, name, available, records, share of all records."""
        total = sum(self.counts)
        names = [str(c) for c in range(len(self.counts))] if names is None else names
        rows = zip(names, self.available, self.counts, strict=True)
        return [
            {
                "class": label,
                "name": name,
                "available": had,
                "records": kept,
                "share": kept / total,
            }
            for label, (name, had, kept) in enumerate(rows)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the positions, which follow from it, as JSON values."""
        own = {k: getattr(self, k) for k in ("kind", "ratio", "seed")}
        return own | {"available": list(self.available), "counts": list(self.counts)}

    def public_counts(self) -> Counts:
        """The counts, for who declares that this split was made by a public rule.

        They are then known without looking at any one record. With add/remove-one
        neighbours, whose counts differ, that is a choice to be stated.
        """
        return Counts(self.counts, "public")

    def take(self, records: Records) -> Records:
        """The records that are kept, with their ids, in their order."""
        return records.take(self.positions)

    def __str__(self) -> str:
        """The words for a data set's `source`."""
        return (
            f"{self.kind} imbalance, ratio {self.ratio:g}, {sum(self.counts)} of "
            f"{sum(self.available)} train records, seed {self.seed}"
        )


def exponential_counts(largest: int, classes: int, ratio: float) -> tuple[int, ...]:
    """Records of each class, falling geometrically from `largest` by `ratio` in all.

    >>> exponential_counts(5000, 10, 100)
    (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    """
    _check(largest, classes, ratio)
    shares = ((1 / ratio) ** (c / (classes - 1)) for c in range(classes))
    return tuple(_down(largest * share) for share in shares)


def step_counts(largest: int, classes: int, ratio: float) -> tuple[int, ...]:
    """`largest` records of the first half of the classes, largest / ratio of the rest.

    Of an odd number of classes the rest is one class more.

    >>> step_counts(5000, 5, 10)
    (5000, 5000, 500, 500, 500)
    """
    _check(largest, classes, ratio)
    small = _down(largest * (1 / ratio))
    return tuple(largest if c < classes // 2 else small for c in range(classes))


def weighted_counts(
    available: Sequence[int], weights: Sequence[float]
) -> tuple[int, ...]:
    """The largest counts in proportion to `weights` that `available` records allow.

    Rounded down; only ratios of weights matter.

    >>> weighted_counts((100, 100, 50), (4, 2, 1))
    (100, 50, 25)
    """
    if len(weights) != len(available):
        raise InputError(f"weights: {len(weights)} for {len(available)} classes")
    for label, weight in enumerate(weights):
        if not 0 < weight < math.inf:
            raise InputError(
                f"weights: {weight} for class {label}; must be finite and > 0"
            )
    pairs = list(zip(available, weights, strict=True))
    unit = min(count / weight for count, weight in pairs)
    return tuple(min(_down(unit * w), count) for count, w in pairs)


def imbalanced(
    labels: npt.ArrayLike, classes: int, shape: Shape, ratio: float, seed: int = 0
) -> Imbalance:
    """The long-tailed or stepped part of these records.

    The largest class has as many records as the smallest has available, so that on a
    balanced pool it keeps all. ratio: 1 or more.

    Raises:
        InputError: ratio below 1, a class that would be left without a record, labels
            that are not classes, or a negative seed.
    """
    makers = {"exponential": exponential_counts, "step": step_counts}
    if shape not in makers:
        raise InputError(f"shape is {shape!r}; it is one of {', '.join(makers)}")
    available = tally(labels, classes)
    counts = makers[shape](int(available.min()), classes, ratio)
    return _cut(labels, available, counts, shape, float(ratio), seed)


def with_counts(
    labels: npt.ArrayLike, counts: Sequence[int], seed: int = 0
) -> Imbalance:
    """The part with so many records of each class, at least 1.

    Raises:
        InputError: a class that has too few, a count below 1, labels that are not
            classes, or a negative seed.
    """
    whole = tuple(int(count) for count in counts)
    if any(int(count) != count for count in counts):
        raise InputError(f"counts: {tuple(counts)}; must be whole numbers")
    available = tally(labels, len(whole))
    ratio = max(whole) / max(min(whole), 1)
    return _cut(labels, available, whole, "given", ratio, seed)


def with_weights(
    labels: npt.ArrayLike, weights: Sequence[float], seed: int = 0
) -> Imbalance:
    """The largest part whose classes are in proportion to `weights`."""
    available = tally(labels, len(weights))
    return with_counts(labels, weighted_counts(available.tolist(), weights), seed)


def balanced(labels: npt.ArrayLike, classes: int, seed: int = 0) -> Imbalance:
    """The largest part with equally many records of each class, as for a test set."""
    return with_weights(labels, (1.0,) * classes, seed)


def thinned(dataset: Dataset, imbalance: Imbalance) -> Dataset:
    """The data set with `imbalance` taken of its train part; test stays as it is.

    Raises:
        InputError: an imbalance of other records: the counts of classes do not fit.
    """
    found = tuple(tally(dataset.train.labels, dataset.classes).tolist())
    if found != imbalance.available:
        raise InputError(
            f"imbalance: of records with class counts {imbalance.available}; train has "
            f"{found}; make it from train's labels"
        )
    return dataclasses.replace(
        dataset,
        train=imbalance.take(dataset.train),
        source=f"{dataset.source} {str(imbalance).capitalize()}.",
    )


def _cut(
    labels: npt.ArrayLike,
    available: npt.NDArray[np.int64],
    counts: tuple[int, ...],
    kind: Kind,
    ratio: float,
    seed: int,
) -> Imbalance:
    for label, (count, had) in enumerate(zip(counts, available.tolist(), strict=True)):
        if count < 1:
            raise InputError(
                f"counts: class {label} would keep {count} records; take a smaller "
                "ratio, or more records"
            )
        if count > had:
            raise InputError(
                f"counts: {count} records of class {label}, which has {had}"
            )
    y = np.asarray(labels)
    order = shuffled(len(y), seed)
    by_class = order[np.argsort(y[order], kind="stable")]
    rank = np.arange(len(y)) - np.repeat(np.cumsum(available) - available, available)
    kept = np.sort(by_class[rank < np.repeat(counts, available)])
    return Imbalance(kind, ratio, seed, tuple(available.tolist()), counts, kept)


def _down(count: float) -> int:
    # a hair more, so that 4900 (1 / 49) = 99.99999999999999 is a hundred
    return math.floor(count * (1 + 1e-12))


def _check(largest: int, classes: int, ratio: float) -> None:
    if largest < 1:
        raise InputError(f"largest is {largest}; it must be >= 1")
    if classes < 2:
        raise InputError(f"classes is {classes}; it must be >= 2")
    if not 1 <= ratio < math.inf:
        raise InputError(
            f"ratio is {ratio}; it must be >= 1: the largest class over the smallest"
        )
