"""Training on records that stay on disk: decoded ahead, put on the devices ahead.

A step's rows follow from its number alone, so that a training can go on anywhere and
sees what it would have seen with all records on the devices. Each process decodes only
the slots, and the members, that its own devices hold.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int

from rpjax.annotations import RootKey
from rpjax.data.sampling import Sampler
from rpjax.data.stored import LEFT_EMPTY, StoredImages, StoredRecords
from rpjax.data.streaming import Stream, Workers
from rpjax.learners import Learner, State
from rpjax.training import programs
from rpjax.training.clock import Clock
from rpjax.training.devices import Layout
from rpjax.training.feeds import Feed, Infos
from rpjax.training.tuning import Choice

# One stream of batches serves so many steps, whose rows are in memory at once; the next
# is begun so many steps before the last one ends.
SPAN, AHEAD = 1024, 64

Place = tuple[int, ...]
"""Where a device's part begins: the first of its members, and its first slot."""


class Streamed(Feed):
    """Records that are decoded as they are needed; one step in one call.

    total: steps of the whole training; workers: processes that decode, 0 for threads.
    waited: seconds that steps have waited for their images so far.
    """

    def __init__(
        self,
        learner: Learner,
        records: StoredRecords,
        table: Int[np.ndarray, "... n"],
        sampler: Sampler,
        layout: Layout,
        root: RootKey,
        clock: Clock,
        total: int,
        workers: int = 0,
    ) -> None:
        super().__init__(learner, records, table, sampler, layout, root, clock)
        images: Any = records.images
        self.decode = _Decode(images)
        self.workers = Workers(self.decode, workers)
        self.lists, self.total = table, total
        self.tables = (*layout.put((records.labels, records.ids)), self.table)
        slots = -(-sampler.capacity // layout.data) * layout.data
        self.shape = (*learner.members, slots, *records.shape)
        self.streams: dict[int, Stream] = {}
        self.number, self.end = 0, 0
        self.ready: jax.Array | None = None
        self.waited = 0.0

    def compile(self, state: State, steps: int, known: Choice | None = None) -> Choice:
        """As in `Feed`, and begin to decode what the steps will need first."""
        choice = super().compile(state, steps, known)
        self._seek(int(np.asarray(self.layout.fetch(state.step)).flat[0]))
        return choice

    def _lowered(self, learner: Learner, state: State) -> Any:
        images = jax.ShapeDtypeStruct(self.shape, np.uint8, sharding=self._sharding())
        return self.clock.lowered(
            programs.streamed_step(learner, self.layout, self.impl),
            *(self.root, state, images, self.tables, self.plan, np.int32(0)),
            donate=(1,),
        )

    def steps(
        self, state: State, block: int, start: int, count: int
    ) -> tuple[State, Infos]:
        """`count` steps of a block from step `start` on; infos (count, *members)."""
        self._open(block)
        if self.number != block * self.sampler.block + start:
            self._seek(block * self.sampler.block + start)
        infos: list[dict[str, jax.Array]] = []
        for step in range(start, start + count):
            images = self._put(self._next()) if self.ready is None else self.ready
            state, info = self.program(
                self.root, state, images, self.tables, self.plan, np.int32(step)
            )
            infos.append(info)
            self.number += 1
            # the device computes; its next images are put beside those that it reads
            self.ready = self._put(self._next()) if self.number < self.total else None
            jax.block_until_ready(infos[-2:-1])  # and no more than those
        fetched = self.layout.fetch(infos)
        return state, {k: np.stack([i[k] for i in fetched]) for k in fetched[0]}

    def _seconds(self, program: Any, state: State, steps: int) -> float:
        # the images are there already: how long they take is another question
        self._open(0)
        (rows,) = self._rows(0, 1)
        images = jax.block_until_ready(self._put(self.decode(rows)))
        copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
        began = time.perf_counter()
        for _ in range(steps):
            copy, _ = program(
                self.root, copy, images, self.tables, self.plan, np.int32(0)
            )
        jax.block_until_ready(copy)
        return time.perf_counter() - began

    def close(self) -> None:
        """End all workers."""
        self._close_streams()
        self.workers.close()

    def _close_streams(self) -> None:
        for begin in list(self.streams):
            self.streams.pop(begin).close()

    def _seek(self, number: int) -> None:
        """Make step `number` the next one."""
        self._close_streams()
        self.number, self.end, self.ready = number, number, None
        self._stream_on()

    def _stream_on(self) -> None:
        """Begin the next stream, if the steps are about to need it.

        When that is depends on the number of the step alone: all processes draw their
        plans together.
        """
        if self.end < self.total and self.number + AHEAD >= self.end:
            begin, self.end = self.end, min(self.end + SPAN, self.total)
            self.streams[begin] = self.workers.stream(self._rows(begin, self.end))

    def _next(self) -> dict[Place, np.ndarray]:
        """The images of the next step that has none yet, for this process's devices."""
        self._stream_on()
        begin = min(self.streams)
        began = time.perf_counter()
        try:
            parts: dict[Place, np.ndarray] = next(self.streams[begin])
        except StopIteration:
            self.streams.pop(begin).close()
            parts = next(self.streams[min(self.streams)])
        self.waited += time.perf_counter() - began
        return parts

    def _put(self, parts: dict[Place, np.ndarray]) -> jax.Array:
        """One step's images on the devices; the transfer goes on by itself."""
        sharding, axes = self._sharding(), len(self.learner.members) + 1
        if sharding is None:
            (images,) = parts.values()
            return jax.device_put(images)
        return jax.make_array_from_callback(
            self.shape, sharding, lambda index: parts[_place(index, axes)]
        )

    def _sharding(self) -> NamedSharding | None:
        if self.layout.mesh is None:
            return None
        return NamedSharding(self.layout.mesh, self.layout.batch_spec(self.learner))

    def _rows(self, begin: int, end: int) -> list[dict[Place, np.ndarray]]:
        """Of each step, the rows that each of this process's devices needs."""
        rows: list[dict[Place, np.ndarray]] = []
        while begin < end:
            block, start = divmod(begin, self.sampler.block)
            stop = min(self.sampler.block, start + end - begin)
            positions, valid = self.draw(self.words, np.int32(block), self.own)
            parts = local_rows(positions, valid, self.lists)
            rows += [
                {place: part[step] for place, part in parts.items()}
                for step in range(start, stop)
            ]
            begin += stop - start
        return rows


class _Decode:
    """(rows by part) -> images by part; sent to worker processes."""

    def __init__(self, images: StoredImages) -> None:
        self.images = images

    def __call__(self, rows: dict[Place, np.ndarray]) -> dict[Place, np.ndarray]:
        return {place: self.images.batch(part) for place, part in rows.items()}


def local_rows(
    positions: jax.Array,
    valid: jax.Array,
    lists: Int[np.ndarray, "... n"],
    devices: Sequence[jax.Device] | None = None,
) -> dict[Place, Int[np.ndarray, "block ..."]]:
    """A block's rows for those slots that some devices hold, by where they begin.

    positions, valid: the plan, (block, *members, slots); lists: each member's own rows.
    A slot that is not valid is `LEFT_EMPTY`: nobody decodes anything for it.
    devices: this process's own, if None.
    """
    own: dict[Place, Int[np.ndarray, "block ..."]] = {}
    for where, used in zip(
        positions.addressable_shards, valid.addressable_shards, strict=True
    ):
        if devices is not None and where.device not in devices:
            continue
        members = lists[where.index[1:-1]][None]
        rows = np.take_along_axis(members, np.asarray(where.data), -1)
        index = where.index[1:]
        own[_place(index, len(index))] = np.where(used.data, rows, LEFT_EMPTY)
    return own


def _place(index: tuple[slice, ...], axes: int) -> Place:
    return tuple(part.start or 0 for part in index[:axes])
