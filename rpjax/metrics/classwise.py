"""Metrics of imbalanced classes, with intervals; what is undefined is None.

Recalls are shares of independent records and have Clopper-Pearson intervals. The area
under a class's ROC curve against the rest has that of `rpjax.intervals.auc`. All others
have the percentile interval of a stratified bootstrap: records are drawn with
replacement within each true class, whose sizes stay, so that the interval covers chance
within the classes and takes their proportions as fixed. It is narrow, and no guarantee,
where a class has few records, and has no width where nothing was wrong: look at the
recalls then. Trained weights are taken as fixed by all of them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError
from rpjax.intervals import Estimate, auc, clopper_pearson
from rpjax.metrics.confusion import (
    balanced_accuracy,
    confusion,
    g_mean,
    macro_f,
    matthews,
)
from rpjax.metrics.outputs import checked

Floats = npt.NDArray[np.float64]
Statistic = Callable[[npt.NDArray[np.int64]], npt.ArrayLike]

METHOD = "stratified bootstrap"
# records, or cells of a table, times replicates that are worked on at once
CELLS = 4_000_000


@dataclasses.dataclass(frozen=True)
class ClassReport:
    """What a classifier is worth on classes of different sizes.

    records: of each class. recalls: of each class. majority: accuracy of always naming
    the largest class. Any estimate is None where it is undefined, such as everything
    that needs a recall of a class without records.
    """

    records: tuple[int, ...]
    accuracy: Estimate
    majority: float
    recalls: tuple[Estimate | None, ...]
    balanced_accuracy: Estimate | None
    g_mean: Estimate | None
    macro_f1: Estimate | None
    matthews: Estimate | None
    auc: tuple[Estimate | None, ...]
    macro_auc: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)


def class_report(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    confidence: float = 0.95,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> ClassReport:
    """All of the above, from logits [records, k] and labels [records].

    Raises:
        InputError: as `rpjax.metrics.correct`.
    """
    table = confusion(logits, labels)
    sizes = table.sum(1)
    options: Any = {"replicates": replicates, "seed": seed}

    def drawn(metric: Statistic) -> Estimate | None:
        return bootstrapped(metric, table, confidence, **options)

    return ClassReport(
        records=tuple(sizes.tolist()),
        accuracy=clopper_pearson(int(table.trace()), int(sizes.sum()), confidence),
        majority=float(sizes.max() / sizes.sum()),
        recalls=recalls_with_intervals(table, confidence),
        balanced_accuracy=drawn(balanced_accuracy),
        g_mean=drawn(g_mean),
        macro_f1=drawn(macro_f),
        matthews=drawn(matthews),
        auc=auc_one_vs_rest(logits, labels, confidence),
        macro_auc=macro_auc(logits, labels, confidence, **options),
    )


def recalls_with_intervals(
    table: npt.NDArray[np.int64], confidence: float = 0.95
) -> tuple[Estimate | None, ...]:
    """Each class's recall, Clopper-Pearson; None for a class without records."""
    return tuple(
        clopper_pearson(int(row[label]), int(row.sum()), confidence)
        if row.sum()
        else None
        for label, row in enumerate(np.asarray(table))
    )


