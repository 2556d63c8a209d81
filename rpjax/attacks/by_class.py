"""An attack's scores class by class: which classes are found out more than others.

One attack for all classes, chosen by what it does on all of them. Each class has its
own AUC, within the class: whether records of other classes score higher or lower does
not matter to it. With many classes one of them is always the most exposed, so that all
intervals are widened to hold together (Bonferroni), and the test of whether that class
stands out counts the choice.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int

from rpjax import intervals, resampling
from rpjax.errors import InputError

Scores = Float[np.ndarray, "models records"]
CoinTable = Bool[np.ndarray, "models records"]
Labels = Int[np.ndarray, " records"]

# with fewer of either, not even a perfect separation is told from a guess at 95 %
LEAST = 6
# resampling so few records does not tell how much they differ
LEAST_RESAMPLED = 8
RATES = (0.001, 0.01, 0.1, 0.2)
FEW_FALSE_POSITIVES = 10
PERMUTATIONS = 999
# replicates beyond either end of a resampled interval
BEYOND = 10


def by_class(
    scores: npt.ArrayLike,
    coins: npt.ArrayLike,
    labels: npt.ArrayLike,
    classes: int,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """AUC and members found of each class, and whether one class stands out.

    A rate of members found is at the lowest of `RATES` at which the class's own
    non-members allow ten false positives. What a class has too few records for is None,
    and a sentence says why. Intervals hold together, for all classes, with the given
    confidence: those of the areas, and those of the rates for themselves. For one model
    they are of `rpjax.intervals`, for several of `rpjax.resampling`.

    Args:
        scores: of one attack, large = member, (models, records).
        coins: whether a record was in a model's training set, (models, records).
        labels: (records,), each in 0 .. classes - 1.
        classes: how many there are, some perhaps without a record.
        confidence: with which all intervals hold.
        seed: of resampling and of permutations.

    Returns:
        Plain JSON values; `rpjax.report.results.BY_CLASS` names them.

    Raises:
        InputError: wrong shapes, scores that are not numbers, labels out of range.
    """
    table, inside, own = _checked(scores, coins, labels, classes)
    if not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence!r}: must lie strictly in (0, 1)")
    counts = [_counts(inside[:, own == label]) for label in range(classes)]
    reasons = [_too_few(each, len(table)) for each in counts]
    enough = [label for label, reason in enumerate(reasons) if reason is None]
    each = 1 - (1 - confidence) / max(1, len(enough))
    found = [
        _class(
            label, table[:, own == label], inside[:, own == label], reason, each, seed
        )
        for label, reason in enumerate(reasons)
    ]
    return {
        "confidence": confidence,
        "confidence_each": each,
        "intervals": len(enough),
        "correction": "Bonferroni over the classes with an interval",
        "classes": found,
        "most_exposed": most_exposed_class(table, inside, own, enough, seed=seed),
    }


def most_exposed_class(
    scores: Scores,
    coins: CoinTable,
    labels: Labels,
    classes: list[int],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The class whose AUC is furthest above the others', and whether that is chance.

    A class's gap is its AUC less the mean of the others', which weigh as members times
    non-members over their sum. Labels are exchanged among records that are in equally
    many models (among members, and among non-members, of a single model), which keeps
    every class as large as it is. The class is the one with the largest gap in units of
    the standard deviation that its gap then has, and the p-value is the share of
    exchanges in which the largest of all classes is at least that: corrected for the
    choice among classes, as in Westfall and Young, Resampling-Based Multiple Testing,
    1993. It is exact where scores of members and of non-members have one law in all
    classes.

    classes: those that take part; None for fewer than two.
    """
    if len(classes) < 2:
        return None
    kept = np.isin(labels, classes)
    cells = _cells(scores[:, kept], coins[:, kept])
    named = np.searchsorted(classes, labels[kept])
    models = coins[:, kept].sum(0)
    strata = [np.flatnonzero(models == count) for count in np.unique(models)]
    rng = np.random.default_rng(seed)
    areas = np.empty((1 + permutations, len(classes)))
    for row in range(len(areas)):
        own = named if row == 0 else _exchanged(rng, named, strata)
        areas[row] = _areas(cells, own, len(classes))
    # members and non-members of a class are the same in every exchange
    inside = np.array([coins[:, labels == label].sum() for label in classes])
    size = np.array([coins[:, labels == label].size for label in classes])
    weight = inside * (size - inside) / size
    others = (areas @ weight)[:, None] - areas * weight
    rest = others / (weight.sum() - weight)
    gaps = areas - rest
    spread = gaps.std(0)
    far = (gaps - gaps.mean(0)) / np.where(spread > 0, spread, 1)
    worst = int(far[0].argmax())
    # equal gaps may differ in their last bits
    as_far = far.max(1) >= far[0, worst] - 1e-9
    return {
        "label": classes[worst],
        "auc": float(areas[0, worst]),
        "others": float(rest[0, worst]),
        "gap": float(gaps[0, worst]),
        "p_value": float(as_far.mean()),
        "permutations": permutations,
        "method": "labels exchanged among records, largest standardised gap",
    }


