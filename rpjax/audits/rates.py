"""Bounds from false-negative and false-positive counts of independent trials.

The classical audit: many models, one canary that is in some of them, one threshold.
Sources: Jagielski, Ullman, Oprea, arXiv 2006.07709 (Clopper-Pearson); Nasr et al.,
arXiv 2302.07956 (mu of Gaussian DP).

Conditions, without which these are estimates:

* the trials are independent: one canary in models of independent training randomness.
  Many canaries in one model are not, since they share it;
* the threshold is fixed on other models, or `thresholds` says how many entered.

High values need many models: at most 5.6 from 1,000 with and 1,000 without.
"""

import math

import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp


def epsilon_lower_bound(
    false_negatives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float,
    confidence: float = 0.95,
    thresholds: int = 1,
) -> float:
    """Lower bound on epsilon at `delta`, or 0; see the module for its conditions.

    ln((1 - FNR - delta) / FPR) with both rates at their upper Clopper-Pearson limits,
    each of half the error. The same two limits also hold for the other direction,
    ln((1 - FPR - delta) / FNR), so that the larger of the two is as sure.

    Args:
        false_negatives: members guessed "out".
        positives: members.
        false_positives: non-members guessed "in".
        negatives: non-members.
        delta: in [0, 1).
        confidence: that the bound is below the true epsilon.
        thresholds: how many thresholds, scores or canaries the counts were chosen from.

    >>> f"{epsilon_lower_bound(0, 1000, 0, 1000, delta=1e-5):.6f}"
    '5.600577'
    """
    checks.probability("delta", delta)
    missed, wrong = _upper_limits(
        (false_negatives, positives),
        (false_positives, negatives),
        confidence,
        thresholds,
    )
    return max(
        0.0,
        _log_ratio(1 - missed - delta, wrong),
        _log_ratio(1 - wrong - delta, missed),
    )


def mu_lower_bound(
    false_negatives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    confidence: float = 0.95,
    thresholds: int = 1,
) -> float:
    """Largest mu for which the counts refute mu-GDP: a bound for claims of mu-GDP.

    Phi^-1(1 - FPR) - Phi^-1(FNR) at the same upper limits as `epsilon_lower_bound`, 0
    where that is negative: an attack that does no better than chance refutes nothing,
    however far below it.

    >>> f"{mu_lower_bound(500, 1000, 10, 1000):.6f}"
    '2.010986'
    """
    missed, wrong = _upper_limits(
        (false_negatives, positives),
        (false_positives, negatives),
        confidence,
        thresholds,
    )
    quantile = scipy.special.ndtri
    return max(0.0, float(-quantile(wrong) - quantile(missed)))


def epsilon_estimate(
    false_negatives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float,
    confidence: float = 0.95,
    thresholds: int = 1,
) -> float:
    """Epsilon at `delta` of the refuted mu: an estimate, a bound for Gaussian curves.

    >>> f"{epsilon_estimate(500, 1000, 10, 1000, delta=1e-5):.6f}"
    '10.064962'
    """
    mu = mu_lower_bound(
        false_negatives, positives, false_positives, negatives, confidence, thresholds
    )
    return gdp.epsilon(delta, mu)


def _upper_limits(
    missed: tuple[int, int], wrong: tuple[int, int], confidence: float, thresholds: int
) -> tuple[float, float]:
    """Upper limits of both rates, which hold together with the confidence."""
    checks.fraction("confidence", confidence)
    checks.whole("thresholds", thresholds)
    check_count("false_negatives", *missed)
    check_count("false_positives", *wrong)
    error = (1 - confidence) / thresholds / 2
    return _upper_limit(*missed, error), _upper_limit(*wrong, error)


def _upper_limit(count: int, total: int, error: float) -> float:
    """Clopper and Pearson's: the rate at which so few have the chance `error`."""
    if count == total:
        return 1.0
    return float(scipy.special.betainccinv(count + 1, total - count, error))


def _log_ratio(above: float, below: float) -> float:
    return math.log(above / below) if above > 0 else 0.0


def check_count(field: str, count: int, total: int) -> None:
    """Refuse a count that is not among the records it counts in, or no records."""
    if not (total >= 1 and 0 <= count <= total):
        raise InputError(f"{field} = {count} of {total}: there are no such counts")
