"""Amplification by depth: a public frozen trunk with noise on every layer.

Theorem. Let x_0 = x + pi n_0, and x_t = f_t(x_{t-1}) + gamma_t n_t for t = 1..L with
standard normal n, where the maps f_t are public, fixed, and c_t-Lipschitz in the l2
norm. Then x_L is mu-GDP for inputs at most `diameter` apart, with

    mu = diameter / sqrt(pi^2 + sum over t of (gamma_t / (c_1 ... c_t))^2):

each layer's noise counts as if it had been added to the input, divided by as much as
the layers up to it can stretch a distance. For one constant c this is
diameter c^L / sqrt(pi^2 c^2L + gamma^2 (1 + c^2 + ... + c^2(L-1))).

Proof. Let z_t bound the distance of two coupled chains with the same noise. At each
noise, part a_t of the distance is spent, z_t = c_t z_{t-1} - a_t (and z_0 = diameter -
a_0), for which shifting a Gaussian costs a_t / gamma_t (a_0 / pi), and the rest passes
on; f_t itself is post-processing and stretches by at most c_t. With z_L = 0 the chains
have met. So the guarantee is GDP with the sum over t of (a_t / gamma_t)^2 for mu^2:
shifted interpolation, Bok, Su, Altschuler, "Shifted Interpolation for Differential
Privacy", arXiv 2403.00278, with layers in the place of iterations. Divided by
C_t = c_1 ... c_t the constraint reads sum a_t / C_t = diameter, and Cauchy-Schwarz
gives the least sum of squares, the formula. For maps x -> c_t x it is exact, the sum of
all noises being one Gaussian.

It does not apply to layers trained on the same records: their weights depend on clean
activations, which no layer's noise covers. A residual block x + F(x) has c <= 1 + the
Lipschitz constant of F.
"""

import math
from collections.abc import Sequence

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp
from rpjax.privacy.curves import Gaussian


def curve(
    diameter: float,
    lipschitz: Sequence[float],
    gammas: Sequence[float],
    input_noise: float = 0.0,
    copies: int = 1,
) -> Gaussian:
    """The guarantee of the last layer's output, one record's features replaced.

    Args:
        diameter: largest distance of two inputs of the trunk, 2R for norms up to R.
        lipschitz: constants c_1..c_L, above 0.
        gammas: standard deviations of the layers' noise, zero or more, as many.
        input_noise: standard deviation pi of the noise on the input.
        copies: outputs with noise of their own that are used of each record, such as
            one in each epoch in which a head is trained.

    Raises:
        InputError: no noise anywhere, or a field outside its range.

    >>> f"{curve(1.0, [0.9] * 9, [1.0] * 9).mu:.4f}"
    '0.1832'
    """
    checks.positive("diameter", diameter)
    checks.not_negative("input_noise", input_noise)
    checks.whole("copies", copies)
    noise = math.hypot(input_noise, referred_noise(lipschitz, gammas))
    if noise == 0:
        raise InputError("gammas: all are 0, and so is input_noise; nothing is hidden")
    return Gaussian(math.sqrt(copies) * diameter / noise)


def referred_noise(lipschitz: Sequence[float], gammas: Sequence[float]) -> float:
    """Standard deviation of the noise on the input that hides as much as the layers'.

    >>> referred_noise([2.0, 0.5], [3.0, 4.0])
    4.272001872658765
    """
    if len(lipschitz) != len(gammas):
        raise InputError(
            f"gammas: {len(gammas)} for {len(lipschitz)} Lipschitz constants; one each"
        )
    stretch, noises = 1.0, []
    for constant, gamma in zip(lipschitz, gammas, strict=True):
        checks.positive("lipschitz", constant)
        checks.not_negative("gammas", gamma)
        # never 0 by underflow, which would make a noise infinite
        stretch = max(stretch * constant, 1e-300)
        noises += [gamma / stretch]
    return math.hypot(*noises)


def gamma_for(
    epsilon: float,
    delta: float,
    diameter: float,
    lipschitz: Sequence[float],
    input_noise: float = 0.0,
    copies: int = 1,
) -> float:
    """Smallest gamma, the same for all layers, at which `curve` gives (epsilon, delta).

    Zero where the input noise does it alone; arguments as there.

    >>> f"{gamma_for(4.0, 1e-5, 1.0, [1.0] * 4):.4f}"
    '0.5406'
    """
    checks.positive("diameter", diameter)
    checks.positive("epsilon", epsilon)
    checks.whole("copies", copies)
    # a little more than the root, which is known to about 1e-14
    needed = diameter * math.sqrt(copies) / gdp.mu_from(epsilon, delta) * (1 + 1e-10)
    left = needed**2 - input_noise**2
    if left <= 0:
        return 0.0
    return math.sqrt(left) / referred_noise(lipschitz, [1.0] * len(lipschitz))
