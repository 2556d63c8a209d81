"""The searches: least noise for an epsilon, and most steps within one."""

import math
from collections.abc import Callable

import scipy

from rpjax.errors import InputError
from rpjax.privacy.truncation import OverflowTooLikely

MOST_NOISE, LEAST_NOISE = 1e6, 1e-3


def least_noise(
    epsilon_at: Callable[[float], float], target: float, delta: float
) -> float:
    """Smallest noise multiplier whose epsilon is at most `target`, to 0.01 %.

    epsilon_at: (noise multiplier) -> epsilon, falling.
    """

    def excess(log_sigma: float) -> float:
        try:
            reached = epsilon_at(math.exp(log_sigma))
        except OverflowTooLikely:
            return 1e3
        return min(1e3, math.log(max(reached, 1e-9) / target))

    low, high = _bracket(excess, target, delta)
    log_sigma = float(scipy.optimize.brentq(excess, low, high, xtol=2e-5, rtol=1e-6))
    while excess(log_sigma) > 0:
        log_sigma += 2e-5
    return math.exp(log_sigma)


def most_steps(epsilon_at: Callable[[int], float], target: float, most: int) -> int:
    """Largest number of steps from 0 to `most` whose epsilon is at most `target`.

    epsilon_at: (steps) -> epsilon, rising.
    """

    def fits(steps: int) -> bool:
        try:
            return epsilon_at(steps) <= target
        except OverflowTooLikely:
            return False

    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _bracket(
    excess: Callable[[float], float], target: float, delta: float
) -> tuple[float, float]:
    """Logarithms of two noise multipliers: too small, and large enough."""
    high = 0.0
    while excess(high) > 0:
        high += math.log(2)
        if high > math.log(MOST_NOISE):
            raise InputError(
                f"epsilon = {target:g}: no noise reaches it at delta = {delta:g}; "
                "allow a larger epsilon or delta, fewer steps, or a larger capacity"
            )
    low = high - math.log(2)
    while excess(low) <= 0:
        low -= math.log(2)
        if low < math.log(LEAST_NOISE):
            raise InputError(
                f"epsilon = {target:g}: so large that no noise worth the name is needed"
            )
    return low, min(high, low + math.log(2))
