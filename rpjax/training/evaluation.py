"""Asking a trained learner: one query function for evaluation, targets and shadows."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from rpjax import intervals
from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey, RootKey
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.learners import Learner, State
from rpjax.training import programs
from rpjax.training.devices import MEMBER, Devices, Layout, layout


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
    seed: int | Sequence[int] = 0,
    batch_size: int = 256,
    devices: Devices = None,
) -> Float[np.ndarray, "... n k"]:
    """Log-probabilities of each record, with the learner's member axes in front.

    A record's noise comes from `seed`, the draw's number and its id, so an answer does
    not depend on which other records are asked, nor on the devices. A seed for each
    member asks each as a run of its own would be asked. All batches are
    padded to `batch_size`, since compiled arithmetic may differ in the last bits
    between shapes: a record's answer is the same, bit for bit, alone and among others.
    devices: see `rpjax.training.devices.layout`.
    """
    drawn = answers_by_draw(
        *(learner, state, records, query, seed), batch_size=batch_size, devices=devices
    )
    pooled: np.ndarray = scipy.special.logsumexp(drawn, 0) - math.log(len(drawn))
    return pooled


def accuracy(
    answers: Float[np.ndarray, "... n k"], labels: np.ndarray
) -> intervals.Estimate:
    """The share of answers whose most likely class is right; exact 95 % interval."""
    hits = answers.argmax(-1) == labels
    return intervals.clopper_pearson(int(hits.sum()), hits.size)


def answers_by_draw(
    learner: Learner,
    state: State,
    records: Records,
    query: Query | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int = 256,
    devices: Devices = None,
    first: int = 0,
) -> Float[np.ndarray, "draws ... n k"]:
    """As `answers`, with each draw of the noise for itself; one where there is none.

    first: number of the first draw, for draws that are to be independent of others.
    """
    query = query or Query()
    draws = query.draws if query.noise and learner.mechanism.noisy else 1
    where = layout(devices, learner.members, 0)
    slots = -(-batch_size // where.data) * where.data
    roots = rp_keys.roots(seed)
    impl = programs.impl_of(roots)
    ask = _compiled(learner, where, query.noise, impl)
    words = [
        where.put(jax.random.key_data(_drawing(roots, draw)))
        for draw in range(first, first + draws)
    ]
    state = _placed(state, where)
    parts = []
    for batch in _batches(records, slots):
        asked = where.put(batch, P(where.axis))
        parts.append(np.stack([where.fetch(ask(w, state, *asked)) for w in words]))
    joined = np.concatenate(parts, axis=-2)
    return joined[..., : len(records), :]


def _drawing(roots: RootKey, draw: int) -> RootKey:
    """The key of one draw: of one root key, or of each member's."""

    def one(root: PRNGKey) -> PRNGKey:
        return rp_keys.at_step(rp_keys.domain(root, "query"), draw)

    return jax.vmap(one)(roots) if roots.ndim else one(roots)


def _placed(state: State, where: Layout) -> State:
    """The state where the program wants it, whatever trained it."""
    leaves = jax.tree.leaves(state)
    if where.mesh is None:
        spread = any(
            isinstance(leaf, jax.Array) and len(leaf.devices()) > 1 for leaf in leaves
        )
        state = where.put(jax.device_get(state)) if spread else state
    else:
        state = where.put(where.fetch(state), where.member_spec())
    return state


@functools.lru_cache(maxsize=32)
def _compiled(
    learner: Learner, where: Layout, noise: bool, impl: str
) -> Callable[..., Array]:
    """One compiled program per learner, for every call of `answers`."""

    def logits(words: Array, state: State, images: Array, ids: Array) -> Array:
        local, key = where.local(learner), programs.root_of(words, impl, where)
        answer = local.predict(key, state, images, ids, noise)
        return jnp.moveaxis(answer, -2, 0)  # records first, whatever members follow

    member = where.member_spec()
    split = where.members > 1
    records = P(where.axis)
    out = P(where.axis, MEMBER) if split else records
    mapped = where.mapped(logits, (P(), member, records, records), out)

    def ask(words: Array, state: State, images: Array, ids: Array) -> Array:
        answer = jnp.moveaxis(mapped(words, state, images, ids), 0, -2)
        if split and learner.combine is not None:
            answer = learner.combine(answer)
        return jax.nn.log_softmax(answer)

    compiled: Callable[..., Array] = jax.jit(ask)
    return compiled


def _batches(records: Records, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All images with their ids, padded to `size`; the next are read ahead."""

    def padded(start: int) -> tuple[np.ndarray, np.ndarray]:
        positions = np.minimum(np.arange(start, start + size), len(records) - 1)
        return records.images[positions], records.ids[positions]

    starts = list(range(0, len(records), size))
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(padded, 0)
        for start in starts[1:]:
            batch, ahead = ahead.result(), thread.submit(padded, start)
            yield batch
        yield ahead.result()
