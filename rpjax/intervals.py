"""Estimates that travel with their uncertainty.

Every number here comes from counts or scores and leaves with an interval, the number of
records behind it and the name of the method. The randomness that the intervals cover is
that of the records drawn; the trained model, and so the threshold or the predictions it
gives, is taken as fixed. Several models attacked together need a resampling of models
as well (`rpjax.resampling`).
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError

Count = int | np.integer
Scores = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with the interval in which the truth lies at the given confidence.

    Attributes:
        value: the point estimate, a fraction (not percent).
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of records behind it, both groups together where there are two.
        confidence: nominal two-sided confidence of the interval.
        method: name of the interval's method.
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95
    method: str = "Clopper-Pearson"

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        value, low, high = (100 * x for x in (self.value, self.low, self.high))
        return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """One threshold of an attack: how many members it finds at a false-positive rate.

    Attributes:
        target_fpr: the false-positive rate asked for.
        realised_fpr: the one reached, never above the target.
        tpr: share of the members found at that threshold.
        low: lower end of the Clopper-Pearson interval of `tpr`.
        high: upper end of it.
        true_positives: members at or above the threshold.
        false_positives: non-members at or above the threshold.
        below_resolution: fewer than ten false positives are allowed at the target, so
            the realised rate is itself uncertain by a third or more.
    """

    target_fpr: float
    realised_fpr: float
    tpr: float
    low: float
    high: float
    true_positives: int
    false_positives: int
    below_resolution: bool

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)


# ------------------------------------------------------------------------ proportions


def clopper_pearson(
    successes: Count, trials: Count, confidence: float = 0.95
) -> Estimate:
    """Share of successes with its exact binomial interval.

    The interval contains the true share with at least the stated probability, for every
    share and every number of trials. Source: Clopper and Pearson, Biometrika 26, 1934.

    Raises:
        InputError: no trials, or more successes than trials.

    >>> print(clopper_pearson(352, 360))
    97.8 % [95.7, 99.0]
    """
    _check_counts(successes, trials, "successes", "trials")
    _check_confidence(confidence)
    low, high = _beta_interval(float(successes), float(trials), confidence)
    return Estimate(
        float(successes / trials), low, high, int(trials), confidence, "Clopper-Pearson"
    )


def difference_of_proportions(
    first_successes: Count,
    first_trials: Count,
    second_successes: Count,
    second_trials: Count,
    confidence: float = 0.95,
) -> Estimate:
    """First share minus second share, for two independent binomial counts.

    The generalization gap is the training accuracy first and the test accuracy second.
    The interval joins the two Wilson score intervals: Newcombe, Statistics in Medicine
    17, 1998, method 10. It stays inside [-1, 1] and keeps a width when a share is 0 or
    1, which a Wald interval does not.

    Raises:
        InputError: an empty group, or more successes than trials in one.

    >>> print(difference_of_proportions(718, 718, 352, 360))
    2.2 % [1.0, 4.3]
    """
    _check_counts(first_successes, first_trials, "first_successes", "first_trials")
    _check_counts(second_successes, second_trials, "second_successes", "second_trials")
    _check_confidence(confidence)
    low_1, high_1 = _wilson(first_successes, first_trials, confidence)
    low_2, high_2 = _wilson(second_successes, second_trials, confidence)
    share_1, share_2 = first_successes / first_trials, second_successes / second_trials
    value = float(share_1 - share_2)
    return Estimate(
        value,
        value - math.hypot(share_1 - low_1, high_2 - share_2),
        value + math.hypot(high_1 - share_1, share_2 - low_2),
        int(first_trials + second_trials),
        confidence,
        "Newcombe hybrid score",
    )


def balanced_accuracy(
    true_positives: Count,
    positives: Count,
    true_negatives: Count,
    negatives: Count,
    confidence: float = 0.95,
) -> Estimate:
    """Mean of the shares of members and of non-members that were guessed right.

    It equals (1 + TPR - FPR) / 2, so its interval is that of the difference of two
    proportions, moved and halved.

    >>> balanced_accuracy(60, 100, 50, 100).value
    0.55
    """
    _check_counts(true_negatives, negatives, "true_negatives", "negatives")
    false_positives = negatives - true_negatives
    gap = difference_of_proportions(
        true_positives, positives, false_positives, negatives, confidence
    )
    value, low, high = ((1 + x) / 2 for x in (gap.value, gap.low, gap.high))
    return Estimate(value, low, high, gap.n, confidence, gap.method)


def precision(
    true_positives: Count,
    members: Count,
    false_positives: Count,
    nonmembers: Count,
    prior: float,
    confidence: float = 0.95,
) -> Estimate | None:
    """Share of true members among those said to be, where a share `prior` are members.

    ``prior TPR / (prior TPR + (1 - prior) FPR)``, the positive predictive value. The
    interval joins the Clopper-Pearson intervals of the two rates, each of half the
    error. None where nobody is said to be a member.

    >>> print(precision(20, 100, 2, 1000, prior=0.01))
    50.3 % [12.8, 94.9]
    """
    _check_counts(true_positives, members, "true_positives", "members")
    _check_counts(false_positives, nonmembers, "false_positives", "nonmembers")
    if not 0 < prior < 1:
        raise InputError(f"prior = {prior!r}: must lie strictly in (0, 1)")
    if true_positives + false_positives == 0:
        return None
    each = (1 + confidence) / 2
    right = clopper_pearson(true_positives, members, each)
    wrong = clopper_pearson(false_positives, nonmembers, each)

    def share(tpr: float, fpr: float) -> float:
        return float(prior * tpr / (prior * tpr + (1 - prior) * fpr))

    return Estimate(
        share(right.value, wrong.value),
        share(right.low, wrong.high),
        share(right.high, wrong.low),
        int(members + nonmembers),
        confidence,
        "Clopper-Pearson of both rates",
    )


def _beta_interval(
    successes: float, trials: float, confidence: float
) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    failures = trials - successes
    beta = scipy.stats.beta
    low = beta.ppf(tail, successes, failures + 1) if successes > 0 else 0.0
    high = beta.isf(tail, successes + 1, failures) if failures > 0 else 1.0
    return float(low), float(high)


def _wilson(successes: Count, trials: Count, confidence: float) -> tuple[float, float]:
    z = float(scipy.special.ndtri((1 + confidence) / 2))
    share, weight = float(successes / trials), z * z / float(trials)
    centre = (share + weight / 2) / (1 + weight)
    spread = math.sqrt(share * (1 - share) * weight + weight * weight / 4)
    half = spread / (1 + weight)
    # rounding must not push the interval past the estimate at a share of 0 or 1
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


# ------------------------------------------------------------------------- ROC curves


def auc(
    member_scores: npt.ArrayLike,
    nonmember_scores: npt.ArrayLike,
    confidence: float = 0.95,
) -> Estimate:
    """Probability that a member scores above a non-member, ties counting one half.

    Interval: DeLong's variance on the logit scale (DeLong, DeLong and Clarke-Pearson,
    Biometrics 44, 1988; rank form of Sun and Xu, IEEE SPL 21, 2014). Near 0 and 1 that
    variance rests on a handful of records and vanishes at a perfect separation. So when
    `min(members, non-members) * min(AUC, 1 - AUC) < 5`, or the variance is zero, the
    interval is the one of Clopper and Pearson for `min(members, non-members)` disjoint
    pairs: exact at an AUC of 0 or 1, because a perfect separation makes every one of
    those independent pairs concordant, and wider than needed in between.

    Args:
        member_scores: one score for each member; larger means "member".
        nonmember_scores: one score for each non-member.
        confidence: two-sided confidence of the interval.

    Raises:
        InputError: an empty group or a score that is not a number.

    >>> import numpy as np
    >>> print(auc(np.arange(9.5, 109), np.arange(100)))
    59.1 % [51.0, 66.6]
    >>> print(auc([2.0, 3.0, 4.0], [0.0, 1.0]))
    100.0 % [15.8, 100.0]
    """
    members, nonmembers = _groups(member_scores, nonmember_scores)
    _check_confidence(confidence)
    value, variance = _delong(members, nonmembers)
    pairs, n = min(members.size, nonmembers.size), members.size + nonmembers.size
    if variance > 0 and pairs * min(value, 1 - value) >= 5:
        low, high = _logit_interval(value, math.sqrt(variance), confidence)
        return Estimate(value, low, high, n, confidence, "DeLong (logit)")
    return on_disjoint_pairs(value, pairs, n, confidence)


def on_disjoint_pairs(
    value: float, pairs: int, n: int, confidence: float = 0.95
) -> Estimate:
    """An AUC with the interval that so many independent pairs of records give.

    Exact at an AUC of 0 or 1, wider than needed in between; see `auc`.

    Raises:
        InputError: no pair.
    """
    if pairs < 1:
        raise InputError(f"pairs = {pairs}: must be at least 1")
    _check_confidence(confidence)
    low, high = _beta_interval(value * pairs, pairs, confidence)
    method = "Clopper-Pearson on disjoint pairs"
    return Estimate(value, low, high, n, confidence, method)


def roc(
    member_scores: npt.ArrayLike, nonmember_scores: npt.ArrayLike
) -> tuple[Scores, Scores]:
    """Corners of the ROC curve, from (0, 0) to (1, 1).

    Equal scores make one step (a slanted one where members and non-members are tied);
    points on a straight line between two others are left out.

    Returns:
        False-positive rates and true-positive rates, float64[corners] each.

    Raises:
        InputError: an empty group or a score that is not a number.
    """
    members, nonmembers = _groups(member_scores, nonmember_scores)
    found, wrong = _counts_above(members, nonmembers)
    rise, run = np.diff(found), np.diff(wrong)
    turns = rise[1:] * run[:-1] != rise[:-1] * run[1:]
    corner = np.concatenate([[True], turns, [True]])
    return wrong[corner] / nonmembers.size, found[corner] / members.size


def tpr_at_fpr(
    member_scores: npt.ArrayLike,
    nonmember_scores: npt.ArrayLike,
    fpr: float,
    confidence: float = 0.95,
) -> OperatingPoint:
    """Share of members found at the largest false-positive rate not above `fpr`.

    Tied scores fall together, so the rate asked for may be out of reach; the one that
    was realised is part of the answer. The interval is Clopper and Pearson's for the
    members at the chosen threshold.

    Raises:
        InputError: `fpr` outside [0, 1], an empty group, a score that is not a number.

    >>> import numpy as np
    >>> point = tpr_at_fpr(np.arange(9.5, 109), np.arange(100), 0.01)
    >>> point.tpr, point.false_positives, point.below_resolution
    (0.11, 1, True)
    """
    members, nonmembers = _groups(member_scores, nonmember_scores)
    if not 0 <= fpr <= 1:
        raise InputError(f"fpr = {fpr!r}: must lie in [0, 1]")
    found, wrong = _counts_above(members, nonmembers)
    # 0.07 * 100 is a little more than 7: the last bit must not cost a false positive
    allowed = fpr * nonmembers.size * (1 + 1e-12)
    at = int(np.searchsorted(wrong, allowed, side="right")) - 1
    rate = clopper_pearson(found[at], members.size, confidence)
    return OperatingPoint(
        target_fpr=float(fpr),
        realised_fpr=float(wrong[at] / nonmembers.size),
        tpr=rate.value,
        low=rate.low,
        high=rate.high,
        true_positives=int(found[at]),
        false_positives=int(wrong[at]),
        below_resolution=bool(allowed < 10),
    )


def _counts_above(
    members: Scores, nonmembers: Scores
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Members and non-members at or above each distinct score, from none to all."""
    levels = np.unique(np.concatenate([members, nonmembers]))[::-1]
    below_m = np.searchsorted(np.sort(members), levels, side="left")
    below_n = np.searchsorted(np.sort(nonmembers), levels, side="left")
    found = np.concatenate([[0], members.size - below_m])
    wrong = np.concatenate([[0], nonmembers.size - below_n])
    return found.astype(np.int64), wrong.astype(np.int64)


