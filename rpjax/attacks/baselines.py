"""Threshold attacks on one number per record."""

import numpy as np

from rpjax.attacks import signals
from rpjax.attacks.attack import Asked, Attack, best_threshold

Signal = signals.Scores


def _threshold_attack(name: str, label: str) -> Attack:
    """The signal itself; the shadow models only set the threshold."""
    signal = getattr(signals, name)

    def score(
        shadows: Asked | None, target: Asked, seed: int
    ) -> tuple[np.ndarray | None, np.ndarray]:
        known = None if shadows is None else signal(shadows.log_probs, shadows.labels)
        return known, signal(target.log_probs, target.labels)

    return Attack(name, label, score, needs_shadows=False)


def _per_class(
    shadows: Asked | None, target: Asked, seed: int
) -> tuple[np.ndarray | None, np.ndarray]:
    """Modified entropy relative to its class's threshold on the shadow models."""
    assert shadows is not None
    known = signals.modified_entropy(shadows.log_probs, shadows.labels)
    scores = signals.modified_entropy(target.log_probs, target.labels)
    overall = best_threshold(known, shadows.member)
    thresholds = np.full(target.log_probs.shape[1], overall)
    for label in np.unique(shadows.labels):
        own = shadows.labels == label
        if shadows.member[own].any() and not shadows.member[own].all():
            thresholds[label] = best_threshold(known[own], shadows.member[own])
    return known - thresholds[shadows.labels], scores - thresholds[target.labels]


LOSS = _threshold_attack("loss", "Loss threshold (Yeom et al.)")
CONFIDENCE = _threshold_attack("confidence", "Confidence (largest posterior)")
MODIFIED_ENTROPY = Attack(
    "modified_entropy",
    "Modified entropy per class (Song and Mittal)",
    _per_class,
    needs_shadows=True,
)
