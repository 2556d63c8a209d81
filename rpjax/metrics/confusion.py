"""Metrics of a confusion table: rows are true classes, columns predicted ones.

A table is [..., k, k] of counts, and a metric is one number for each table, so that
bootstrap replicates are computed side by side. Where a metric divides by nothing it is
NaN here; `rpjax.metrics.classwise` turns that into None. scikit-learn computes the same
for one table at a time and is the oracle of the tests.
"""

import numpy as np
import numpy.typing as npt

from rpjax.errors import InputError
from rpjax.metrics.outputs import checked

Floats = np.float64 | npt.NDArray[np.float64]


def predictions(logits: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The class of the largest logit, the first among equals, int64[records]."""
    return np.asarray(np.asarray(logits).argmax(axis=-1), np.int64)


def confusion(logits: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """How many records of each class are given to each class, int64[k, k].

    logits: float[records, k], or probabilities. labels: int[records].

    >>> confusion([[2.0, 0.0], [3.0, 1.0], [0.0, 1.0]], [0, 1, 1]).tolist()
    [[1, 0], [1, 1]]

    Raises:
        InputError: as `rpjax.metrics.correct`.
    """
    z, y = checked(logits, labels)
    classes = z.shape[1]
    cells = y * classes + predictions(z)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def recalls(table: npt.ArrayLike) -> Floats:
    """Share of each class's records that is found, [..., k]; NaN where it has none."""
    counts = _checked(table)
    return _ratio(_diagonal(counts), counts.sum(-1))


def accuracy(table: npt.ArrayLike) -> Floats:
    """Share of records that is right, [...]."""
    counts = _checked(table)
    return _ratio(_diagonal(counts).sum(-1), counts.sum((-2, -1)))


def balanced_accuracy(table: npt.ArrayLike) -> Floats:
    """Mean recall of the classes, [...]; NaN if a class has no record."""
    return np.asarray(recalls(table).mean(-1))


def g_mean(table: npt.ArrayLike) -> Floats:
    """Geometric mean of the recalls, [...]; 0 as soon as one class is never found."""
    found = recalls(table)
    return np.asarray(np.prod(found, -1) ** (1 / found.shape[-1]))


def f_scores(table: npt.ArrayLike, beta: float = 1.0) -> Floats:
    """F_beta of each class against the rest, [..., k].

    ``(1 + beta^2) TP / ((1 + beta^2) TP + beta^2 FN + FP)``: 0 where a class has
    records and none is found, NaN where it has neither records nor predictions.
    """
    if not 0 < beta < np.inf:
        raise InputError(f"beta = {beta}: must be finite and > 0")
    counts = _checked(table)
    hits, square = _diagonal(counts), beta * beta
    missed, wrong = counts.sum(-1) - hits, counts.sum(-2) - hits
    return _ratio((1 + square) * hits, (1 + square) * hits + square * missed + wrong)


def macro_f(table: npt.ArrayLike, beta: float = 1.0) -> Floats:
    """Mean of `f_scores` over the classes, [...]."""
    return np.asarray(f_scores(table, beta).mean(-1))


def matthews(table: npt.ArrayLike) -> Floats:
    """Matthews' correlation coefficient of k classes, [...], from -1 to 1.

    The correlation of true and predicted classes (Gorodkin, Computational Biology and
    Chemistry 28, 2004). 0 by convention where only one class occurs or is predicted,
    so that nothing can correlate.
    """
    counts = _checked(table)
    total = counts.sum((-2, -1))
    true, predicted = counts.sum(-1), counts.sum(-2)
    cross = total * _diagonal(counts).sum(-1) - (true * predicted).sum(-1)
    spreads = (total**2 - (x * x).sum(-1) for x in (true, predicted))
    spread = np.sqrt(np.multiply(*spreads))
    return np.where(spread > 0, cross / np.where(spread > 0, spread, 1), 0.0)


def _diagonal(counts: Floats) -> Floats:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _ratio(above: Floats, below: Floats) -> Floats:
    """The quotient, NaN where there is nothing below."""
    safe = np.where(below > 0, below, 1)
    return np.where(below > 0, above / safe, np.nan)


def _checked(table: npt.ArrayLike) -> Floats:
    counts = np.asarray(table, np.float64)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2] or counts.shape[-1] < 2:
        raise InputError(f"table: shape {counts.shape}; must be [..., k, k], k >= 2")
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise InputError("table: every entry must be a count, 0 or more")
    return counts
