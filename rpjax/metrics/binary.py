"""Metrics of one class against the rest, from the four counts of a 2 x 2 table.

List of Bekkar, Djemaa and Alitouche, "Evaluation measures for models assessment over
imbalanced data sets", 2013. Counts may be arrays of one shape; every metric is NaN
where it divides by nothing, and infinite where it grows without bound.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from rpjax.errors import InputError

Floats = np.float64 | npt.NDArray[np.float64]
Base = Literal["e", "10"]


class Binary(NamedTuple):
    """True positives, false negatives, false positives, true negatives, each [...].

    >>> b = Binary(80, 20, 30, 70)
    >>> f"{b.youden():.3f} {b.likelihood_positive():.6f} {b.discriminant_power():.6f}"
    '0.500 2.666667 1.231444'
    """

    tp: npt.ArrayLike
    fn: npt.ArrayLike
    fp: npt.ArrayLike
    tn: npt.ArrayLike

    def tpr(self) -> Floats:
        """Sensitivity, recall of the class: TP / (TP + FN)."""
        return _share(self.tp, self.fn)

    def tnr(self) -> Floats:
        """Specificity, recall of the rest: TN / (TN + FP)."""
        return _share(self.tn, self.fp)

    def ppv(self) -> Floats:
        """Precision: TP / (TP + FP)."""
        return _share(self.tp, self.fp)

    def npv(self) -> Floats:
        """Negative predictive value: TN / (TN + FN)."""
        return _share(self.tn, self.fn)

    def youden(self) -> Floats:
        """``TPR + TNR - 1``: 0 is guessing."""
        return self.tpr() + self.tnr() - 1

    def likelihood_positive(self) -> Floats:
        """``TPR / (1 - TNR)``; infinite without false positives, NaN for 0 / 0."""
        return _quotient(self.tpr(), 1 - self.tnr())

    def likelihood_negative(self) -> Floats:
        """``(1 - TPR) / TNR``; infinite without true negatives, NaN for 0 / 0."""
        return _quotient(1 - self.tpr(), self.tnr())

    def discriminant_power(self, base: Base = "e") -> Floats:
        """``sqrt 3 / pi (log odds of TPR + log odds of TNR)``.

        base: of the logarithm. "e" as of Sokolova, Japkowicz and Szpakowicz (2006), to
        which the usual reading belongs (below 1 poor, 2 limited, 3 fair, else good);
        "10" as of PyCM, a factor 2.303 smaller. Infinite where a rate is 0 or 1, NaN
        where one is 0 and the other 1. Nothing to do with differential privacy.
        """
        if base not in ("e", "10"):
            raise InputError(f"base is {base!r}; it is 'e' or '10'")
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = [np.log(r) - np.log1p(-r) for r in (self.tpr(), self.tnr())]
            found = math.sqrt(3) / math.pi * (odds[0] + odds[1])
        return np.asarray(found / (math.log(10) if base == "10" else 1.0))

    def index_of_balanced_accuracy(self, alpha: float = 0.1) -> Floats:
        """``(1 + alpha (TPR - TNR)) TPR TNR``: rewards finding the class itself."""
        tpr, tnr = self.tpr(), self.tnr()
        return (1 + alpha * (tpr - tnr)) * tpr * tnr

    def optimized_precision(self) -> Floats:
        """``accuracy - |TNR - TPR| / (TNR + TPR)``; NaN if both are 0."""
        tpr, tnr = self.tpr(), self.tnr()
        right = np.asarray(self.tp, np.float64) + np.asarray(self.tn, np.float64)
        wrong = np.asarray(self.fn, np.float64) + np.asarray(self.fp, np.float64)
        with np.errstate(invalid="ignore"):
            gap = _quotient(np.abs(tnr - tpr), tnr + tpr)
            return np.asarray(_share(right, wrong) - gap)

    def weighted_accuracy(self, weight: float = 0.5) -> Floats:
        """``weight TPR + (1 - weight) TNR``; one half is balanced accuracy."""
        return weight * self.tpr() + (1 - weight) * self.tnr()


def one_vs_rest(table: npt.ArrayLike, label: int) -> Binary:
    """The four counts of a class, from a confusion table [..., k, k]."""
    counts = np.asarray(table)
    if not 0 <= label < counts.shape[-1]:
        raise InputError(f"label = {label}: must lie in 0..{counts.shape[-1] - 1}")
    hits = counts[..., label, label]
    missed = counts[..., label, :].sum(-1) - hits
    wrong = counts[..., :, label].sum(-1) - hits
    return Binary(hits, missed, wrong, counts.sum((-2, -1)) - hits - missed - wrong)


def _share(of: npt.ArrayLike, beside: npt.ArrayLike) -> Floats:
    first = np.asarray(of, np.float64)
    return _quotient(first, first + np.asarray(beside, np.float64))


def _quotient(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(above, np.float64) / below)
