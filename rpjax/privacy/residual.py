"""What input noise proves about a record's features, and what other noise does not.

Theorem. Let the trainer see the features of record i only through E noisy copies

    clip_R(a_e(x_i)) + pi n_e,   n_e ~ N(0, I) independent,   e = 1..E,

with public preprocessing or augmentation a_e. Let `diameter` bound the distance of two
clipped inputs (2R at most). Then everything computed from those copies and the labels,
the trained weights included, is mu-GDP with

    mu = diameter sqrt(E) / pi

for the neighbours "one record's features replaced, all labels and the other records
equal".

Proof. The E copies are jointly one Gaussian of standard deviation pi whose mean moves
by at most diameter sqrt(E) when the features are replaced; the other records' copies
keep their law; the rest is post-processing. It is tight for someone who sees the noisy
inputs. Noise on the residual blocks (gamma) is part of the post-processing and adds
nothing to the proof; labels and the presence of a record are not covered.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp

Draw = Literal["step", "record"]
Sharing = Literal["own", "shared"]


def mu(
    input_noise: float,
    *,
    bound: float | None = None,
    diameter: float | None = None,
    participations: int = 1,
    draw: Draw = "step",
    members: int = 1,
    noise_per_member: Sharing = "own",
) -> float:
    """Mu of a training run in which only noisy inputs are seen: the theorem above.

    Args:
        input_noise: standard deviation pi of the noise on each input coordinate.
        bound: l2 norm R to which every input is clipped, after centring and
            augmentation and before the noise; the diameter is then 2R.
        diameter: largest distance of two clipped inputs, where less than 2R is known.
            Exactly one of `bound` and `diameter` is given.
        participations: largest number of times E that one record enters training.
        draw: "step", fresh noise for every participation (factor sqrt(E)), or "record",
            one noisy copy per record used throughout (no factor). With "record" the
            same noise must never meet two different views of the record: their
            difference would show the clean record.
        members: number of networks trained on the same records.
        noise_per_member: "own", independent noise for each (factor sqrt(members)), or
            "shared", all read the same noisy copy (no factor).

    Raises:
        InputError: no noise, or a field outside its range.

    >>> f"{gdp.epsilon(1e-5, mu(15.29, bound=1.0, participations=50)):.2f}"
    '4.00'
    """
    checks.positive("input_noise", input_noise)
    return (
        _stretched_diameter(
            bound, diameter, participations, draw, members, noise_per_member
        )
        / input_noise
    )


def input_noise_for(
    epsilon: float,
    delta: float,
    *,
    bound: float | None = None,
    diameter: float | None = None,
    participations: int = 1,
    draw: Draw = "step",
    members: int = 1,
    noise_per_member: Sharing = "own",
) -> float:
    """Smallest input noise pi whose `mu` gives (epsilon, delta); arguments as there.

    >>> f"{input_noise_for(4.0, 1e-5, bound=1.0, participations=50):.3f}"
    '15.290'
    """
    checks.positive("epsilon", epsilon)
    stretched = _stretched_diameter(
        bound, diameter, participations, draw, members, noise_per_member
    )
    # the root is known to about 1e-14; a little more noise keeps it on the safe side
    return stretched / gdp.mu_from(epsilon, delta) * (1 + 1e-10)


def ball_diameter(bound: float) -> float:
    """Largest distance of two inputs of norm at most R: 2R."""
    checks.positive("bound", bound)
    return 2 * bound


def orthant_diameter(bound: float) -> float:
    """Largest distance of two inputs of norm at most R without negative entries."""
    checks.positive("bound", bound)
    return math.sqrt(2) * bound


def box_diameter(coordinates: int, low: float = 0.0, high: float = 1.0) -> float:
    """Largest distance of two images whose every entry lies in [low, high].

    The noise is per coordinate and this is a distance of whole images:

    >>> f"{box_diameter(32 * 32 * 3):.1f}"
    '55.4'
    """
    checks.whole("coordinates", coordinates)
    if not low < high:
        raise InputError(f"high = {high!r}: must be above low = {low!r}")
    return (high - low) * math.sqrt(coordinates)


def poisson_delta(
    epsilon: float, mu_one: float, steps: int, sampling_probability: float
) -> float:
    """Delta at `epsilon` when a record enters each step with a fixed probability.

    The number of participations k is Binomial(steps, probability) and visible, so delta
    is the mean of the deltas at mu_one sqrt(k). It is larger in the tail than at the
    mean number of participations: a shuffled epoch is the better schedule here.

    Args:
        epsilon: zero or more.
        mu_one: mu of one participation, diameter / pi.
        steps: number of steps T.
        sampling_probability: chance q that a record enters a step.

    >>> f"{poisson_delta(4.0, 0.1, 5000, 0.01):.2e}"
    '4.07e-08'
    """
    checks.not_negative("mu_one", mu_one)
    checks.whole("steps", steps)
    checks.rate("sampling_probability", sampling_probability)
    count = scipy.stats.binom(steps, sampling_probability)
    # beyond twelve standard deviations nothing is assumed: delta 1, at a weight that
    # is below 1e-30 and added
    mean = steps * sampling_probability
    most = min(steps, math.ceil(mean + 12 * math.sqrt(mean) + 200))
    k = np.arange(most + 1)
    deltas = gdp.delta(epsilon, mu_one * np.sqrt(k))
    return float(min(1.0, count.pmf(k) @ deltas + count.sf(most)))


def poisson_epsilon(
    delta: float, mu_one: float, steps: int, sampling_probability: float
) -> float:
    """Smallest epsilon at which `poisson_delta` is at most `delta`.

    Raises:
        InputError: `delta` so small (near 1e-30) that no finite epsilon is found.
    """
    checks.fraction("delta", delta)

    def excess(epsilon: float) -> float:
        return poisson_delta(epsilon, mu_one, steps, sampling_probability) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
        if high > 1e9:
            raise InputError(f"delta = {delta!r}: too small for a finite epsilon")
    return float(scipy.optimize.brentq(excess, 0.0, high, xtol=1e-12 * high))


# ------------------------------------------------- the paper's theorem, as recalled


def recalled_theorem_noise(
    epsilon: float,
    delta: float,
    bound: float,
    participations: int,
    split: float | None = None,
) -> float:
    """Input noise that the paper's Theorem 1 asks for, as recalled: looser than needed.

    pi = R sqrt(2 E alpha / (lambda epsilon)), alpha = log(1/delta)/((1-lambda) epsilon)
    + 1. It is what Renyi composition with Mironov's conversion gives for the mechanism
    of `mu`, so it is valid but asks for 14 to 31 % more noise than `input_noise_for` at
    delta 1e-5 and epsilon 1 to 10. Recalled from Tao, Ling, Shi, Wang, arXiv
    2408.05723, not checked against the text; here to compare, not to calibrate.

    Args:
        epsilon: above 0.
        delta: in (0, 1).
        bound: l2 norm R of the inputs; with a bound G on a residual mapping in its
            place the same formula gives the theorem's gamma.
        participations: uses E = T b / N of each record.
        split: the theorem's lambda in (0, 1); the best one where None.

    >>> f"{recalled_theorem_noise(1.0, 1e-5, 1.0, 1):.3f}"
    '9.801'
    """
    checks.positive("bound", bound)
    checks.whole("participations", participations)
    best = recalled_theorem_split(epsilon, delta)
    share = best if split is None else split
    checks.fraction("split", share)
    alpha = math.log(1 / delta) / ((1 - share) * epsilon) + 1
    return bound * math.sqrt(2 * participations * alpha / (share * epsilon))


def recalled_theorem_split(epsilon: float, delta: float) -> float:
    """Lambda in (0, 1) at which `recalled_theorem_noise` is smallest.

    With a = 1 + log(1/delta)/epsilon the noise squared is proportional to
    (a - lambda) / (lambda - lambda^2), smallest at lambda = a - sqrt(a^2 - a).

    >>> f"{recalled_theorem_split(8.0, 1e-5):.2f}"
    '0.57'
    """
    checks.positive("epsilon", epsilon)
    checks.fraction("delta", delta)
    a = 1 + math.log(1 / delta) / epsilon
    return 1 / (1 + math.sqrt(1 - 1 / a))


# -------------------------------------------------------- Strategy II: Renyi divergence


def renyi_gaussian(
    alpha: float,
    m0: npt.ArrayLike,
    s0: npt.ArrayLike,
    m1: npt.ArrayLike,
    s1: npt.ArrayLike,
) -> float:
    """Renyi divergence D_alpha(N(m0, s0^2) || N(m1, s1^2)), summed over coordinates.

    With v = alpha s1^2 + (1 - alpha) s0^2 it is, in each coordinate,
    log(s1/s0) + log(s1^2/v) / (2 (alpha - 1)) + alpha (m0 - m1)^2 / (2 v), and infinite
    where v <= 0. A standard deviation of zero is allowed: noise proportional to an
    activation that is zero is no noise, and then the divergence is infinite unless both
    laws are the same point. Source: Gil, Alajaji, Linder, "Renyi divergence measures
    for commonly used univariate continuous distributions", 2013.

    Args:
        alpha: order, above 1.
        m0: means of the first law, a number or an array.
        s0: standard deviations of the first law, zero or more.
        m1: means of the second law.
        s1: standard deviations of the second law.

    >>> renyi_gaussian(2.0, 0.0, 1.0, 1.0, 1.0)
    1.0
    >>> renyi_gaussian(2.0, 0.0, 0.0, 0.3, 0.5)
    inf
    """
    if not (alpha > 1 and math.isfinite(alpha)):
        raise InputError(f"alpha = {alpha!r}: must be above 1 and finite")
    laws = (np.asarray(x, dtype=np.float64) for x in (m0, s0, m1, s1))
    mean_0, std_0, mean_1, std_1 = (x.ravel() for x in np.broadcast_arrays(*laws))
    if not (np.minimum(std_0, std_1) >= 0).all():
        raise InputError("s0, s1: standard deviations must be zero or more")
    same_point = (std_0 == 0) & (std_1 == 0) & (mean_0 == mean_1)
    shift = (mean_0 - mean_1)[~same_point]
    first, second = std_0[~same_point] ** 2, std_1[~same_point] ** 2
    mixed = alpha * second + (1 - alpha) * first
    if (mixed <= 0).any() or (first == 0).any():
        return math.inf
    spread = np.log(second / first) / 2 + np.log(second / mixed) / (2 * (alpha - 1))
    return float((spread + alpha * shift**2 / (2 * mixed)).sum())


def largest_finite_order(largest: float, floor: float) -> float:
    """Order below which Strategy II with a floor has a finite Renyi divergence.

    Where the activations that scale the noise lie between `floor` (eta) and `largest`
    (A) in size, neighbours' noise scales differ by up to A/eta and the order has to
    stay below A^2 / (A^2 - eta^2), whatever gamma is. Without a floor no order above 1
    is finite; with equal scales every order is.

    >>> f"{largest_finite_order(1.5, 1.0):.1f}, {largest_finite_order(1.0, 0.0):.1f}"
    '1.8, 1.0'
    """
    checks.positive("largest", largest)
    checks.not_negative("floor", floor)
    if floor > largest:
        raise InputError(f"floor = {floor!r}: must not exceed largest = {largest!r}")
    if floor == largest:
        return math.inf
    return 1 / (1 - (floor / largest) ** 2)


def _stretched_diameter(
    bound: float | None,
    diameter: float | None,
    participations: int,
    draw: Draw,
    members: int,
    noise_per_member: Sharing,
) -> float:
    """Distance that replacing a record's features moves all its noisy copies by."""
    checks.whole("participations", participations)
    checks.one_of("draw", draw, ("step", "record"))
    checks.whole("members", members)
    checks.one_of("noise_per_member", noise_per_member, ("own", "shared"))
    copies = (participations if draw == "step" else 1) * (
        members if noise_per_member == "own" else 1
    )
    return input_diameter(bound, diameter) * math.sqrt(copies)


def input_diameter(bound: float | None, diameter: float | None) -> float:
    """The diameter given, or 2R for the bound given; exactly one of the two."""
    if bound is not None and diameter is None:
        return ball_diameter(bound)
    if diameter is not None and bound is None:
        checks.positive("diameter", diameter)
        return diameter
    raise InputError(f"bound = {bound!r}, diameter = {diameter!r}: give exactly one")
