"""What one block of Strategy II proves for its input, and how tightly that is known.

A block with a floor releases, given its input x,

    x~ = x + F(x) + gamma f(x) * n,   n ~ N(0, I),   floor <= |f(x)_j| <= largest,

so that coordinate j is normal with a standard deviation between a = gamma floor and
b = gamma largest, which depends on x. Neighbours are any two inputs whose x + F(x) are
at most `shift` apart in l2 norm; every pair of laws within these bounds occurs for some
F. This is about one release, given its input. Weights trained on clean inputs are no
function of it, and get no guarantee from it (`rpjax.privacy.residual`).

Let r = b / a, and call a coordinate "up" whose standard deviation is b under the first
law and a under the second, and "down" where it is the other way round.

1. Renyi. At every order the largest divergence is that of all coordinates up with the
   full shift; finite orders are those below r^2 / (r^2 - 1), whatever gamma is.
   Proof: per coordinate, in the first variance v the divergence is convex and rises
   for v above the second variance u; in u it falls below v and has no inner maximum
   above, because the sign of its derivative there is that of a convex quadratic which
   is not positive at u = v. So an extreme of both is the largest, and of up and down it
   is up. The shift's part, order shift^2 / (2 (order u + (1 - order) v)), is then the
   largest too, and only its sum over coordinates matters.
2. Delta, no shift. At every epsilon the largest delta is that of k coordinates up and
   the others down, for some k. Proof: a variance v of the first law moves delta by
   1/2 integral of the density's second derivative over the set where the first density
   exceeds e^epsilon times the second, by the heat equation. For fixed other coordinates
   that set is |x_j| > c where v > u, |x_j| < c where v < u: so delta rises with v above
   u and falls below it, and in the same way it falls with u below v and rises above.
   All k are computed, by `rpjax.privacy.inversion`, except those that Renyi's bound
   shows to be smaller. So far the largest was always at all up.
3. Delta with a shift: the smaller of two upper bounds. Renyi's; or that of a stronger
   release, the mean under the noise c n and the rest of the noise under its scales,
   for the best c < a: Gaussian with mu = shift / c beside scales of ratio
   sqrt((b^2 - c^2) / (a^2 - c^2)) without shift, whose sum is x~.
4. All coordinates up with the full shift is one pair of neighbours. No guarantee can be
   smaller than its delta, which is exact: `Block.attained`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp, inversion, scale_pairs
from rpjax.privacy.algebra import least_noise
from rpjax.privacy.curve import Curve
from rpjax.privacy.residual import largest_finite_order, renyi_gaussian
from rpjax.privacy.scale_pairs import ScalePairs

# of epsilons asked for at once, each is computed up to so many
KNOTS = 200


@dataclasses.dataclass(frozen=True)
class Block(Curve):
    """The guarantee of one block's release for its input; see the module.

    gamma: standard deviation of the noise relative to the activation (no unit).
    floor: least magnitude eta that the noise scales with, above 0.
    largest: magnitude A to which the activations that scale it are clipped.
    coordinates: their number d.
    shift: largest l2 distance of two neighbours' x + F(x). A bound t on every
        coordinate's is one of t sqrt(d). With 0 the scales alone tell the neighbours
        apart, and gamma does not matter.

    >>> b = Block(gamma=0.5, floor=1.0, largest=1.1, coordinates=100)
    >>> f"{b.epsilon(1e-5):.4f} {b.renyi(2.0):.4f}"
    '7.9973 2.2551'
    """

    gamma: float
    floor: float
    largest: float
    coordinates: int
    shift: float = 0.0

    def __post_init__(self) -> None:
        checks.positive("gamma", self.gamma)
        checks.positive("floor", self.floor)
        checks.positive("largest", self.largest)
        checks.whole("coordinates", self.coordinates)
        checks.not_negative("shift", self.shift)
        if self.floor > self.largest:
            raise InputError(
                f"floor = {self.floor!r}: must not exceed largest = {self.largest!r}"
            )

    @property
    def largest_order(self) -> float:
        """Orders from this one upward have an infinite divergence."""
        return largest_finite_order(self.largest, self.floor)

    def renyi(self, order: float) -> float:
        """Largest Renyi divergence of this order, above 1, between any neighbours."""
        high, low = self.gamma * self.largest, self.gamma * self.floor
        scales = renyi_gaussian(order, 0.0, high, 0.0, low)
        if math.isinf(scales):
            return math.inf
        with_shift = renyi_gaussian(order, self.shift, high, 0.0, low)
        return with_shift + (self.coordinates - 1) * scales

    def epsilon(self, delta: float) -> float:
        """Smallest epsilon proved at this delta; see `Curve.epsilon`.

        It is `attained`'s, wherever that pair of neighbours is the worst one.
        """
        least = self.attained.epsilon(delta)
        if math.isinf(least) or self.delta(least) <= delta:
            return least
        most = self.renyi_epsilon(delta) * (1 + 1e-10)
        found = scipy.optimize.brentq(
            lambda e: self._log_delta(e) - math.log(delta),
            least,
            most,
            xtol=1e-12 * most,
        )
        return self._rounded_up(float(found), delta)

    def renyi_epsilon(self, delta: float) -> float:
        """Smallest epsilon that the divergences of all finite orders prove at `delta`.

        Above `epsilon` but for rounding; what is between them the conversion loses.
        """
        checks.fraction("delta", delta)
        s = self._pairs.orders()
        log_deltas = inversion.log_chernoff(self._pairs.all_up(s), s, 0.0)
        return max(0.0, float(((log_deltas - math.log(delta)) / s).min()))

    @property
    def attained(self) -> "Attained":
        """What one pair of neighbours shows: below it there is no guarantee."""
        return Attained(self)

    @property
    def _pairs(self) -> ScalePairs:
        log_ratio = math.log(self.largest / self.floor)
        mu = self.shift / (self.gamma * self.floor)
        return ScalePairs(log_ratio, self.coordinates, shift=mu)

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        return _each(self._log_delta, epsilons)

    def _log_delta(self, epsilon: float) -> float:
        pairs = self._pairs
        if pairs.log_ratio == 0:
            return float(gdp.log_delta(epsilon, pairs.shift))
        if pairs.shift == 0:
            return scale_pairs.largest_log_delta(pairs, epsilon)
        apart = scale_pairs.split(pairs, epsilon)
        by_renyi = pairs.renyi_log_delta(epsilon)
        if scale_pairs.all_up_log_delta(apart, epsilon) >= by_renyi:
            return by_renyi
        return min(by_renyi, scale_pairs.largest_log_delta(apart, epsilon))

    def __str__(self) -> str:
        return (
            f"one block of Strategy II, {self.coordinates} coordinates, noise scales "
            f"up to {self.largest / self.floor:.4g} : 1"
        )


@dataclasses.dataclass(frozen=True)
class Attained(Curve):
    """Exactly how well one pair of neighbours of a block can be told apart.

    All coordinates have the largest scale under one law and the smallest under the
    other, with the full shift. No guarantee, but what every guarantee has to exceed.

    >>> f"{Block(0.5, 1.0, 1.1, 100, shift=0.5).attained.epsilon(1e-5):.4f}"
    '10.2084'
    """

    block: Block

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        return _each(self._log_delta, epsilons)

    def _log_delta(self, epsilon: float) -> float:
        pairs = self.block._pairs
        if pairs.log_ratio == 0:
            return float(gdp.log_delta(epsilon, pairs.shift))
        return scale_pairs.all_up_log_delta(pairs, epsilon)

    def __str__(self) -> str:
        return f"one pair of neighbours of {self.block}"


def least_floor(
    epsilon: float,
    delta: float,
    *,
    gamma: float,
    largest: float,
    coordinates: int,
    shift: float = 0.0,
) -> float:
    """Smallest floor at which a block is (epsilon, delta)-DP for its input.

    Arguments as of `Block`.

    Raises:
        InputError: not even a constant scale, floor = largest, reaches the target; then
            only a larger gamma does. Or a floor of 1e-9 does already.

    >>> floor = least_floor(8.0, 1e-5, gamma=0.5, largest=2.0, coordinates=1000)
    >>> f"{floor:.4f}"
    '1.9317'
    """

    def block(floor: float) -> Block:
        return Block(gamma, min(floor, largest), largest, coordinates, shift)

    checks.positive("epsilon", epsilon)
    checks.fraction("delta", delta)
    if block(largest).delta(epsilon) > delta:
        constant = block(largest).epsilon(delta)
        raise InputError(
            f"epsilon = {epsilon:g}: no floor reaches it at delta = {delta:g}; a floor "
            f"of {largest:g}, the largest there is, proves {constant:.4g}"
        )
    return min(least_noise(block, epsilon, delta), largest)


class Row(NamedTuple):
    """What is known of a block at one delta.

    largest_order: orders from this one upward have an infinite Renyi divergence.
    renyi: epsilon that the orders below it prove.
    proved: epsilon of `Block`.
    attained: epsilon of one pair of neighbours, below which none can be proved.
    additive: epsilon of Strategy I with the block's smallest noise throughout.
    """

    ratio: float
    coordinates: int
    largest_order: float
    renyi: float
    proved: float
    attained: float
    additive: float


RATIOS = (1.01, 1.05, 1.1, 1.5, 2.0, 4.0, 10.0)
COORDINATES = (1, 10, 100, 1000, 12_800)


def table(
    ratios: tuple[float, ...] = RATIOS,
    coordinates: tuple[int, ...] = COORDINATES,
    delta: float = 1e-5,
    shift: float = 0.0,
) -> list[Row]:
    """Rows for every ratio largest / floor and number of coordinates.

    shift: in units of the smallest standard deviation, gamma floor.
    """
    return [
        row(ratio, count, delta, shift) for ratio in ratios for count in coordinates
    ]


def row(ratio: float, coordinates: int, delta: float = 1e-5, shift: float = 0.0) -> Row:
    """A row of `table`."""
    block = Block(1.0, 1.0, ratio, coordinates, shift)
    return Row(
        ratio=ratio,
        coordinates=coordinates,
        largest_order=block.largest_order,
        renyi=block.renyi_epsilon(delta),
        proved=block.epsilon(delta),
        attained=block.attained.epsilon(delta),
        additive=gdp.epsilon(delta, shift),
    )


def _each(log_delta: Callable[[float], float], epsilons: gdp.Floats) -> gdp.Floats:
    """Deltas at epsilons of any shape, of more than KNOTS by chords between knots.

    Delta is convex as a function of e^epsilon, so that a chord lies above it.
    """
    at = np.asarray(epsilons, dtype=np.float64)
    knots = np.unique(at)
    if len(knots) > KNOTS:
        knots = np.linspace(knots[0], knots[-1], KNOTS)
    deltas = np.exp([log_delta(float(epsilon)) for epsilon in knots])
    if len(knots) == 1:
        return np.full(at.shape, deltas[0])[()]
    left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    part = np.expm1(at - knots[left]) / np.expm1(knots[left + 1] - knots[left])
    return np.asarray((1 - part) * deltas[left] + part * deltas[left + 1])[()]