def _checked(
    scores: npt.ArrayLike, coins: npt.ArrayLike, labels: npt.ArrayLike, classes: int
) -> tuple[Scores, CoinTable, Labels]:
    table, inside = resampling.checked(scores, coins)
    own = np.asarray(labels)
    if own.shape != table.shape[1:]:
        raise InputError(
            f"labels: shape {own.shape}; it is ({table.shape[1]},), one for each record"
        )
    if not (own.min() >= 0 and own.max() < classes):
        raise InputError(f"labels: from {own.min()} to {own.max()}; 0..{classes - 1}")
    return table, inside, own.astype(np.int64)


class _Count(NamedTuple):
    """Records of a class; (model, record) cells where they are in, and where not."""

    records: int
    members: int
    non_members: int


def _counts(coins: CoinTable) -> _Count:
    members = int(coins.sum())
    return _Count(coins.shape[1], members, coins.size - members)


def _too_few(count: _Count, models: int) -> str | None:
    """Why a class has no interval, or None where it has one."""
    if count.records == 0:
        return "no record of this class"
    if models > 1 and count.records < LEAST_RESAMPLED:
        return f"{_said(count.records, 'record')}; {LEAST_RESAMPLED} are needed"
    for size, name in ((count.members, "member"), (count.non_members, "non-member")):
        if size < LEAST:
            return f"{_said(size, name)}; {LEAST} are needed"
    return None


def _said(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _class(
    label: int,
    scores: Scores,
    coins: CoinTable,
    reason: str | None,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    count = _counts(coins)
    facts = {"label": label, **count._asdict()}
    if reason is not None:
        return {**facts, "auc": None, "tpr_at": None, "missing": [reason]}
    rate = next(
        (r for r in RATES if r * count.non_members >= FEW_FALSE_POSITIVES), None
    )
    area, point = _figures(scores, coins, rate, confidence, seed)
    missing = []
    if point is None:
        missing.append(
            f"{_said(count.non_members, 'non-member')}: fewer than "
            f"{FEW_FALSE_POSITIVES} false positives even at {100 * RATES[-1]:g} % FPR"
        )
    return {**facts, "auc": area.as_dict(), "tpr_at": point, "missing": missing}


def _figures(
    scores: Scores, coins: CoinTable, rate: float | None, confidence: float, seed: int
) -> tuple[intervals.Estimate, dict[str, Any] | None]:
    """The AUC, and the operating point at a rate, if there is one."""
    members, others = scores[coins], scores[~coins]
    point = None
    if rate is not None:
        point = intervals.tpr_at_fpr(members, others, rate, confidence).as_dict()
    if len(scores) == 1:
        return intervals.auc(members, others, confidence), point
    replicates = math.ceil(2 * BEYOND / (1 - confidence))
    area, rates = resampling.auc_and_rates(
        scores,
        coins,
        [] if rate is None else [rate],
        confidence,
        replicates=replicates,
        seed=seed,
    )
    # of so many cells no two share a model or a record
    apart = min(scores.shape) // 2
    if area.low == area.high:
        area = intervals.on_disjoint_pairs(area.value, apart, area.n, confidence)
    for found in rates:
        low, high = found.low, found.high
        if low == high:
            exact = intervals.clopper_pearson(round(low * apart), apart, confidence)
            low, high = exact.low, exact.high
        assert point is not None
        point |= {"low": low, "high": high}
    return area, point


# ------------------------------------------------------------------------ exchanges


class _Cells(NamedTuple):
    """Cells of a table in rising order of their scores.

    record, member: of each; tie: how many smaller scores there are among all.
    """

    record: npt.NDArray[np.int64]
    member: npt.NDArray[np.bool_]
    tie: npt.NDArray[np.int64]


def _cells(scores: Scores, coins: CoinTable) -> _Cells:
    order = np.argsort(scores, axis=None)
    rising = scores.ravel()[order]
    tie = np.cumsum(np.append(False, rising[1:] != rising[:-1]))
    return _Cells(order % scores.shape[1], coins.ravel()[order], tie)


def _exchanged(
    rng: np.random.Generator, labels: Labels, strata: list[npt.NDArray[np.int64]]
) -> Labels:
    """Labels in another order, each within its stratum of records."""
    moved = labels.copy()
    for where in strata:
        moved[where] = labels[rng.permutation(where)]
    return moved


def _areas(cells: _Cells, labels: Labels, classes: int) -> npt.NDArray[np.float64]:
    """AUC within each class; each has members and non-members."""
    # 16 bits are sorted by counting, in one pass
    label = labels.astype(np.uint16)[cells.record]
    order = np.argsort(label, kind="stable")
    label, tie, member = label[order], cells.tie[order], cells.member[order]
    turn = (label[1:] != label[:-1]) | (tie[1:] != tie[:-1])
    start = np.flatnonzero(np.append(True, turn))
    right = np.add.reduceat(member, start, dtype=np.int64)
    wrong = np.add.reduceat(~member, start, dtype=np.int64)
    group = label[start]
    found, beaten = (np.bincount(group, each, classes) for each in (right, wrong))
    before = np.concatenate([[0], np.cumsum(beaten)[:-1]])
    below = np.cumsum(wrong) - wrong - before[group]
    pairs = np.bincount(group, right * (below + wrong / 2), classes)
    return np.asarray(pairs / (found * beaten))
