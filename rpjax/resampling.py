"""Intervals for attacks on several models at once.

The records of one model share its training, and the models of one record share the
record: neither are the cells of a table (models, records) independent, nor its rows.
Models and records are therefore resampled both, and a cell counts as often as its model
times as often as its record was drawn (the pigeonhole bootstrap: Owen, Annals of
Applied Statistics 1, 2007). Its intervals are rather too wide than too narrow where
cells differ on their own account. A single model is drawn each time: the intervals then
cover its records only. float64 on the host, from one seed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rpjax.errors import InputError
from rpjax.intervals import Estimate

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array, Array], Array]

METHOD = "two-way bootstrap of models and records"
# cells times replicates that are worked on at once
CELLS = 4_000_000


def auc(
    scores: npt.ArrayLike,
    coins: npt.ArrayLike,
    confidence: float = 0.95,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Area under the ROC curve of all models and records pooled, ties one half.

    Args:
        scores: (models, records), large = member.
        coins: whether a record was in a model's training set, (models, records).
        confidence: of the percentile interval.
        replicates: how often models and records are drawn.
        seed: from which they are drawn.

    Raises:
        InputError: wrong shapes, scores that are not numbers, no member or none that
            is not.

    >>> rng = np.random.default_rng(0)
    >>> coins = rng.random((16, 100)) < 0.5
    >>> print(auc(rng.normal(size=(16, 100)) + coins, coins))
    75.3 % [71.3, 79.5]
    """
    return _estimate(scores, coins, _area, confidence, replicates, seed)


def tpr_at_fpr(
    scores: npt.ArrayLike,
    coins: npt.ArrayLike,
    fpr: float,
    confidence: float = 0.95,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Share of members found at the largest false-positive rate not above `fpr`.

    The threshold is found anew in each replicate, so that its uncertainty counts.
    Fewer than ten false positives allowed are below resolution
    (`intervals.OperatingPoint`), here too. Other arguments as for `auc`.
    """
    if not 0 <= fpr <= 1:
        raise InputError(f"fpr = {fpr!r}: must lie in [0, 1]")

    def found(wrong: Array, right: Array) -> Array:
        return _found_at(wrong, right, fpr)

    return _estimate(scores, coins, found, confidence, replicates, seed)


def auc_and_rates(
    scores: npt.ArrayLike,
    coins: npt.ArrayLike,
    fprs: Sequence[float],
    confidence: float = 0.95,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[Estimate, list[Estimate]]:
    """`auc`, and `tpr_at_fpr` at each of `fprs`, from the same draws: once the time."""

    def both(wrong: Array, right: Array) -> Array:
        found = [_found_at(wrong, right, fpr) for fpr in fprs]
        return np.stack([_area(wrong, right), *found], 1)

    cells = _checked_cells(scores, coins, confidence, replicates)
    whole = (np.ones((1, size)) for size in cells.shape)
    values = _of_draws(both, cells, *whole)[0]
    ends = _percentiles(both, cells, confidence, replicates, seed)
    count = math.prod(cells.shape)
    area, *rates = (
        Estimate(float(value), float(low), float(high), count, confidence, METHOD)
        for value, low, high in zip(values, *ends, strict=True)
    )
    return area, rates


def roc_band(
    scores: npt.ArrayLike,
    coins: npt.ArrayLike,
    fpr: Sequence[float] | Array,
    confidence: float = 0.95,
    *,
    replicates: int = 400,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Ends of the interval of the share of members found, at each of some rates.

    Each rate's interval holds by itself, not all of them together. Arguments as for
    `tpr_at_fpr`; all rates share the draws.
    """
    rates = np.asarray(fpr, np.float64)
    if rates.ndim != 1 or not rates.size or rates.min() < 0 or rates.max() > 1:
        raise InputError("fpr: one or more rates in [0, 1], on one axis")

    def found(wrong: Array, right: Array) -> Array:
        return np.stack([_found_at(wrong, right, rate) for rate in rates], 1)

    cells = _checked_cells(scores, coins, confidence, replicates)
    low, high = _percentiles(found, cells, confidence, replicates, seed)
    return low, high


class _Cells(NamedTuple):
    """The cells of a table in falling order of their scores.

    shape: of the table. model, record, member: of each cell; last: whether the next one
    scores less.
    """

    shape: tuple[int, int]
    model: npt.NDArray[np.int64]
    record: npt.NDArray[np.int64]
    member: npt.NDArray[np.bool_]
    last: npt.NDArray[np.bool_]


def _estimate(
    scores: npt.ArrayLike,
    coins: npt.ArrayLike,
    statistic: Statistic,
    confidence: float,
    replicates: int,
    seed: int,
) -> Estimate:
    cells = _checked_cells(scores, coins, confidence, replicates)
    value = _of_draws(statistic, cells, *(np.ones((1, size)) for size in cells.shape))
    low, high = _percentiles(statistic, cells, confidence, replicates, seed)
    count = math.prod(cells.shape)
    return Estimate(float(value[0]), float(low), float(high), count, confidence, METHOD)


def _checked_cells(
    scores: npt.ArrayLike, coins: npt.ArrayLike, confidence: float, replicates: int
) -> _Cells:
    table, member = checked(scores, coins)
    if not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence!r}: must lie strictly in (0, 1)")
    if replicates < 1:
        raise InputError(f"replicates = {replicates}: must be at least 1")
    return _in_order(table, member)


