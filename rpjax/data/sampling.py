"""Which records a step sees: pure functions of a key and a counter, on the device.

A sampler draws the positions of a whole block of steps at once (an epoch of a shuffled
order, some dozens of Poisson batches), so that the training loop never sorts or waits.
Every block depends on its number alone: a run can resume anywhere.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rpjax import keys
from rpjax.annotations import PRNGKey
from rpjax.errors import InputError


class Sampler(NamedTuple):
    """A named way to draw batches of fixed shape.

    kind: "shuffled" or "poisson"; an accountant must know which.
    records, batch_size: the population, and the expected size of a batch.
    capacity: slots in a batch; unused ones are marked invalid.
    block: steps in one block.
    draw: (key, number of the block, own) -> positions (block, capacity) and valid,
        likewise. own: how many records a member has, where members differ: it draws
        from the first so many positions, and its batches do not depend on how many the
        others have. Left out, it has all.
    """

    kind: Literal["shuffled", "poisson"]
    records: int
    batch_size: int
    capacity: int
    block: int
    draw: Callable[
        [PRNGKey, Int[Array, ""], Int[Array, ""] | None],
        tuple[Int[Array, "block capacity"], Bool[Array, "block capacity"]],
    ]

    def participations(self, steps: int) -> int | None:
        """Most often that any record can enter `steps` steps; None under Poisson."""
        return -(-steps // self.block) if self.kind == "shuffled" else None


def shuffled(records: int, batch_size: int, least: int | None = None) -> Sampler:
    """Each epoch a fresh uniform order, cut into full batches; the rest sits out.

    least: records of the member that has fewest, where they differ. Then nobody sits
        out: a member's epochs follow each other without a gap, each of its own length,
        and a block is as many steps as the shortest takes.
    """
    least = records if least is None else least
    _check(least, batch_size)
    block = least // batch_size

    def order(
        key: PRNGKey, epoch: Int[Array, ""], own: Int[Array, ""] | None
    ) -> Int[Array, " records"]:
        drawn = jax.random.permutation(
            keys.at_step(keys.domain(key, "order"), epoch), records
        )
        # those of one's own first, in the same order
        return drawn if own is None else drawn[jnp.argsort(drawn >= own, stable=True)]

    def draw(
        key: PRNGKey, epoch: Int[Array, ""], own: Int[Array, ""] | None = None
    ) -> tuple[Int[Array, "block capacity"], Bool[Array, "block capacity"]]:
        if own is None:
            positions = order(key, epoch, None)[: block * batch_size]
        else:
            # no block is longer than anybody's epoch, so it meets two at most
            place = epoch * block * batch_size + jnp.arange(block * batch_size)
            first = place[0] // own
            two = jnp.stack([order(key, first + i, own) for i in range(2)])
            positions = two[place // own - first, place % own]
        positions = positions.reshape(block, batch_size)
        return positions, jnp.ones(positions.shape, bool)

    return Sampler("shuffled", records, batch_size, batch_size, block, draw)


def poisson(records: int, batch_size: int, capacity: int, block: int = 32) -> Sampler:
    """Each record enters each step by its own coin of bias batch_size / records.

    A batch holds `capacity` slots. Should more records come up, a uniformly random
    subset of that size stays: the slots go to the smallest of independent uniforms,
    which are exchangeable given that they lie below the probability. An accountant
    must be told of the truncation (`rpjax.privacy.dpsgd`).
    """
    _check(records, batch_size)
    if capacity < batch_size:
        raise InputError(
            f"capacity is {capacity}; it must be >= batch_size = {batch_size}"
        )
    probability = batch_size / records

    def one(
        key: PRNGKey, step: Int[Array, ""]
    ) -> tuple[Int[Array, " capacity"], Bool[Array, " capacity"]]:
        coins = jax.random.uniform(keys.at_step(key, step), (records,))
        never = jnp.full(max(0, capacity - records), 2.0)
        coins = jnp.concatenate([coins, never])  # more slots than records: left empty
        negated, positions = jax.lax.top_k(-coins, capacity)
        return jnp.minimum(positions, records - 1), -negated < probability

    def draw(
        key: PRNGKey, number: Int[Array, ""], own: Int[Array, ""] | None = None
    ) -> tuple[Int[Array, "block capacity"], Bool[Array, "block capacity"]]:
        sampling_key = keys.domain(key, "sampling")
        steps = number * block + jnp.arange(block)
        positions, valid = jax.lax.map(lambda step: one(sampling_key, step), steps)
        return positions, valid if own is None else valid & (positions < own)

    return Sampler("poisson", records, batch_size, capacity, block, draw)


def _check(records: int, batch_size: int) -> None:
    if not 1 <= batch_size <= records:
        raise InputError(
            f"batch_size is {batch_size}; it must lie between 1 and the number of "
            f"training records = {records}"
        )
