"""LiRA on nets that were trained on imbalanced halves: its AUC for each class.

Every model has half of each class of the pool, so that all have the counts of the
classes that the losses know. Shadow models come in pairs, one half and its complement:
each record is in half of them.
"""

from typing import Any

import numpy as np

import rpjax as rp
from benchmarks.benchmark import Row
from rpjax import resampling
from rpjax.attacks import signals
from rpjax.attacks.likelihood import lira
from rpjax.data.imbalance import with_counts
from rpjax.data.records import Records
from rpjax.learners import Learner

# of a frequent class: more say little more and take long to draw again and again
SCORED = 400
OFFSET = 1_000_003


def pool(train: Records, counts: tuple[int, ...], seed: int) -> Records:
    """Twice as many records of each class as a model is trained on."""
    return with_counts(train.labels, [2 * c for c in counts], seed).take(train)


def by_class(
    learner: Learner,
    records: Records,
    classes: int,
    shadows: int,
    *,
    targets: int,
    seed: int,
    average: float | None,
    **options: Any,
) -> Row:
    """AUC of each class, of the frequent half of the classes and of the rare one.

    Shadow models alone make the attack; targets alone are attacked.
    """
    rng = np.random.default_rng(seed + OFFSET)
    coins = _coins(rng, records.labels, shadows, targets)
    lists = np.stack([np.flatnonzero(own) for own in coins])
    many = rp.side_by_side(learner, len(coins), mapping="vmap")
    drawn = {"seed": seed + OFFSET, "noise_seed": "fixed"}
    run = rp.fit(many, records, lists=lists, **drawn, **options)
    if average is not None:
        run = run.averaged(average)
    chosen = np.concatenate(
        [np.flatnonzero(records.labels == c)[:SCORED] for c in range(classes)]
    )
    asked, coins = records.take(chosen), coins[:, chosen]
    seen = np.stack([signals.logit(own, asked.labels) for own in run.answers(asked)])
    scores = lira(seen[:shadows], coins[:shadows], seen[shadows:])
    inside = coins[shadows:]

    def area(which: np.ndarray) -> Row:
        found = resampling.auc(scores[:, which], inside[:, which], replicates=400)
        return {"value": found.value, "low": found.low, "high": found.high}

    rare = asked.labels >= classes // 2
    return {
        "shadows": shadows,
        "targets": targets,
        "auc": [area(asked.labels == c) for c in range(classes)],
        "frequent": area(~rare),
        "rare": area(rare),
    }


def _coins(
    rng: np.random.Generator, labels: np.ndarray, shadows: int, targets: int
) -> np.ndarray:
    """Who trains whom, (shadows + targets, records)."""

    def half() -> np.ndarray:
        own = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            where = rng.permutation(np.flatnonzero(labels == label))
            own[where[: len(where) // 2]] = True
        return own

    first = [half() for _ in range(shadows // 2)]
    return np.stack(first + [~own for own in first] + [half() for _ in range(targets)])