def _delong(members: Scores, nonmembers: Scores) -> tuple[float, float]:
    """AUC and DeLong's variance of it; the variance is 0 where it cannot be had."""
    m, n = members.size, nonmembers.size
    ranks = scipy.stats.rankdata(np.concatenate([members, nonmembers]))
    # a record's placement: the share of the other group that it beats, ties one half
    member_places = (ranks[:m] - scipy.stats.rankdata(members)) / n
    nonmember_places = 1 - (ranks[m:] - scipy.stats.rankdata(nonmembers)) / m
    value = (ranks[:m].sum() - m * (m + 1) / 2) / (m * n)
    if min(m, n) < 2:
        return float(value), 0.0
    variance = member_places.var(ddof=1) / m + nonmember_places.var(ddof=1) / n
    return float(value), float(variance)


def _logit_interval(
    value: float, error: float, confidence: float
) -> tuple[float, float]:
    z = float(scipy.special.ndtri((1 + confidence) / 2))
    centre, half = scipy.special.logit(value), z * error / (value * (1 - value))
    low, high = scipy.special.expit(np.array([centre - half, centre + half]))
    return float(low), float(high)


# --------------------------------------------------------------------------- checking


def _groups(
    member_scores: npt.ArrayLike, nonmember_scores: npt.ArrayLike
) -> tuple[Scores, Scores]:
    return (
        _checked_scores(member_scores, "member_scores"),
        _checked_scores(nonmember_scores, "nonmember_scores"),
    )


def _checked_scores(scores: npt.ArrayLike, field: str) -> Scores:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"{field}: shape {array.shape}; one score for each record")
    if array.size == 0:
        raise InputError(f"{field}: empty; at least one score is needed")
    if np.isnan(array).any():
        missing = int(np.isnan(array).sum())
        raise InputError(f"{field}: {missing} of {array.size} scores are not numbers")
    return array


def _check_counts(successes: Count, trials: Count, field: str, total: str) -> None:
    if trials < 1:
        raise InputError(f"{total} = {trials}: must be at least 1")
    if not 0 <= successes <= trials:
        raise InputError(f"{field} = {successes}: must lie in 0..{trials}")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence!r}: must lie strictly in (0, 1)")
