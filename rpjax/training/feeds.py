"""What drives the steps: data that lie on the devices, or data that are streamed.

Both compile once and then run steps of a block on demand. The positions of a block are
drawn on the devices, from keys and the block's number alone.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from rpjax.annotations import RootKey
from rpjax.data.records import Records
from rpjax.data.sampling import Sampler
from rpjax.learners import Learner, State
from rpjax.training import programs
from rpjax.training.clock import Clock
from rpjax.training.devices import Layout
from rpjax.training.tuning import Choice, Trial, decided

Infos = dict[str, np.ndarray]


class Feed(ABC):
    """What both have in common: the first state, and a plan of positions by block."""

    program: Any = None

    def __init__(
        self,
        learner: Learner,
        records: Records,
        table: Int[np.ndarray, "... n"],
        sampler: Sampler,
        layout: Layout,
        root: RootKey,
        clock: Clock,
    ) -> None:
        self.learner, self.sampler, self.layout = learner, sampler, layout
        self.clock, self.root_key = clock, root
        self.impl = programs.impl_of(root)
        self.root = layout.put(jax.random.key_data(root))
        self.sample = layout.put(records.images[:1])
        self.table = layout.put(table, layout.member_spec())
        counts = (table >= 0).sum(-1).astype(np.int32)
        # None, and another program, where all have as many records as the sampler
        self.own = None
        if counts.min() < sampler.records:
            self.own = layout.put(counts, layout.member_spec())
        self.block = -1

    def first_state(self) -> State:
        """The state before any step."""
        init = programs.first_state(self.learner, self.layout, self.impl)
        args = (self.root, self.sample)
        state: State = self.clock.compile(self.clock.lowered(init, *args), once=True)(
            *args
        )
        return state

    def compile(self, state: State, steps: int, known: Choice | None = None) -> Choice:
        """Decide how to compute, and compile what `steps` needs.

        state: one such as will be trained on; steps: that it is going to take.
        known: the decision, where it is made.
        """
        self._compile_plan(state)

        def compiled(lowered: Any) -> tuple[Any, float]:
            began = time.perf_counter()
            program = self.clock.compile(lowered)
            return program, time.perf_counter() - began

        trial = Trial(
            lower=lambda learner: self._lowered(learner, state),
            compile=compiled,
            seconds=lambda program, count: self._seconds(program, state, count),
        )
        pixels = math.prod(self.sample.shape[1:3])
        self.learner, self.program, choice = decided(
            self.learner, trial, steps, pixels, known
        )
        return choice

    def stopwatch(self, state: State) -> Callable[[int], float] | None:
        """Times steps of the compiled program without changing the run."""
        if self.program is None:
            return None
        return lambda steps: self._seconds(self.program, state, steps)

    @abstractmethod
    def _lowered(self, learner: Learner, state: State) -> Any:
        """The program of the steps, traced."""

    @abstractmethod
    def _seconds(self, program: Any, state: State, steps: int) -> float:
        """That so many steps take, on a copy of the state."""

    def _compile_plan(self, state: State) -> None:
        secret = self.layout.fetch(state.secret)
        keys = programs.plan_keys(
            self.sampler, self.learner.members, self.root_key, secret
        )
        impl, words = programs.impl_of(keys), jax.random.key_data(keys)
        self.words = self.layout.put(words, self.layout.member_spec())
        draw = programs.planned(self.learner, self.sampler, self.layout, impl)
        lowered = self.clock.lowered(draw, self.words, np.int32(0), self.own)
        self.draw = self.clock.compile(lowered)
        self._open(0)

    def _open(self, block: int) -> None:
        if block != self.block:
            self.plan = self.draw(self.words, np.int32(block), self.own)
            self.block = block


class Resident(Feed):
    """Records that lie on every device as bytes; many steps in one call."""

    def __init__(
        self,
        learner: Learner,
        records: Records,
        table: Int[np.ndarray, "... n"],
        sampler: Sampler,
        layout: Layout,
        root: RootKey,
        clock: Clock,
    ) -> None:
        super().__init__(learner, records, table, sampler, layout, root, clock)
        pool = layout.put((records.images, records.labels, records.ids))
        self.data = (*pool, self.table)

    def _lowered(self, learner: Learner, state: State) -> Any:
        return self.clock.lowered(
            programs.resident_steps(learner, self.layout, self.impl),
            *(self.root, state, self.data, self.plan, np.int32(0), np.int32(0)),
            donate=(1,),
        )

    def steps(
        self, state: State, block: int, start: int, count: int
    ) -> tuple[State, Infos]:
        """`count` steps of a block from step `start` on; infos (count, *members)."""
        self._open(block)
        state, info = self.program(
            self.root, state, self.data, self.plan, np.int32(start), np.int32(count)
        )
        infos = self.layout.fetch(info)
        return state, {name: value[start:][:count] for name, value in infos.items()}

    def _seconds(self, program: Any, state: State, steps: int) -> float:
        copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
        began = time.perf_counter()
        for start in range(0, steps, self.sampler.block):
            count = np.int32(min(self.sampler.block, steps - start))
            copy, _ = program(self.root, copy, self.data, self.plan, np.int32(0), count)
        jax.block_until_ready(copy)
        return time.perf_counter() - began

    def close(self) -> None:
        """Nothing is left open."""
