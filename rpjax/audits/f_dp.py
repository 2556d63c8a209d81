"""One run against a whole trade-off curve: mu that is refuted, epsilon estimated.

The same guesses as in `rpjax.audits.one_run`, tested against the claim that the
procedure is mu-GDP. Source: Mahloujifar, Melis, Chaudhuri, "Auditing f-Differential
Privacy in One Run", arXiv 2410.22235, the audit for f = G_mu.

A refuted mu is refuted for every procedure, under the conditions listed in
`rpjax.audits.one_run`. An epsilon computed from it is a bound only if the procedure's
true trade-off curve is Gaussian; otherwise it is an estimate, and it may lie above the
true epsilon.
"""

import math

import scipy

from rpjax.audits.one_run import check_counts
from rpjax.privacy import checks, gdp


def p_value(canaries: int, guesses: int, correct: int, mu: float) -> float:
    """Smallest significance at which the guesses refute that the procedure is mu-GDP.

    Args:
        canaries: m, all coins, of all pooled runs.
        guesses: how many of them were guessed.
        correct: how many of these guesses are right.
        mu: the claim, zero or more.

    >>> f"{p_value(1000, 100, 95, 0.5):.4f}"
    '0.0005'
    """
    check_counts(canaries, guesses, correct)
    checks.not_negative("mu", mu)
    excess = lambda log_p: _excess(canaries, guesses, correct, math.exp(log_p), mu)
    lowest = -690.0  # e^-690 is close to the smallest float
    if excess(lowest) > 0:
        return math.exp(lowest)
    if excess(0.0) <= 0:
        return 1.0
    return math.exp(scipy.optimize.brentq(excess, lowest, 0.0, xtol=1e-10))


def mu_lower_bound(
    canaries: int, guesses: int, correct: int, confidence: float = 0.95
) -> float:
    """Largest mu that the guesses refute: a bound for claims of mu-GDP.

    With the stated confidence the procedure is not mu-GDP for any mu below it; 0 where
    nothing is refuted.

    >>> f"{mu_lower_bound(1000, 100, 95):.6f}"
    '0.786812'
    """
    check_counts(canaries, guesses, correct)
    checks.fraction("confidence", confidence)
    excess = lambda mu: _excess(canaries, guesses, correct, 1 - confidence, mu)
    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while excess(high) > 0:
        low, high = high, 2 * high
    return float(scipy.optimize.brentq(excess, low, high, xtol=1e-12))


def epsilon_estimate(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95
) -> float:
    """Epsilon at `delta` of the refuted mu: an estimate, a bound for Gaussian curves.

    >>> f"{epsilon_estimate(1000, 100, 95, 1e-5):.6f}"
    '3.323300'
    """
    return gdp.epsilon(delta, mu_lower_bound(canaries, guesses, correct, confidence))


def _excess(
    canaries: int, guesses: int, correct: int, significance: float, mu: float
) -> float:
    """How far the recursion ends above the guessed share; positive: mu is refuted.

    `right` and `wrong` bound the shares of coins guessed right and wrong on the event
    of at least i right guesses, for i from `correct` down; 1 - G_mu bounds one by the
    other at each step.
    """
    right = significance * correct / canaries
    wrong = significance * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        least = _blow_up_inverse(right, mu)
        if least <= wrong:  # nothing changes from here on
            break
        right = min(right + i / (guesses - i) * (least - wrong), 1.0)
        wrong = least
    return right + wrong - guesses / canaries


def _blow_up_inverse(share: float, mu: float) -> float:
    """Phi(Phi^-1(share) - mu)."""
    # far faster than array functions on one number, and there are many
    return math.erfc((mu - float(scipy.special.ndtri(share))) / math.sqrt(2)) / 2
