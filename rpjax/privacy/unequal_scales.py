"""Privacy losses of normal laws whose means and standard deviations both differ.

In units of the second law's standard deviation the laws are N(shift, ratio^2) and
N(0, 1) in each coordinate. The loss log p/q is a quadratic, least at
-shift / (ratio^2 - 1), so that {loss > e} is the outside of an interval: the profile is
four normal tails, and `dp_accounting` composes it over coordinates. An independent
second way to what `rpjax.privacy.multiplicative` computes by a contour integral, and
the form that other mechanisms' losses can be added to.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtr, ndtri

from rpjax.privacy import checks, gdp

Floats = npt.NDArray[np.float64]

# of the grid: points to one standard deviation of the loss, and the mass beyond it
FINENESS, BEYOND = 40, 1e-18


def profile(log_s: npt.ArrayLike, ratio: float, shift: float = 0.0) -> Floats:
    """P(loss > log s) - s Q(loss > log s): delta at epsilon = log s, of either sign.

    P = N(shift, ratio^2), Q = N(0, 1).

    Args:
        log_s: of any shape.
        ratio: of the standard deviations, above 1.
        shift: of the means, in standard deviations of Q.

    >>> f"{profile(0.0, 2.0):.6f} {profile(1.0, 2.0, 0.5):.6f}"
    '0.322675 0.216440'
    """
    at = np.asarray(log_s, dtype=np.float64)
    low, high = _ends(at, ratio, shift)
    first = ndtr((low - shift) / ratio) + ndtr((shift - high) / ratio)
    return np.asarray(first - np.exp(at + np.logaddexp(log_ndtr(low), log_ndtr(-high))))


def profile_reversed(log_s: npt.ArrayLike, ratio: float, shift: float = 0.0) -> Floats:
    """The same with Q as the first law; its loss has a largest value.

    >>> f"{profile_reversed(0.0, 2.0):.6f} {profile_reversed(0.5, 2.0):.6f}"
    '0.322675 0.064933'
    """
    at = np.asarray(log_s, dtype=np.float64)
    low, high = _ends(np.negative(at), ratio, shift)
    first = ndtr(high) - ndtr(low)
    second = ndtr((high - shift) / ratio) - ndtr((low - shift) / ratio)
    # subtracting less where e^700 overflows is on the safe side
    return np.asarray(np.maximum(first - np.exp(np.minimum(at, 700)) * second, 0.0))


def distribution(ratio: float, shift: float = 0.0, coordinates: int = 1) -> Any:
    """Pessimistic `PrivacyLossDistribution` of so many independent coordinates.

    shift: l2 norm of the difference of the means, in standard deviations of Q; with the
        same scales in all coordinates only the norm matters.

    The grid joins the exact profile by straight lines, so that deltas are rounded up:
    Doroshenko, Ghazi, Kamath, Kumar, Manurangsi, "Connect the Dots", arXiv 2207.04380.
    Those below 1e-12 are rounding alone.
    """
    from dp_accounting.pld import privacy_loss_distribution as distributions

    checks.whole("coordinates", coordinates)
    each = shift / math.sqrt(coordinates)
    least = _least_loss(ratio, each)
    z = -float(ndtri(BEYOND))
    most = (each + ratio * z) ** 2 / 2 - z**2 / 2 - math.log(ratio)
    spread = math.hypot((ratio**2 - 1) / math.sqrt(2), ratio * each)
    grid = np.arange(
        math.floor(least * FINENESS / spread) - 1, math.ceil(most * FINENESS / spread)
    )
    interval = spread / FINENESS
    return distributions.PrivacyLossDistribution(
        _joined(profile(grid * interval, ratio, each), grid, interval),
        _joined(
            profile_reversed(-grid[::-1] * interval, ratio, each), -grid[::-1], interval
        ),
    ).self_compose(coordinates)


def _joined(deltas: Floats, grid: npt.NDArray[np.int64], interval: float) -> Any:
    from dp_accounting.pld import pld_pmf

    falling = np.clip(np.minimum.accumulate(deltas), 0.0, 1.0)
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(
        interval, int(grid[0]), int(grid[-1]), falling
    )


def _ends(loss: gdp.Floats, ratio: float, shift: float) -> tuple[Floats, Floats]:
    """The interval outside which the loss of P against Q exceeds `loss`; or a point."""
    above = np.maximum(loss - _least_loss(ratio, shift), 0.0)
    reach = np.sqrt(2 * above / (1 - ratio**-2))
    centre = -shift / (ratio**2 - 1)
    return np.asarray(centre - reach), np.asarray(centre + reach)


def _least_loss(ratio: float, shift: float) -> float:
    checks.positive("ratio - 1", ratio - 1)
    checks.not_negative("shift", shift)
    return -math.log(ratio) - shift**2 / (2 * (ratio**2 - 1))
