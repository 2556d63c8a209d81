"""What an attack is: from answers on known and unknown records to scores.

An attack sees the answers of the shadow models with their true membership and the
answers of the target without. It gives each of the target's records a score, and a
threshold that was fixed on the shadow models.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rpjax import intervals

CONFIDENCE = 0.95
FALSE_POSITIVE_RATES = (0.01,)
CORNERS, FIRST_CORNERS = 200, 60


class Asked(NamedTuple):
    """The answers of one model, or of several pooled.

    log_probs: (n, k); labels: (n,); member: (n,), True for training records.
    """

    log_probs: Float[np.ndarray, "n k"]
    labels: Int[np.ndarray, " n"]
    member: Bool[np.ndarray, " n"]


class Attack(NamedTuple):
    """A named attack.

    score: (shadow answers or None, target's answers, seed) -> the shadow models' scores
        (None without shadows) and the target's, large = member.
    """

    name: str
    label: str
    score: Callable[[Asked | None, Asked, int], tuple[np.ndarray | None, np.ndarray]]
    needs_shadows: bool


@dataclass(frozen=True)
class Exposure:
    """What one attack learned of one target.

    member_scores, non_member_scores: the target's records, large = member.
    threshold: from the shadow models, at which the attack says "member"; None without.
    """

    name: str
    label: str
    member_scores: Float[np.ndarray, " n"]
    non_member_scores: Float[np.ndarray, " o"]
    threshold: float | None

    @property
    def auc(self) -> intervals.Estimate:
        """Area under the ROC curve; 0.5 is a guess."""
        return intervals.auc(self.member_scores, self.non_member_scores, CONFIDENCE)

    @property
    def balanced_accuracy(self) -> intervals.Estimate | None:
        """At the shadow models' threshold."""
        if self.threshold is None:
            return None
        return intervals.balanced_accuracy(
            int((self.member_scores >= self.threshold).sum()),
            len(self.member_scores),
            int((self.non_member_scores < self.threshold).sum()),
            len(self.non_member_scores),
        )

    def tpr(self, fpr: float) -> intervals.OperatingPoint:
        """Share of members found at a false-positive rate of at most `fpr`."""
        return intervals.tpr_at_fpr(self.member_scores, self.non_member_scores, fpr)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values (schema of results.json)."""
        balanced = self.balanced_accuracy
        curve = intervals.roc(self.member_scores, self.non_member_scores)
        fpr, tpr = thinned(*curve)
        return {
            "name": self.name,
            "label": self.label,
            "auc": self.auc.as_dict(),
            "balanced_accuracy": None if balanced is None else balanced.as_dict(),
            "tpr_at": [self.tpr(rate).as_dict() for rate in FALSE_POSITIVE_RATES],
            "roc": {"fpr": fpr.round(6).tolist(), "tpr": tpr.round(6).tolist()},
            "threshold_from": "shadow models" if balanced else "none needed",
        }


def thinned(
    fpr: Float[np.ndarray, " v"], tpr: Float[np.ndarray, " v"]
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Some 200 corners of a ROC curve: all at low rates, then evenly on a log axis.

    Those that stay are exact; the scores, from which all can be had, are in the .npz.
    """
    if len(fpr) <= CORNERS:
        return fpr, tpr
    lowest = fpr[fpr > 0].min()
    rates = np.geomspace(lowest, 1, CORNERS - FIRST_CORNERS)
    wanted = np.searchsorted(fpr, rates, side="right") - 1
    kept = np.unique([*range(FIRST_CORNERS), *wanted, len(fpr) - 1])
    return fpr[kept], tpr[kept]


def run(attack: Attack, shadows: Asked | None, target: Asked, seed: int) -> Exposure:
    """Carry out `attack` on the target's answers."""
    if attack.needs_shadows and shadows is None:
        raise ValueError(f"the attack {attack.name!r} needs shadow models")
    known, scores = attack.score(shadows, target, seed)
    threshold = None
    if shadows is not None and known is not None:
        threshold = best_threshold(known, shadows.member)
    return Exposure(
        name=attack.name,
        label=attack.label,
        member_scores=scores[target.member],
        non_member_scores=scores[~target.member],
        threshold=threshold,
    )


def best_threshold(scores: np.ndarray, member: Bool[np.ndarray, " n"]) -> float:
    """The threshold of highest balanced accuracy, where membership is known."""
    from sklearn.metrics import roc_curve  # slow to import

    fpr, tpr, thresholds = roc_curve(member, scores, drop_intermediate=False)
    # the first is infinite and says "member" of nobody: no score can be measured by it
    return float(thresholds[1:][np.argmax((tpr - fpr)[1:])])
