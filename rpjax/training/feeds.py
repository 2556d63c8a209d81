"""What drives the steps: data that lie on the devices, or data that are streamed.

Both compile once and then run steps of a block on demand. The positions of a block are
drawn on the devices, from keys and the block's number alone.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from rpjax.annotations import PRNGKey
from rpjax.data.records import Records
from rpjax.data.sampling import Sampler
from rpjax.learners import Learner, State
from rpjax.training import programs
from rpjax.training.clock import Clock
from rpjax.training.devices import Layout

Infos = dict[str, np.ndarray]


class Feed:
    """What both have in common: the first state, and a plan of positions by block."""

    program: Any = None

    def __init__(
        self,
        learner: Learner,
        records: Records,
        table: Int[np.ndarray, "... n"],
        sampler: Sampler,
        layout: Layout,
        root: PRNGKey,
        clock: Clock,
    ) -> None:
        self.learner, self.sampler, self.layout = learner, sampler, layout
        self.clock, self.root_key = clock, root
        self.impl = programs.impl_of(root)
        self.root = layout.put(jax.random.key_data(root))
        self.sample = layout.put(records.images[:1])
        self.table = layout.put(table, layout.member_spec())
        self.block = -1

    def first_state(self) -> State:
        """The state before any step."""
        init = programs.first_state(self.learner, self.layout, self.impl)
        args = (self.root, self.sample)
        state: State = self.clock.compiled(init, *args, once=True)(*args)
        return state

    def _compile_plan(self, state: State) -> None:
        secret = self.layout.fetch(state.secret)
        keys = programs.plan_keys(
            self.sampler, self.learner.members, self.root_key, secret
        )
        impl, words = programs.impl_of(keys), jax.random.key_data(keys)
        self.words = self.layout.put(words, self.layout.member_spec())
        self.draw = self.clock.compiled(
            programs.planned(self.learner, self.sampler, self.layout, impl),
            *(self.words, np.int32(0)),
        )
        self._open(0)

    def _open(self, block: int) -> None:
        if block != self.block:
            self.plan, self.block = self.draw(self.words, np.int32(block)), block


class Resident(Feed):
    """Records that lie on every device as bytes; many steps in one call."""

    def __init__(
        self,
        learner: Learner,
        records: Records,
        table: Int[np.ndarray, "... n"],
        sampler: Sampler,
        layout: Layout,
        root: PRNGKey,
        clock: Clock,
    ) -> None:
        super().__init__(learner, records, table, sampler, layout, root, clock)
        pool = layout.put((records.images, records.labels, records.ids))
        self.data = (*pool, self.table)

    def compile(self, state: State) -> None:
        """Compile what `steps` needs, for states such as this one."""
        self._compile_plan(state)
        self.program = self.clock.compiled(
            programs.resident_steps(self.learner, self.layout, self.impl),
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

    def stopwatch(self, state: State) -> Callable[[int], float] | None:
        """Times steps of the compiled program without changing the run."""
        if self.program is None:
            return None

        def seconds(steps: int) -> float:
            copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
            steps = min(steps, self.sampler.block)
            began = time.perf_counter()
            after = self.program(
                self.root, copy, self.data, self.plan, np.int32(0), np.int32(steps)
            )
            jax.block_until_ready(after)
            return time.perf_counter() - began

        return seconds

    def close(self) -> None:
        """Nothing is left open."""
