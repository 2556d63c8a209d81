"""Labels by randomised response: what covers the half that input noise does not.

Each label is drawn once, before training: kept with probability p, otherwise replaced
by one of the other K - 1 classes at random, with q = (1 - p) / (K - 1) for each. Every
reported label is at most p / q = e^epsilon times as likely for one true label as for
another, so training on the reports is epsilon-DP for the label, however long it lasts.
The best test asks whether the report is the one label, the other, or neither:

    delta(e) = max(0, p - e^e q),

less than of pure epsilon-DP in general where K > 2. Source: Warner 1965; Kairouz, Oh,
Viswanath, "Extremal Mechanisms for Local Differential Privacy", arXiv 1407.1338.

Beside a guarantee for the features with equal labels, `compose(features, labels)` is
one for whole records, any one of them replaced: the two draws are independent, so the
trade-off function of both together is the tensor product.
"""

import dataclasses
import math

import numpy as np

from rpjax.errors import InputError
from rpjax.privacy import checks, gdp
from rpjax.privacy.curve import Array, Curve


@dataclasses.dataclass(frozen=True)
class RandomisedResponse(Curve):
    """The exact guarantee of K-ary randomised response, one label replaced.

    at_epsilon: log(p / q), zero or more; classes: K, two or more.

    >>> r = RandomisedResponse(2.0, 10)
    >>> f"{r.epsilon(0.0):.1f} {r.epsilon(0.1):.3f} {r.delta(0.0):.4f}"
    '2.0 1.749 0.3898'
    """

    at_epsilon: float
    classes: int

    def __post_init__(self) -> None:
        keep_probability(self.at_epsilon, self.classes)

    @property
    def keep(self) -> float:
        """Probability p that a label is reported as it is."""
        return keep_probability(self.at_epsilon, self.classes)

    def epsilon(self, delta: float) -> float:
        """log((p - delta) / q), zero at least."""
        checks.probability("delta", delta)
        left = 1 - delta / self.keep
        if left <= math.exp(-self.at_epsilon):
            return 0.0
        return self._rounded_up(self.at_epsilon + math.log(left), delta)

    def _pure(self) -> float:
        return self.at_epsilon

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        above = -np.expm1(np.minimum(epsilons - self.at_epsilon, 0.0))
        return np.asarray(self.keep * above)[()]

    def __str__(self) -> str:
        return (
            f"{self.at_epsilon:.4g}-DP by randomised response, {self.classes} classes"
        )


def keep_probability(epsilon: float, classes: int) -> float:
    """P = e^epsilon / (e^epsilon + K - 1).

    >>> f"{keep_probability(2.0, 10):.6f}"
    '0.450853'
    """
    checks.not_negative("epsilon", epsilon)
    checks.whole("classes", classes, 2)
    return 1 / (1 + (classes - 1) * math.exp(-epsilon))


def epsilon_of(keep: float, classes: int) -> float:
    """log(p (K - 1) / (1 - p)) of labels kept with probability p in [1/K, 1).

    >>> f"{epsilon_of(0.450853, 10):.4f}"
    '2.0000'
    """
    checks.whole("classes", classes, 2)
    if not 1 / classes * (1 - 1e-12) <= keep < 1:
        raise InputError(f"keep = {keep!r}: must lie in [{1 / classes:.4g}, 1)")
    return max(0.0, math.log(keep * (classes - 1) / (1 - keep)))


def confusion(epsilon: float, classes: int) -> Array:
    """T[y, z], the probability that a true label y is reported as z, (K, K).

    A net p(y | x) trained on reports z with the loss -log sum_y p(y | x) T[y, z] learns
    the law of the true labels: Patrini et al., "Making Deep Neural Networks Robust to
    Label Noise", arXiv 1609.03683 (forward correction).

    >>> confusion(math.log(2.0), 3).round(2).tolist()
    [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    keep = keep_probability(epsilon, classes)
    matrix = np.full((classes, classes), (1 - keep) / (classes - 1))
    np.fill_diagonal(matrix, keep)
    return matrix
