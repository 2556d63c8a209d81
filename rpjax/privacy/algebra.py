"""The algebra of guarantees: composition, repetition, and the noise for a target.

Curves of one kind compose within it where that is exact or loses nothing: Gaussians by
the root of the sum of squares, Renyi divergences order by order. All others become
privacy loss distributions on one grid, whose convolution is their composition. A curve
becomes one by joining its profile's values on the grid by straight lines, which never
lie below a convex function: Doroshenko, Ghazi, Kamath, Kumar, Manurangsi, "Connect the
Dots", arXiv 2207.04380. So the composition is an upper bound, and holds for mechanisms
chosen in the light of earlier outputs: Zhu, Dong, Wang, "Optimal Accounting of
Differential Privacy via Characteristic Function", arXiv 2106.08567.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp
from rpjax.privacy.curves import (
    LARGEST_EPSILON,
    Array,
    Curve,
    Gaussian,
    Numerical,
    Point,
    Renyi,
)

# of a grid: points to the epsilon of delta 1e-6, and at most on either side of zero
FINENESS, MOST_POINTS = 1024, 2**20


def compose(*curves: Curve, interval: float | None = None) -> Curve:
    """The guarantee of all mechanisms together, each chosen in the light of the others.

    Commutative and associative: exactly for Gaussians and for Renyi divergences, and up
    to the rounding of the grid, always upward, for the rest.

    Args:
        curves: for the same neighbours; none gives `Point(0.0)`, which changes nothing.
        interval: spacing of the grid of privacy losses, where one is needed. By default
            that of the coarsest `Numerical` among the curves, or else one for which
            epsilon is rounded up by less than a thousandth.

    >>> print(compose(Gaussian(3.0), Gaussian(4.0)))
    5-GDP
    >>> f"{compose(Gaussian(1.0), Point(1.0)).epsilon(1e-5):.3f}"
    '5.303'
    """
    merged = _merged(curves)
    if len(merged) == 1:
        return merged[0]
    if any(_is_nothing(curve) for curve in merged):
        return Point(0.0, 1.0)
    spacing = interval or _interval([(curve, 1) for curve in merged])
    losses = (distribution(curve, spacing) for curve in merged)
    return Numerical(functools.reduce(lambda a, b: a.compose(b), losses))


def repeated(curve: Curve, times: int, interval: float | None = None) -> Curve:
    """The same mechanism so many times; see `compose`.

    >>> print(repeated(Gaussian(0.5), 4))
    1-GDP
    """
    checks.whole("times", times)
    if times == 1 or curve.delta(0.0) == 0 or _is_nothing(curve):
        return curve
    if isinstance(curve, Gaussian):
        return Gaussian(curve.mu * math.sqrt(times))
    if isinstance(curve, Renyi):
        return Renyi(curve.orders, tuple(times * d for d in curve.divergences))
    spacing = interval or _interval([(curve, times)])
    return Numerical(distribution(curve, spacing).self_compose(times))


def least_noise(
    family: Callable[[float], Curve], epsilon: float, delta: float
) -> float:
    """Smallest noise at which a family of guarantees reaches (epsilon, delta).

    The answer meets the target, and is larger than needed by less than 1e-9 of itself
    where the family's curves are that exact.

    Args:
        family: (noise) -> curve, for positive noise; more noise means a lower delta.
        epsilon: target, above 0.
        delta: target, in (0, 1).

    Raises:
        InputError: no noise from 1e-9 to 1e12 reaches it, or none is needed.

    >>> f"{least_noise(lambda noise: Gaussian(2.0 / noise), 4.0, 1e-5):.4f}"
    '2.1623'
    """
    checks.positive("epsilon", epsilon)
    checks.fraction("delta", delta)

    def excess(log_noise: float) -> float:
        found = family(math.exp(log_noise)).delta(epsilon)
        return math.log(max(found, delta * 1e-9) / delta)

    low, high = _bracket(excess, epsilon, delta)
    log_noise = float(scipy.optimize.brentq(excess, low, high, xtol=1e-11))
    step = 1e-11
    while excess(log_noise) > 0:
        log_noise, step = log_noise + step, 2 * step
    return math.exp(log_noise)


def distribution(curve: Curve, interval: float) -> Any:
    """A `dp_accounting` privacy loss distribution that is nowhere better than `curve`.

    interval: spacing of its grid of privacy losses.

    Raises:
        InputError: a spacing that would take more than a million points.

    >>> pld = distribution(Point(1.0, 1e-6), 0.25)
    >>> f"{pld.get_epsilon_for_delta(1e-6):.3f} {pld.get_delta_for_epsilon(0.0):.6f}"
    '1.000 0.462118'
    """
    checks.positive("interval", interval)
    from dp_accounting.pld import privacy_loss_distribution as distributions

    if isinstance(curve, Numerical) and curve.interval == interval:
        return curve.pld
    points = math.ceil(_reach(curve) / interval)
    if points > MOST_POINTS:
        raise InputError(
            f"interval = {interval!r}: {points} points for {curve}; at most "
            f"{MOST_POINTS} are taken, so take a wider one"
        )
    if isinstance(curve, Gaussian) and curve.mu > 0:
        return distributions.from_gaussian_mechanism(
            1 / curve.mu, value_discretization_interval=interval
        )
    if isinstance(curve, Numerical):
        return distributions.PrivacyLossDistribution(
            *(_connected(half, points, interval) for half in curve.directions)
        )
    masses, never = _symmetric_masses(curve, points, interval)
    return distributions.PrivacyLossDistribution.create_from_rounded_probability(
        masses, never, interval
    )


# ---------------------------------------------------------------------- what is joined


def _merged(curves: Sequence[Curve]) -> list[Curve]:
    """The same guarantee by fewer curves: none idle, one Gaussian, or Renyi alone."""
    busy = [curve for curve in curves if curve.delta(0.0) > 0]
    mus = [curve.mu for curve in busy if isinstance(curve, Gaussian)]
    others = [curve for curve in busy if not isinstance(curve, Gaussian)]
    divergences = [curve for curve in others if isinstance(curve, Renyi)]
    if others and len(divergences) == len(others):
        orders = set.intersection(*(set(each.orders) for each in divergences))
        if orders:
            return [_renyi_sum(sorted(orders), divergences, gdp.compose(mus))]
    gaussian = [Gaussian(gdp.compose(mus))] if mus else []
    return gaussian + others or [Point(0.0)]


def _renyi_sum(orders: list[float], curves: Sequence[Renyi], mu: float) -> Renyi:
    """Divergences add up, that of a Gaussian being order mu^2 / 2."""
    tables = [dict(zip(c.orders, c.divergences, strict=True)) for c in curves]
    return Renyi(
        tuple(orders),
        tuple(a * mu**2 / 2 + sum(table[a] for table in tables) for a in orders),
    )


def _is_nothing(curve: Curve) -> bool:
    return curve.delta(LARGEST_EPSILON) == 1


# --------------------------------------------------------------------------- the grid


def _interval(curves: Sequence[tuple[Curve, int]]) -> float:
    """Spacing for a composition of curves, each so many times.

    Joining by straight lines spreads a loss by half a spacing at most, and n losses by
    root n as much; that has to be small beside the spread of their sum, of which a
    Gaussian of the same advantages tells enough.
    """
    given = [curve.interval for curve, _ in curves if isinstance(curve, Numerical)]
    if given:
        return max(given)
    mus = [
        math.sqrt(times) * 2 * float(scipy.special.ndtri(0.5 + advantage / 2))
        for curve, times in curves
        for advantage in [min(curve.advantage, 1 - 1e-9)]
    ]
    size = gdp.epsilon(1e-6, math.hypot(*mus)) or math.hypot(*mus)
    wanted = size / FINENESS / math.sqrt(sum(times for _, times in curves))
    widest = max(_reach(curve) for curve, _ in curves)
    return 2.0 ** math.floor(math.log2(max(wanted, 2 * widest / MOST_POINTS)))


def _reach(curve: Curve) -> float:
    """The loss beyond which next to nothing lies that does not lie at infinity."""
    never = curve.delta(LARGEST_EPSILON)
    return curve.epsilon(min(never * (1 + 1e-6) + 1e-17, 1 - 1e-16))


def _symmetric_masses(
    curve: Curve, points: int, interval: float
) -> tuple[dict[int, float], float]:
    """Masses at multiples of the interval, and at an infinite loss.

    Of a law that tells both neighbours' outputs apart as well as each other: a loss of
    -l has e^-l times the mass of l, and zero has the rest. A profile that is not convex
    is lowered to the largest convex one, on this side of s = 1 and across it: there the
    lines that are their own mirror images are a + (a - 1) s.
    """
    losses = np.linspace(0, points * interval, points + 1)
    deltas: Array = np.minimum.accumulate(np.asarray(curve.profile(losses)))
    deltas[0] = min(deltas[0], 1 - 2 * ((1 - deltas) / (1 + np.exp(losses))).max())
    corners = _hull(deltas, interval)
    drops, gaps = -np.diff(deltas[corners]), interval * np.diff(corners)
    masses = drops / -np.expm1(-gaps)
    masses[:-1] -= drops[1:] / np.expm1(gaps[1:])
    masses = np.maximum(masses, 0.0)
    mirrored = masses * np.exp(-interval * corners[1:])
    at = [*corners[1:].tolist(), *(-corners[1:]).tolist()]
    found = dict(zip(at, [*masses.tolist(), *mirrored.tolist()], strict=True))
    never = float(deltas[-1])
    found[0] = max(0.0, 1 - never - math.fsum(found.values()))
    return found, never


def _hull(deltas: Array, interval: float) -> Any:
    """Corners of the largest convex function of e^(i interval) below falling values.

    A true profile is convex, so what lies above it at some points may be lowered to
    that. Slopes are compared in units of 1 / e^(i interval) of the middle one.
    """
    corners = [0]
    values = deltas.tolist()
    for k in range(1, len(values)):
        while len(corners) > 1:
            i, j = corners[-2:]
            before = (values[i] - values[j]) / -math.expm1(interval * (i - j))
            after = (values[j] - values[k]) / math.expm1(min(interval * (k - j), 700.0))
            if before > after:
                break
            corners.pop()
        corners.append(k)
    return np.array(corners)


def _connected(
    profile: Callable[[gdp.Floats], gdp.Floats], points: int, interval: float
) -> Any:
    """Masses of one direction, from its profile on both sides of zero."""
    from dp_accounting.pld import pld_pmf

    grid = np.linspace(-points * interval, points * interval, 2 * points + 1)
    deltas = np.clip(np.minimum.accumulate(profile(grid)), 0.0, 1.0)
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(
        interval, -points, points, deltas
    )


def _bracket(
    excess: Callable[[float], float], epsilon: float, delta: float
) -> tuple[float, float]:
    """Logarithms of a noise that is too small, and of twice that, which is enough."""
    high = 0.0
    while excess(high) > 0:
        high += math.log(2)
        if high > math.log(1e12):
            raise InputError(
                f"epsilon = {epsilon:g}: no noise reaches it at delta = {delta:g}"
            )
    while excess(high - math.log(2)) <= 0:
        high -= math.log(2)
        if high < math.log(1e-9):
            raise InputError(
                f"epsilon = {epsilon:g}: reached at delta = {delta:g} without noise"
            )
    return high - math.log(2), high
