"""Poisson batches for a training loop of one's own: indices, and which are padding.

The drawing is that of `rpjax.data.sampling.poisson`, and the shape of a batch is always
the same: a step compiles once. An empty slot is -1.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from rpjax import keys
from rpjax.data import sampling
from rpjax.errors import InputError
from rpjax.privacy import dpsgd as accounting

# most that one Poisson batch may outgrow its slots; it is paid for out of delta
OVERFLOW = 1e-20

Randomness = UInt32[Any, " 8"] | int | np.integer | np.random.Generator | None


@dataclass(frozen=True)
class PoissonBatches:
    """Each record enters each batch by its own coin of bias batch_size / records.

    records: number of training records.
    batch_size: expected size of a batch, by which a noisy sum is divided.
    steps: batches in all; empty ones are batches too.
    capacity: slots in a batch. Records beyond it are left out, uniformly at random,
        which `event` accounts for. None is as many slots as a batch outgrows with a
        probability of 1e-20 at most.

    Whose coin fell how is secret: a batch's indices, and the number of them, are as
    private as the records.

    >>> batches = PoissonBatches(records=1_000, batch_size=4, steps=2, capacity=8)
    >>> for indices in batches.batch_iterator(1_000, rng=0):
    ...     print(indices, is_padding_example(indices).sum())
    [ 61 273 753 798 767  -1  -1  -1] 3
    [209 496 289 143  -1  -1  -1  -1] 4
    """

    records: int
    batch_size: int
    steps: int
    capacity: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; it must be >= 1")
        _drawing(self.records, self.batch_size, self.slots)

    @property
    def sampling_probability(self) -> float:
        """Of each record in each step."""
        return self.batch_size / self.records

    @property
    def truncation(self) -> accounting.Truncation:
        """How batches are cut, for `rpjax.privacy.dpsgd`."""
        return accounting.Truncation(self.records, self.slots)

    def event(self, noise_multiplier: float) -> Any:
        """All steps as a `dp_accounting.DpEvent`, for any accountant that knows it.

        noise_multiplier: deviation of the noise on a batch's clipped sum, over the l2
            sensitivity of that sum under adding or removing a record.

        With the slots left open it is of Poisson steps, whose accountants leave out a
        steps (1 + e^epsilon) 1e-20 of delta. With a capacity below the number of
        records it is of truncated steps, for privacy loss distributions alone, and of a
        data set of `records`: to add or remove one is to change that number, for which
        `rpjax.privacy.dpsgd.epsilon` takes the worse of the two.
        """
        cut = self.capacity is not None and self.capacity < self.records
        return accounting.event(
            noise_multiplier,
            self.sampling_probability,
            self.steps,
            truncation=self.truncation if cut else None,
        )

    @property
    def slots(self) -> int:
        """Length of every batch of indices."""
        if self.capacity is not None:
            return self.capacity
        return poisson_slots(self.records, self.batch_size)

    def batch_iterator(
        self,
        num_examples: int,
        rng: Randomness = None,
        start: int = 0,
    ) -> Iterator[Int[np.ndarray, " slots"]]:
        """Yields the positions (slots,) of each step's records, padded with -1.

        num_examples: must be `records`; from it the probability is known.
        rng: 256 secret bits, from which the coins follow; None has the operating system
            draw them. A seed or a NumPy generator, from which bits are drawn, repeats a
            run, and amplifies privacy no further than it is unpredictable.
        start: the step to begin with. With the same bits a resumed run draws what one
            that was never stopped would have, and what `rpjax.fit` draws for them.

        Padding comes last, so microbatches of nothing but padding can be left out.
        """
        if num_examples != self.records:
            raise InputError(
                f"num_examples is {num_examples}; these batches are drawn from "
                f"records = {self.records}"
            )
        secret = jnp.asarray(secret_bits(rng))
        return self._from(keys.from_secret(secret), start)

    def _from(self, key: Array, start: int) -> Iterator[Int[np.ndarray, " slots"]]:
        block, draw = _drawing(self.records, self.batch_size, self.slots)
        for number in range(start // block, -(-self.steps // block)):
            positions, valid = (np.asarray(leaf) for leaf in draw(key, number))
            first = max(start - number * block, 0)
            padded = np.where(valid, positions, -1)
            yield from padded[first : self.steps - number * block]


def is_padding_example(indices: Int[Any, "..."]) -> Bool[Any, "..."]:
    """Which slots of a batch of indices are empty: an argument of `clipped_grad`."""
    return indices < 0


def padded(
    indices: Int[np.ndarray, " n"], capacity: int
) -> Int[np.ndarray, " capacity"]:
    """Another sampler's batch of any size as one of `capacity` slots, -1 in the rest.

    Raises:
        InputError: more indices than slots. To cut them here would be cutting by order,
            which no accountant knows: have the sampler cut at random.
    """
    if len(indices) > capacity:
        raise InputError(
            f"capacity is {capacity}, but the batch has {len(indices)} records; it "
            "must hold them all, or the sampler cut batches at random"
        )
    empty = np.full(capacity - len(indices), -1, np.int32)
    return np.concatenate([indices.astype(np.int32), empty])


def poisson_slots(records: int, batch_size: int) -> int:
    """Slots that a Poisson batch outgrows with probability `OVERFLOW` at most."""
    # one record more, so that the overflow is bounded for either neighbour
    slots = accounting.capacity(records + 1, batch_size / records, OVERFLOW)
    return -(-slots // 8) * 8


def secret_bits(rng: Randomness) -> UInt32[Any, " 8"]:
    """256 bits from the operating system, a seed, or a generator; or those given."""
    if rng is None:
        return keys.fresh_secret()
    if isinstance(rng, int | np.integer):
        return keys.fixed_secret(keys.root(int(rng)))
    if isinstance(rng, np.random.Generator):
        return rng.integers(0, 2**32, 8, np.uint32)
    if np.shape(rng) != (8,):
        raise InputError(
            f"rng has shape {np.shape(rng)}; secret bits are 8 words of 32 bits"
        )
    return rng


@functools.lru_cache(maxsize=8)
def _drawing(
    records: int, batch_size: int, slots: int
) -> tuple[int, Callable[..., Any]]:
    """Steps in a block, and (key, number of a block) -> its positions and valid."""
    sampler = sampling.poisson(records, batch_size, slots)
    return sampler.block, jax.jit(sampler.draw)