def _percentiles(
    statistic: Statistic,
    cells: _Cells,
    confidence: float,
    replicates: int,
    seed: int,
) -> Array:
    """Both ends, along the first axis."""
    draws = _draws(cells.shape, replicates, seed)
    drawn = np.concatenate([_of_draws(statistic, cells, *times) for times in draws])
    drawn = drawn[~np.isnan(drawn.reshape(len(drawn), -1)).any(1)]
    if not drawn.size:
        raise InputError("coins: no draw holds both members and non-members")
    tail = (1 - confidence) / 2
    ends: Array = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return ends


def _found_at(wrong: Array, right: Array, fpr: float) -> Array:
    # the last bit of a share must not cost a false positive
    at = (wrong <= fpr * (1 + 1e-12)).sum(1) - 1
    share: Array = np.take_along_axis(right, at[:, None], 1)[:, 0]
    return share


def _in_order(table: Array, member: npt.NDArray[np.bool_]) -> _Cells:
    order = np.argsort(-table, axis=None)
    model, record = np.divmod(order, table.shape[1])
    falling = table[model, record]
    last = np.append(falling[1:] != falling[:-1], True)
    shape = (table.shape[0], table.shape[1])
    return _Cells(shape, model, record, member[model, record], last)


def _draws(
    shape: tuple[int, ...], replicates: int, seed: int
) -> Iterator[tuple[Array, Array]]:
    """How often each model and each record is drawn, some replicates at a time."""
    rng = np.random.default_rng(seed)
    models, records = shape
    at_once = max(1, CELLS // (models * records))
    for start in range(0, replicates, at_once):
        size = min(at_once, replicates - start)
        yield _times_drawn(rng, models, size), _times_drawn(rng, records, size)


def _times_drawn(rng: np.random.Generator, count: int, draws: int) -> Array:
    """How often each of `count` comes up in as many draws with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)


def _of_draws(
    statistic: Statistic, cells: _Cells, models: Array, records: Array
) -> Array:
    """The statistic of each draw's ROC curve; NaN where one group is missing.

    models, records: how often each was drawn, (draws, models) and (draws, records).
    """
    weights = models[:, cells.model] * records[:, cells.record]
    wrong = _shares(weights * ~cells.member, cells.last)
    right = _shares(weights * cells.member, cells.last)
    missing = np.isnan(wrong[:, -1]) | np.isnan(right[:, -1])
    values = np.asarray(statistic(wrong, right), np.float64)
    values[missing] = np.nan
    return values


def _shares(weights: Array, last: npt.NDArray[np.bool_]) -> Array:
    """Share of the weight at or above each distinct score, from none to all."""
    counts = np.cumsum(weights, 1)[:, last]
    corners = np.concatenate([np.zeros((len(counts), 1)), counts], 1)
    with np.errstate(invalid="ignore"):  # 0 / 0: nobody of this group was drawn
        shares: Array = corners / corners[:, -1:]
    return shares


def _area(wrong: Array, right: Array) -> Array:
    area: Array = (np.diff(wrong) * (right[:, 1:] + right[:, :-1])).sum(1) / 2
    return area


def checked(
    scores: npt.ArrayLike, coins: npt.ArrayLike
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Scores and coins of models, (models, records): floats and booleans.

    Raises:
        InputError: as `auc`.
    """
    table, member = np.asarray(scores, np.float64), np.asarray(coins)
    if table.ndim != 2 or table.size == 0:
        raise InputError(f"scores: shape {table.shape}; it is (models, records)")
    if np.isnan(table).any():
        raise InputError(f"scores: {np.isnan(table).sum()} of them are not numbers")
    if member.shape != table.shape:
        raise InputError(f"coins: shape {member.shape}, but scores: {table.shape}")
    if not np.isin(member, (0, 1)).all():
        raise InputError("coins: a coin is True or False, 1 or 0")
    member = member.astype(bool)
    if member.all() or not member.any():
        raise InputError("coins: members and non-members are both needed")
    return table, member
