"""Approximate lower limits of TPR / FPR: estimates, never bounds.

Two large-sample intervals for the ratio of two binomial shares, as other libraries
report them. Their logarithm is close to an epsilon that the counts speak for, but their
error is only roughly the stated one, most of all at small counts: use
`rpjax.audits.rates` for a bound. Sources: Katz, Baptista, Azen, Pike, Biometrics 34,
1978; Bailey, Biometrics 43, 1987; both with the corrections at 0 and at full counts of
Aho and Bowyer, Methods in Ecology and Evolution 6, 2015.
"""

import math

import scipy

from rpjax.audits.rates import check_count
from rpjax.privacy import checks


def katz_log(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    confidence: float = 0.95,
) -> float:
    """Lower limit of the ratio by a normal approximation of its logarithm.

    >>> f"{katz_log(900, 1000, 600, 1200):.6f}"
    '1.711273'
    """
    z = _quantile(true_positives, positives, false_positives, negatives, confidence)
    if true_positives == 0:
        return 0.0
    found, wrong = float(true_positives), false_positives or 0.5
    if true_positives == positives and false_positives == negatives:
        found, wrong = positives - 0.5, negatives - 0.5
    ratio = (found / positives) / (wrong / negatives)
    variance = 1 / found - 1 / positives + 1 / wrong - 1 / negatives
    return ratio * math.exp(z * math.sqrt(variance))


def bailey(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    confidence: float = 0.95,
) -> float:
    """Lower limit of the ratio by a normal approximation of its cube root.

    >>> f"{bailey(900, 1000, 600, 1200):.6f}"
    '1.711823'
    """
    z = _quantile(true_positives, positives, false_positives, negatives, confidence)
    if true_positives == 0:
        return 0.0
    found, wrong = min(true_positives, positives - 0.5), false_positives or 0.5
    wrong = min(wrong, negatives - 0.5)
    miss, keep = 1 - found / positives, 1 - wrong / negatives
    spread = miss / found + keep / wrong - z * z * miss * keep / (9 * found * wrong)
    root = (1 + z / 3 * math.sqrt(spread)) / (1 - z * z * keep / (9 * wrong))
    return (found / positives) / (wrong / negatives) * root**3


def _quantile(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    confidence: float,
) -> float:
    check_count("true_positives", true_positives, positives)
    check_count("false_positives", false_positives, negatives)
    checks.fraction("confidence", confidence)
    return float(scipy.special.ndtri(1 - confidence))
