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
    draw: (key, number of the block) -> positions (block, capacity) and valid, likewise.
    """

    kind: Literal["shuffled", "poisson"]
    records: int
    batch_size: int
    capacity: int
    block: int
    draw: Callable[
        [PRNGKey, Int[Array, ""]],
        tuple[Int[Array, "block capacity"], Bool[Array, "block capacity"]],
    ]

    def participations(self, steps: int) -> int | None:
        """Most often that any record can enter `steps` steps; None under Poisson."""
        return -(-steps // self.block) if self.kind == "shuffled" else None


def shuffled(records: int, batch_size: int) -> Sampler:
    """Each epoch a fresh uniform order, cut into full batches; the rest sits out."""
    _check(records, batch_size)
    block = records // batch_size

    def draw(
        key: PRNGKey, epoch: Int[Array, ""]
    ) -> tuple[Int[Array, "block capacity"], Bool[Array, "block capacity"]]:
        order_key = keys.at_step(keys.domain(key, "order"), epoch)
        order = jax.random.permutation(order_key, records)[: block * batch_size]
        positions = order.reshape(block, batch_size)
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
        key: PRNGKey, number: Int[Array, ""]
    ) -> tuple[Int[Array, "block capacity"], Bool[Array, "block capacity"]]:
        sampling_key = keys.domain(key, "sampling")
        steps = number * block + jnp.arange(block)
        drawn: tuple[Array, Array] = jax.lax.map(
            lambda step: one(sampling_key, step), steps
        )
        return drawn

    return Sampler("poisson", records, batch_size, capacity, block, draw)


def _check(records: int, batch_size: int) -> None:
    if not 1 <= batch_size <= records:
        raise InputError(
            f"batch_size is {batch_size}; it must lie between 1 and the number of "
            f"training records = {records}"
        )
