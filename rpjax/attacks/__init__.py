"""What an attacker learns: signals, shadow models, membership-inference attacks."""

from rpjax.attacks.attack import Asked, Attack, Exposure, run
from rpjax.attacks.baselines import CONFIDENCE, LOSS, MODIFIED_ENTROPY
from rpjax.attacks.salem import SALEM
from rpjax.attacks.shadows import Bank, ask_target, shadows

ATTACKS = {a.name: a for a in (LOSS, CONFIDENCE, MODIFIED_ENTROPY, SALEM)}

__all__ = [
    "ATTACKS",
    "CONFIDENCE",
    "LOSS",
    "MODIFIED_ENTROPY",
    "SALEM",
    "Asked",
    "Attack",
    "Bank",
    "Exposure",
    "ask_target",
    "run",
    "shadows",
]
