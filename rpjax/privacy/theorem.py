"""The paper's theorem as recalled, as a curve: to compare, not to rely on.

Recalled from Tao, Ling, Shi, Wang, arXiv 2408.05723, Theorem 1, and not checked against
the text: training is (epsilon, delta)-DP if, for some lambda in (0, 1),

    pi > R sqrt(2 E alpha / (lambda epsilon)),
    alpha = log(1/delta) / ((1 - lambda) epsilon) + 1,

and the same with gamma and a bound G on the residual mappings, with E = T b / N uses of
each record. The condition on pi is what Renyi composition gives for the mechanism of
`rpjax.privacy.residual`: E Gaussians of sensitivity 2R have Renyi divergence alpha rho,
rho = 2 E R^2 / pi^2, and Mironov's conversion ("Renyi Differential Privacy", arXiv
1702.07476, Proposition 3) spends lambda epsilon on it and the rest on delta. So it is
valid there, and looser than the exact curve. The condition on gamma alone proves
nothing.

Of the paper's statements for single layers too little is recalled to state them.
"""

import dataclasses
import math

import numpy as np

from rpjax.privacy import checks, gdp
from rpjax.privacy.curve import Curve


@dataclasses.dataclass(frozen=True)
class RecalledTheorem(Curve):
    """Renyi divergence alpha rho at every order alpha > 1, by Mironov's conversion.

    At the best order epsilon = rho + 2 sqrt(rho log(1/delta)), hence
    delta = exp(-(epsilon - rho)^2 / (4 rho)) above rho, and nothing below.

    rho: 2 E R^2 / pi^2; half the squared mu of the exact guarantee.

    >>> print(RecalledTheorem(0.5))
    the theorem as recalled, at rho 0.5
    >>> f"{RecalledTheorem(0.5).epsilon(1e-5):.4f}"
    '5.2985'
    """

    rho: float

    def __post_init__(self) -> None:
        checks.not_negative("rho", self.rho)

    def epsilon(self, delta: float) -> float:
        """In closed form, the best lambda for this delta."""
        checks.probability("delta", delta)
        if delta == 0:
            return self._pure()
        found = self.rho + 2 * math.sqrt(self.rho * -math.log(delta))
        return self._rounded_up(found, delta)

    def _pure(self) -> float:
        return 0.0 if self.rho == 0 else math.inf

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        if self.rho == 0:
            return np.zeros_like(epsilons)[()]
        above = np.maximum(epsilons - self.rho, 0.0)
        return np.asarray(np.exp(-(above**2) / (4 * self.rho)))[()]

    def __str__(self) -> str:
        return f"the theorem as recalled, at rho {self.rho:.4g}"


def curve(input_noise: float, bound: float, participations: int) -> RecalledTheorem:
    """What the theorem says of a training, at its best lambda for every delta.

    Args:
        input_noise: standard deviation pi of the noise on each input coordinate.
        bound: l2 norm R of the inputs.
        participations: uses E = T b / N of each record.

    >>> f"{curve(2.592, 1.0, 1).epsilon(1e-5):.2f}"
    '4.00'
    """
    checks.positive("input_noise", input_noise)
    checks.positive("bound", bound)
    checks.whole("participations", participations)
    return RecalledTheorem(2 * participations * (bound / input_noise) ** 2)


def noise_for(
    epsilon: float,
    delta: float,
    bound: float,
    participations: int,
    split: float | None = None,
) -> float:
    """Input noise that the theorem asks for: 14 to 31 % more than is needed.

    That at delta 1e-5 and epsilon 1 to 10, against `residual.input_noise_for`.

    Args:
        epsilon: above 0.
        delta: in (0, 1).
        bound: l2 norm R of the inputs; with a bound G on a residual mapping in its
            place the same formula gives the theorem's gamma.
        participations: uses E = T b / N of each record.
        split: the theorem's lambda in (0, 1); the best one where None.

    >>> f"{noise_for(1.0, 1e-5, 1.0, 1):.3f}"
    '9.801'
    """
    checks.positive("bound", bound)
    checks.whole("participations", participations)
    best = best_split(epsilon, delta)
    share = best if split is None else split
    checks.fraction("split", share)
    alpha = math.log(1 / delta) / ((1 - share) * epsilon) + 1
    return bound * math.sqrt(2 * participations * alpha / (share * epsilon))


def best_split(epsilon: float, delta: float) -> float:
    """Lambda in (0, 1) at which `noise_for` is smallest.

    With a = 1 + log(1/delta)/epsilon the noise squared is proportional to
    (a - lambda) / (lambda - lambda^2), smallest at lambda = a - sqrt(a^2 - a).

    >>> f"{best_split(8.0, 1e-5):.2f}"
    '0.57'
    """
    checks.positive("epsilon", epsilon)
    checks.fraction("delta", delta)
    a = 1 + math.log(1 / delta) / epsilon
    return 1 / (1 + math.sqrt(1 - 1 / a))
