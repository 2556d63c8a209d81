"""Attacks on one target with a model of each single record: with shadow models enough.

The shadow models of the "halves" protocol know the target's pool, and have each record
in about half of them. From eight on, a record's own scores IN and OUT say more than a
threshold for all records can.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from rpjax.attacks import signals
from rpjax.attacks.attack import Exposure, best_threshold
from rpjax.attacks.likelihood import ArrayAttack, leave_one_out, lira
from rpjax.attacks.ratio import base, difficulty_calibrated
from rpjax.attacks.shadows import Bank

LEAST_SHADOWS = 8
# models that a record must be in, and out of, with any one of them left out
LEAST_OF_A_SIDE = 2


def usable(bank: Bank) -> bool:
    """Whether the bank has shadow models enough, with and without every record."""
    if bank.design.protocol != "halves":
        return False
    models = len(bank.design.shadow_members)
    inside = coins(bank, int(bank.design.shadow_members.max(initial=0)) + 1).sum(0)
    least = min(inside.min(), (models - inside).min())
    return bool(models >= LEAST_SHADOWS and least > LEAST_OF_A_SIDE)


def coins(bank: Bank, records: int) -> Bool[np.ndarray, "shadows records"]:
    """Which shadow model had which record."""
    members = bank.design.shadow_members
    table = np.zeros((len(members), records), bool)
    np.put_along_axis(table, members, True, 1)
    return table


def per_record(
    own: Float[np.ndarray, "n k"],
    known: Float[np.ndarray, "shadows n k"],
    bank: Bank,
    labels: Int[np.ndarray, " n"],
) -> dict[str, Exposure]:
    """LiRA, BASE and difficulty calibration, by name; nothing from too few models.

    Thresholds are those that are best on the shadow models, each attacked with the
    others.

    own, known: log-probabilities of the target and of the bank's models, about the
        whole pool. labels: of the pool.
    """
    if not usable(bank):
        return {}
    inside = coins(bank, len(labels))
    attacks: dict[str, tuple[str, signals.Signal, ArrayAttack]] = {
        "lira": ("LiRA (Carlini et al.)", signals.logit, lira),
        "base": ("BASE / RMIA", signals.loss, base),
        "calibrated": (
            "Difficulty-calibrated (Watson et al.)",
            signals.logit,
            difficulty_calibrated,
        ),
    }
    found = {}
    for name, (label, signal, attack) in attacks.items():
        seen = np.stack([signal(model, labels) for model in known])[..., None]
        scores = attack(seen, inside, signal(own, labels)[None, :, None])[0]
        tuned = leave_one_out(attack, seen, inside)
        found[name] = Exposure(
            name=name,
            label=label,
            member_scores=scores[bank.design.members],
            non_member_scores=scores[bank.design.non_members],
            threshold=best_threshold(tuned.ravel(), inside.ravel()),
        )
    return found