def bootstrapped(
    statistic: Statistic,
    table: npt.NDArray[np.int64],
    confidence: float = 0.95,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """A metric of a confusion table, with its stratified bootstrap interval.

    statistic: tables [..., k, k] -> values [...], as in `rpjax.metrics.confusion` and
        of `rpjax.metrics.one_vs_rest`. Where a replicate has no value, it counts as
        beyond both ends: an end that this reaches is infinite.

    Returns None where the table itself has no finite value.

    >>> table = np.array([[70, 30], [20, 80]])
    >>> print(bootstrapped(balanced_accuracy, table))
    75.0 % [69.5, 80.5]
    """
    _check(confidence, replicates)
    counts = np.asarray(table)
    value = float(np.asarray(statistic(counts)))
    if not math.isfinite(value):
        return None
    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS // counts.size)
    parts = []
    for start in range(0, replicates, at_once):
        size = min(at_once, replicates - start)
        rows = [_redrawn(rng, row, size) for row in counts]
        parts.append(np.asarray(statistic(np.stack(rows, 1)), np.float64))
    drawn = np.concatenate(parts)
    return _estimate(value, drawn, int(counts.sum()), confidence)


def auc_one_vs_rest(
    logits: npt.ArrayLike, labels: npt.ArrayLike, confidence: float = 0.95
) -> tuple[Estimate | None, ...]:
    """Area under each class's ROC curve against the rest; None without both groups.

    A record's score is the log odds of the class, which order it as its softmax
    probability does, without ties where that rounds to 0 or 1.
    """
    z, y = checked(logits, labels)
    return tuple(
        auc(scores[y == label], scores[y != label], confidence)
        if 0 < (y == label).sum() < len(y)
        else None
        for label, scores in enumerate(_log_odds(z).T)
    )


def macro_auc(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    confidence: float = 0.95,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """Mean of the classes' areas, each against the rest; None if a class is missing."""
    _check(confidence, replicates)
    z, y = checked(logits, labels)
    sizes = np.bincount(y, minlength=z.shape[1])
    if not sizes.all():
        return None
    scores = _log_odds(z)
    value = _mean_area(scores, y, np.ones((1, len(y))))[0]
    drawn = [
        _mean_area(scores, y, times) for times in _times_drawn(y, replicates, seed)
    ]
    return _estimate(float(value), np.concatenate(drawn), len(y), confidence)


def _estimate(value: float, drawn: Floats, n: int, confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    missing = np.isnan(drawn)
    # order statistics, which infinite replicates do not turn into numbers
    low = np.quantile(np.where(missing, -np.inf, drawn), tail, method="lower")
    high = np.quantile(np.where(missing, np.inf, drawn), 1 - tail, method="higher")
    return Estimate(value, float(low), float(high), n, confidence, METHOD)


def _redrawn(
    rng: np.random.Generator, row: npt.NDArray[np.int64], replicates: int
) -> npt.NDArray[np.int64]:
    """The predictions of a class's records, drawn with replacement, (replicates, k)."""
    total = int(row.sum())
    if total == 0:
        return np.zeros((replicates, len(row)), np.int64)
    return rng.multinomial(total, row / total, replicates)


def _times_drawn(
    labels: npt.NDArray[np.int64], replicates: int, seed: int
) -> Iterator[Floats]:
    """How often each record is drawn within its class, some replicates at a time."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    at_once = max(1, CELLS // len(labels))
    for start in range(0, replicates, at_once):
        times = np.zeros((min(at_once, replicates - start), len(labels)))
        for group in groups:
            size = len(group)
            times[:, group] = rng.multinomial(size, np.full(size, 1 / size), len(times))
        yield times


def _mean_area(scores: Floats, labels: npt.NDArray[np.int64], times: Floats) -> Floats:
    """Mean over classes of the area, for records that count so often, (replicates,)."""
    areas = [_area(own, labels == label, times) for label, own in enumerate(scores.T)]
    return np.asarray(np.mean(areas, axis=0))


def _area(scores: Floats, member: npt.NDArray[np.bool_], times: Floats) -> Floats:
    """Share of pairs in which the member scores higher, ties one half."""
    order = np.argsort(scores)
    rising = scores[order]
    last = np.flatnonzero(np.append(rising[1:] != rising[:-1], True))
    weights, member = times[:, order], member[order]
    beaten, found = (
        np.diff(np.cumsum(weights * who, 1)[:, last], axis=1, prepend=0.0)
        for who in (~member, member)
    )
    below = np.cumsum(beaten, 1) - beaten / 2
    return np.asarray((found * below).sum(1) / found.sum(1) / beaten.sum(1))


def _log_odds(logits: Floats) -> Floats:
    """Each class's logit less the log of the others' sum, (records, k)."""
    classes = logits.shape[1]
    others = [
        scipy.special.logsumexp(np.delete(logits, label, 1), axis=1)
        for label in range(classes)
    ]
    return np.asarray(logits - np.stack(others, 1))


def _check(confidence: float, replicates: int) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence!r}: must lie strictly in (0, 1)")
    if replicates < 1:
        raise InputError(f"replicates = {replicates}: must be at least 1")
