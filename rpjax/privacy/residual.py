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

import dataclasses
import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp
from rpjax.privacy.curves import Gaussian

Draw = Literal["step", "record"]
Sharing = Literal["own", "shared"]
Records = Literal["same", "disjoint"]


@dataclasses.dataclass(frozen=True)
class NoisyInputs:
    """All that counts of how noisy inputs are used, but for the size of the noise.

    diameter: largest distance of two inputs before the noise.
    participations: largest number of times E that one record enters training.
    draw: "step", fresh noise for every participation (factor sqrt(E)), or "record", the
        same noise throughout (no factor). With "record" one noise must never meet two
        different views of the record: their difference would show the clean record.
    copies: noisy copies K of each record, each with a noise of its own (factor
        sqrt(K)): augmented views of one participation, or, with "record", the fixed
        copies that take turns. Augmenting what is noisy already costs nothing.
    members: number of networks.
    noise_per_member: "own", independent noise for each (factor sqrt(members)), or
        "shared", all read the same noisy copies (no factor).
    records_per_member: "same", or "disjoint", each record belongs to one member alone
        (no factor).
    group: number of records replaced at once, their owner being the same (factor
        sqrt(group), because their noises are independent).
    """

    diameter: float
    participations: int = 1
    draw: Draw = "step"
    copies: int = 1
    members: int = 1
    noise_per_member: Sharing = "own"
    records_per_member: Records = "same"
    group: int = 1

    def __post_init__(self) -> None:
        checks.positive("diameter", self.diameter)
        checks.whole("participations", self.participations)
        checks.one_of("draw", self.draw, ("step", "record"))
        checks.whole("copies", self.copies)
        checks.whole("members", self.members)
        checks.one_of("noise_per_member", self.noise_per_member, ("own", "shared"))
        checks.one_of(
            "records_per_member", self.records_per_member, ("same", "disjoint")
        )
        checks.whole("group", self.group)

    @property
    def independent_copies(self) -> int:
        """Noisy copies with a noise of their own that are ever seen of one record."""
        own = self.noise_per_member == "own" and self.records_per_member == "same"
        uses = self.participations if self.draw == "step" else 1
        return self.copies * uses * (self.members if own else 1)

    @property
    def shift(self) -> float:
        """How far the replacement moves all noisy copies together, an l2 distance."""
        return self.diameter * math.sqrt(self.group * self.independent_copies)

    def mu(self, input_noise: float) -> float:
        """Of the theorem above, for a noise of standard deviation pi."""
        checks.positive("input_noise", input_noise)
        return self.shift / input_noise

    def curve(self, input_noise: float) -> Gaussian:
        """The guarantee: epsilon, delta, and what no attack exceeds.

        >>> kept = NoisyInputs(2.0, participations=50, draw="record", members=4)
        >>> print(kept.curve(8.0))
        0.5-GDP
        """
        return Gaussian(self.mu(input_noise))

    def noise_for(self, epsilon: float, delta: float) -> float:
        """Smallest input noise pi whose curve gives (epsilon, delta).

        >>> f"{NoisyInputs(2.0, participations=50).noise_for(4.0, 1e-5):.3f}"
        '15.290'
        """
        checks.positive("epsilon", epsilon)
        # the root is known to about 1e-14; a little more noise is on the safe side
        return self.shift / gdp.mu_from(epsilon, delta) * (1 + 1e-10)


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
        participations: as in `NoisyInputs`, which knows more ways to use noisy inputs.
        draw: as there.
        members: as there.
        noise_per_member: as there.

    Raises:
        InputError: no noise, or a field outside its range.

    >>> f"{gdp.epsilon(1e-5, mu(15.29, bound=1.0, participations=50)):.2f}"
    '4.00'
    """
    inputs = NoisyInputs(
        input_diameter(bound, diameter),
        *(participations, draw, 1, members, noise_per_member),
    )
    return inputs.mu(input_noise)


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
    inputs = NoisyInputs(
        input_diameter(bound, diameter),
        *(participations, draw, 1, members, noise_per_member),
    )
    return inputs.noise_for(epsilon, delta)


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


def input_diameter(bound: float | None, diameter: float | None) -> float:
    """The diameter given, or 2R for the bound given; exactly one of the two."""
    if bound is not None and diameter is None:
        return ball_diameter(bound)
    if diameter is not None and bound is None:
        checks.positive("diameter", diameter)
        return diameter
    raise InputError(f"bound = {bound!r}, diameter = {diameter!r}: give exactly one")


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
