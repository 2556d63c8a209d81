"""Gaussian differential privacy: mu, its (epsilon, delta) curve and what it lets pass.

A procedure is mu-GDP when telling its outputs on two neighbouring data sets apart is at
least as hard as telling N(0, 1) from N(mu, 1). Source: Dong, Roth, Su, "Gaussian
Differential Privacy", arXiv 1905.02383.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks

Floats = np.float64 | npt.NDArray[np.float64]


def delta(epsilon: npt.ArrayLike, mu: npt.ArrayLike) -> Floats:
    """Smallest delta at which mu-GDP implies (epsilon, delta)-DP.

    delta = Phi(-epsilon/mu + mu/2) - exp(epsilon) Phi(-epsilon/mu - mu/2), Corollary
    2.13 of the source. Exact to rounding for epsilons of any size; see `log_delta`.

    Args:
        epsilon: zero or more, one value or an array of them.
        mu: zero or more, of a shape that broadcasts with it.

    >>> f"{delta(1.0, 0.5):.6f}"
    '0.006830'
    """
    return np.exp(log_delta(epsilon, mu))


def log_delta(epsilon: npt.ArrayLike, mu: npt.ArrayLike) -> Floats:
    """Natural logarithm of `delta`, -inf at mu = 0.

    With a = epsilon/mu - mu/2, b = epsilon/mu + mu/2, and r = Phi(-.)/phi the ratio of
    Mills, exp(epsilon) phi(b) = phi(a) turns the second term into phi(a) r(b), so that
    delta = Phi(-a) (1 - r(b) / r(a)): no exponential of epsilon is formed.
    """
    at, mus = _checked("epsilon", epsilon), _checked("mu", mu)
    safe = np.where(mus > 0, mus, 1.0)
    a, b = at / safe - safe / 2, at / safe + safe / 2
    first = scipy.special.log_ndtr(-a)
    share = _mills(b) / _mills(a)
    # the share is below 1, and rounding may not say otherwise
    log_delta = first + np.log1p(-np.minimum(share, 1 - 1e-16))
    return np.where(mus > 0, log_delta, -np.inf)[()]


def epsilon(delta: float, mu: float) -> float:
    """Smallest epsilon at which mu-GDP implies (epsilon, delta)-DP.

    >>> f"{epsilon(1e-5, 1.0):.6f}"
    '4.377178'
    """
    checks.fraction("delta", delta)
    checks.not_negative("mu", mu)
    target = math.log(delta)
    if log_delta(0.0, mu) <= target:
        return 0.0
    # dropping the subtracted term of `delta` gives a bound from above in closed form
    high = mu * (mu / 2 - float(scipy.special.ndtri(delta))) * (1 + 1e-9)
    return float(
        scipy.optimize.brentq(
            lambda e: float(log_delta(e, mu)) - target, 0.0, high, xtol=1e-14 * high
        )
    )


def mu_from(epsilon: float, delta: float) -> float:
    """Largest mu for which mu-GDP implies (epsilon, delta)-DP.

    >>> f"{mu_from(10.0, 1e-5):.6f}"
    '2.000446'
    """
    checks.not_negative("epsilon", epsilon)
    checks.fraction("delta", delta)
    # where epsilon = mu^2/2 + z mu, delta is already below its target
    z = -float(scipy.special.ndtri(delta))
    low = max(math.sqrt(z * z + 2 * epsilon) - z, 0.0)
    high = 2 * max(low, delta)
    while log_delta(epsilon, high) < math.log(delta):
        low, high = high, 2 * high
    return float(
        scipy.optimize.brentq(
            lambda mu: float(log_delta(epsilon, mu)) - math.log(delta),
            max(low, 1e-3 * high),
            high,
            xtol=1e-14 * high,
        )
    )


def compose(mus: Sequence[float]) -> float:
    """Mu of several releases together: the root of the sum of squares.

    Each release may be chosen in the light of the earlier ones. Source: Corollary 3.3
    of the source above.

    >>> compose([3.0, 4.0])
    5.0
    """
    for mu in mus:
        checks.not_negative("mu", mu)
    return math.hypot(*mus)


def tpr(fpr: npt.ArrayLike, mu: float) -> Floats:
    """Largest true-positive rate of any test at these false-positive rates.

    TPR = Phi(Phi^-1(FPR) + mu): the ROC curve that no attack on a mu-GDP procedure can
    rise above.

    >>> f"{tpr(0.01, 1.0):.6f}"
    '0.092362'
    """
    checks.not_negative("mu", mu)
    rates = np.asarray(fpr, dtype=np.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise InputError("fpr: every rate must lie in [0, 1]")
    found: Floats = scipy.special.ndtr(scipy.special.ndtri(rates) + mu)
    return found


def auc(mu: float) -> float:
    """Area under `tpr`, Phi(mu / sqrt 2): no attack's AUC can be expected above it."""
    checks.not_negative("mu", mu)
    return float(scipy.special.ndtr(mu / math.sqrt(2)))


def advantage(mu: float) -> float:
    """Largest TPR - FPR, 2 Phi(mu/2) - 1; equals `delta` at epsilon 0."""
    checks.not_negative("mu", mu)
    return float(scipy.special.erf(mu / math.sqrt(8)))


def _mills(x: Floats) -> Floats:
    """Phi(-x) / phi(x), without underflow for large x; infinite below -37."""
    ratio: Floats = math.sqrt(math.pi / 2) * scipy.special.erfcx(x / math.sqrt(2))
    return ratio


def _checked(field: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    wrong = ~((array >= 0) & np.isfinite(array))
    if wrong.any():
        checks.not_negative(field, float(array[wrong].flat[0]))
    return array
