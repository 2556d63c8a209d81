"""Asking a trained learner: one query function for evaluation, targets and shadows."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.learners import Learner, State


@dataclass(frozen=True)
class Query:
    """How a model is asked.

    noise: True answers as it was trained, with a fresh draw for each record; False
        switches all forward noise off, which needs the weights.
    draws: answers per record, whose probabilities are averaged.
    """

    noise: bool = True
    draws: int = 1

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InputError(f"draws is {self.draws}; it must be >= 1")

    @property
    def threat(self) -> str:
        """The attacker's level: T1 one answer, T2 several, T4 the weights."""
        if not self.noise:
            return "T4"
        return "T1" if self.draws == 1 else "T2"

    def described(self, noisy: bool) -> str:
        """The query in words."""
        if not noisy:
            return "one answer per record (the net has no forward noise)"
        if not self.noise:
            return "noise switched off (weights known)"
        if self.draws == 1:
            return "one noisy answer per record"
        return f"the mean of {self.draws} noisy answers per record"


def answers(
    learner: Learner,
    state: State,
    records: Records,
    query: Query | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Float[np.ndarray, "... n k"]:
    """Log-probabilities of each record, with the learner's member axes in front.

    A record's noise comes from `seed`, the draw's number and its id, so an answer does
    not depend on which other records are asked. All batches are padded to `batch_size`,
    since compiled arithmetic may differ in the last bits between shapes: a record's
    answer is the same, bit for bit, alone and among others.
    """
    query = query or Query()
    draws = query.draws if query.noise and learner.mechanism.noisy else 1
    ask = _compiled(learner)
    key = rp_keys.domain(rp_keys.root(seed), "query")
    parts = []
    for start in range(0, len(records), batch_size):
        images, ids = _padded(records, start, batch_size)
        log_probs = [
            ask(rp_keys.at_step(key, d), state, images, ids, query.noise)
            for d in range(draws)
        ]
        mean = jax.nn.logsumexp(jnp.stack(log_probs), 0) - jnp.log(draws)
        parts.append(mean)
    joined = np.concatenate([np.asarray(part) for part in parts], axis=-2)
    return joined[..., : len(records), :]


@functools.lru_cache(maxsize=32)
def _compiled(learner: Learner) -> Callable[..., Array]:
    """One compiled program per learner, for every call of `answers`."""

    def ask(key: PRNGKey, state: State, images: Array, ids: Array, noise: bool) -> Any:
        return jax.nn.log_softmax(learner.predict(key, state, images, ids, noise))

    compiled: Callable[..., Array] = jax.jit(ask, static_argnums=4)
    return compiled


def _padded(records: Records, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    positions = np.minimum(np.arange(start, start + size), len(records) - 1)
    return records.images[positions], records.ids[positions]
