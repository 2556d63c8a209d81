"""Shadow models: the target's own learner, many times side by side.

They are trained and queried by the very functions that train and query the target, each
on its own list of records and with its own keys.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rpjax.attacks.attack import Asked
from rpjax.data.membership import Design
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.learners import Learner, side_by_side
from rpjax.training import Query, Run, fit

# shadow models draw from another seed than any target, whatever seed the target has
SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class Bank:
    """Shadow models and who was in the training set of each."""

    run: Run
    design: Design

    def asked(self, pool: Records, query: Query) -> Asked:
        """The answers of all shadow models, pooled, with their true membership."""
        return self.pooled(self.run.answers(pool, query), pool)

    def pooled(self, answers: Float[np.ndarray, "shadows n k"], pool: Records) -> Asked:
        """As `asked`, from the models' answers about the whole pool."""
        parts = []
        for model, own in enumerate(answers):
            inside = self.design.shadow_members[model]
            outside = self.design.shadow_non_members[model]
            parts.append(pooled(own, pool, inside, outside))
        return Asked(*(np.concatenate(leaf) for leaf in zip(*parts, strict=True)))


def shadows(
    learner: Learner, pool: Records, design: Design, *, seed: int = 0, **options: Any
) -> Bank:
    """Train the design's shadow models; `options` are those of `rpjax.training.fit`."""
    many = side_by_side(learner, len(design.shadow_members))
    run = fit(
        many,
        pool,
        lists=design.shadow_members,
        seed=seed + SEED_OFFSET,
        **options,
    )
    return Bank(run, design)


def pooled(
    log_probs: Float[np.ndarray, "n k"],
    pool: Records,
    inside: np.ndarray,
    outside: np.ndarray,
) -> Asked:
    """One model's answers on its members, then on its non-members."""
    if np.isnan(log_probs).any():
        raise InputError(
            "the model's answers hold NaN, its training diverged; "
            "train it with a smaller learning rate"
        )
    where = np.concatenate([inside, outside])
    member: Bool[np.ndarray, " n"] = np.arange(len(where)) < len(inside)
    return Asked(log_probs[where], pool.labels[where], member)


def ask_target(run: Run, pool: Records, design: Design, query: Query) -> Asked:
    """The target's answers on the design's members and non-members."""
    return pooled(run.answers(pool, query), pool, design.members, design.non_members)
