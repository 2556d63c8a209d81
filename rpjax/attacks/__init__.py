"""What an attacker learns: signals, shadow models, membership-inference attacks."""

from rpjax.attacks.attack import Asked, Attack, Exposure, run
from rpjax.attacks.baselines import CONFIDENCE, LOSS, MODIFIED_ENTROPY
from rpjax.attacks.by_class import by_class
from rpjax.attacks.canaries import Planted, plant
from rpjax.attacks.label_only import correctness_lira
from rpjax.attacks.likelihood import (
    leave_one_out,
    lira,
    lira_leave_one_out,
    not_normal,
)
from rpjax.attacks.membership import Membership
from rpjax.attacks.noise_aware import (
    ensemble_lira,
    joint_lira,
    sensitivity,
    smoothed_probit,
    vector_lira,
)
from rpjax.attacks.per_record import per_record
from rpjax.attacks.questions import EIGHTEEN, Question, View, ask
from rpjax.attacks.ratio import base, difficulty_calibrated, population_quantile, rmia
from rpjax.attacks.reconstruction import invert_features, invert_gradient
from rpjax.attacks.salem import SALEM
from rpjax.attacks.shadow_models import ShadowModels, shadow_models
from rpjax.attacks.shadows import Bank, ask_target, pooled, shadows
from rpjax.attacks.suite import SUITE, Found, questions, run_suite
from rpjax.attacks.vulnerability import Exposed, effect_sizes, most_exposed
from rpjax.data.records import Records
from rpjax.training import Query, Run

ATTACKS = {a.name: a for a in (LOSS, CONFIDENCE, MODIFIED_ENTROPY, SALEM)}


def expose(
    target: Run, bank: Bank, pool: Records, query: Query | None = None, seed: int = 0
) -> dict[str, Exposure]:
    """What each attack learns of `target`, asked like the shadow models in `bank`.

    pool: the records that the bank's design counts in; query: as deployed by default.
    From eight shadow models of the "halves" protocol on, attacks that model each record
    are carried out too (`rpjax.attacks.per_record`).
    """
    query = query or Query()
    answers, own = bank.run.answers(pool, query), target.answers(pool, query)
    known = bank.pooled(answers, pool)
    asked = pooled(own, pool, bank.design.members, bank.design.non_members)
    found = {n: run(attack, known, asked, seed) for n, attack in ATTACKS.items()}
    return found | per_record(own, answers, bank, pool.labels)


__all__ = [
    "ATTACKS",
    "CONFIDENCE",
    "EIGHTEEN",
    "LOSS",
    "MODIFIED_ENTROPY",
    "SALEM",
    "SUITE",
    "Asked",
    "Attack",
    "Bank",
    "Exposed",
    "Exposure",
    "Found",
    "Membership",
    "Planted",
    "Question",
    "ShadowModels",
    "View",
    "ask",
    "ask_target",
    "base",
    "by_class",
    "correctness_lira",
    "difficulty_calibrated",
    "effect_sizes",
    "ensemble_lira",
    "expose",
    "invert_features",
    "invert_gradient",
    "joint_lira",
    "leave_one_out",
    "lira",
    "lira_leave_one_out",
    "most_exposed",
    "not_normal",
    "plant",
    "population_quantile",
    "questions",
    "rmia",
    "run",
    "run_suite",
    "sensitivity",
    "shadow_models",
    "shadows",
    "smoothed_probit",
    "vector_lira",
]
