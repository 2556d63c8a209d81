"""A credible interval for epsilon from attack counts: not a bound.

With Jeffreys priors the two error rates of an attack have independent Beta posteriors.
The interval says where epsilon lies under that prior, if the attack's rates are all
there is to know; it promises no error rate. Source: Zanella-Béguelin et al., "Bayesian
Estimation of Differential Privacy", arXiv 2206.05199.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.audits.rates import check_count
from rpjax.privacy import checks

MIDPOINTS = 2001  # twenty times as many change the ends by less than 1e-4


class Rate(NamedTuple):
    """Posterior of an error rate, Beta(a, b), with its quantiles at the midpoints."""

    a: float
    b: float
    quantiles: npt.NDArray[np.float64]


def credible_interval(
    false_negatives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Equal-tailed credible interval for epsilon at `delta`; 0 where mass lies there.

    The posterior mass of the pairs (FNR, FPR) that (epsilon, delta)-DP allows grows
    with epsilon; the ends are where it passes half the error and one minus that.
    Section 4 of the source, with the integral done by quadrature.

    Args:
        false_negatives: members guessed "out".
        positives: members.
        false_positives: non-members guessed "in".
        negatives: non-members.
        delta: in [0, 1).
        confidence: posterior mass of the interval.

    >>> low, high = credible_interval(0, 100, 0, 100, delta=1e-5, confidence=0.9)
    >>> f"{low:.3f} {high:.3f}"
    '4.896 12.196'
    """
    checks.probability("delta", delta)
    checks.fraction("confidence", confidence)
    check_count("false_negatives", false_negatives, positives)
    check_count("false_positives", false_positives, negatives)
    true_positives = positives - false_negatives
    true_negatives = negatives - false_positives
    missed = _posterior(false_negatives, true_positives)
    wrong = _posterior(false_positives, true_negatives)
    found = _posterior(true_positives, false_negatives)
    kept = _posterior(true_negatives, false_positives)
    tail = (1 - confidence) / 2

    def excess(epsilon: float, level: float) -> float:
        refuted = _corner(missed, wrong, epsilon, delta)
        refuted += _corner(found, kept, epsilon, delta)
        return 1 - refuted - level

    ends = []
    for level in (tail, 1 - tail):
        high = 1.0
        while excess(high, level) < 0:
            high *= 2
        if excess(0.0, level) < 0:
            ends.append(scipy.optimize.brentq(excess, 0, high, level, xtol=1e-6))
        else:
            ends.append(0.0)
    return float(ends[0]), float(ends[1])


def _posterior(count: int, rest: int) -> Rate:
    a, b = count + 0.5, rest + 0.5
    middle = (np.arange(MIDPOINTS) + 0.5) / MIDPOINTS
    return Rate(a, b, scipy.special.betaincinv(a, b, middle))


def _corner(first: Rate, second: Rate, epsilon: float, delta: float) -> float:
    """Mass of the pairs that are too close to (0, 0) for (epsilon, delta)-DP.

    A pair (x, y) is where y < e^-epsilon (1 - delta - x) or the same with x and y
    changed. The first contains the second where y < x, and the other way round: two
    integrals, each along the larger rate, whose integrands have no cliff.
    """
    mass = 0.0
    for along, across in ((first, second), (second, first)):
        x = along.quantiles
        edge = math.exp(-epsilon) * np.maximum(1 - delta - x, 0)
        below = scipy.special.betainc(across.a, across.b, np.minimum(x, edge))
        mass += float(below.mean())
    return mass
