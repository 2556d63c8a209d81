"""What a training will ask of its devices, from shapes alone.

The program is the one that `fit` compiles, for arrays that need not be there: a plan
for a million images takes none of them.
"""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rpjax import keys as rp_keys
from rpjax.annotations import PyTree
from rpjax.data.sampling import Sampler
from rpjax.learners import Batch, Learner, State
from rpjax.training import programs
from rpjax.training.clock import peak
from rpjax.training.devices import Layout
from rpjax.training.tuning import candidates

Shape = tuple[int, int, int]

# records in the two programs whose operations are counted
FEW, MORE = 2, 4
# the convolution that is timed: (images, height, width, channels), and seconds for it
TIMED = (32, 28, 28, 64)
TIMED_SECONDS = 0.2


class Memory(NamedTuple):
    """Bytes on one device, of a compiled program.

    arguments: parameters, the optimiser's state and the data among them.
    temporaries: what a step holds in between. peak: all of it, shared memory once.
    """

    arguments: int
    temporaries: int
    peak: int


class Operations(NamedTuple):
    """Floating-point operations of a step: those of each record, and the rest."""

    per_record: float
    fixed: float

    def of(self, records: float) -> float:
        """Of a step on so many records."""
        return self.fixed + self.per_record * records


def as_fitted(learner: Learner, shape: Shape) -> Learner:
    """The learner as `fit` computes it on this device before it has measured."""
    return learner.computed(candidates(learner, math.prod(shape[:2]))[0])


def first_state(learner: Learner, layout: Layout, shape: Shape) -> State:
    """Shapes of the state, where they lie on the devices."""
    root = rp_keys.root(0)
    words = jax.random.key_data(root)
    init = programs.first_state(learner, layout, programs.impl_of(root))
    image = jax.ShapeDtypeStruct((1, *shape), np.uint8)
    state = jax.eval_shape(init, words, image)
    placed: State = _placed(state, layout, layout.member_spec())
    return placed


def memory(
    learner: Learner,
    sampler: Sampler,
    layout: Layout,
    records: int,
    shape: Shape,
    stored: bool,
) -> Memory:
    """Of the program of the steps, compiled for the devices that are here.

    stored: images are put on the devices step by step, and not all at once. The images
        of the step after are there already, which is not counted.
    """
    root = rp_keys.root(0)
    impl = programs.impl_of(root)
    state = first_state(learner, layout, shape)
    words = _placed(_like(jax.random.key_data(root)), layout, P())
    secret = np.zeros((*learner.members, 8), np.uint32)
    keys = programs.plan_keys(sampler, learner.members, root, secret)
    plan = _plan(learner, sampler, layout, programs.impl_of(keys))
    member = layout.member_spec()
    table = _array(layout, member, (*learner.members, sampler.records), np.int32)
    numbers = _array(layout, P(), (records,), np.int32)
    if stored:
        slots = -(-sampler.capacity // layout.data) * layout.data
        images = (*learner.members, slots, *shape)
        batch = _array(layout, layout.batch_spec(learner), images, np.uint8)
        function = programs.streamed_step(learner, layout, impl)
        rest: tuple[Any, ...] = (batch, (numbers, numbers, table), plan, np.int32(0))
    else:
        pool = _array(layout, P(), (records, *shape), np.uint8)
        function = programs.resident_steps(learner, layout, impl)
        data = (pool, numbers, numbers, table)
        rest = (data, plan, np.int32(0), np.int32(0))
    lowered = jax.jit(function, donate_argnums=(1,)).lower(words, state, *rest)
    found = lowered.compile().memory_analysis()
    return Memory(
        int(found.argument_size_in_bytes), int(found.temp_size_in_bytes), peak(found)
    )


def operations(learner: Learner, shape: Shape) -> Operations:
    """Of a step of a learner without members, as its program is written.

    From two programs, of few records each, that are traced and not compiled.
    """
    state = first_state(learner, Layout(), shape)
    few, more = (_counted(learner, state, shape, count) for count in (FEW, MORE))
    each = (more - few) / (MORE - FEW)
    return Operations(each, max(0.0, few - FEW * each))


def _counted(learner: Learner, state: State, shape: Shape, count: int) -> float:
    numbers = jax.ShapeDtypeStruct((count,), np.int32)
    batch = Batch(
        jax.ShapeDtypeStruct((count, *shape), np.uint8),
        *(numbers, numbers, jax.ShapeDtypeStruct((count,), bool)),
    )
    lowered = jax.jit(learner.step).lower(rp_keys.root(0), state, batch)
    return float(lowered.cost_analysis()["flops"])


def operations_per_second(dtype: Any = jnp.float32) -> float:
    """Floating-point operations a second of a 3 x 3 convolution on one device here."""
    *_, channels = TIMED
    each = 2 * math.prod(TIMED) * channels * 9
    x = jnp.ones(TIMED, dtype)
    w = jnp.ones((3, 3, channels, channels), dtype) / (9 * channels)

    @jax.jit
    def some(x: jax.Array, times: jax.Array) -> jax.Array:
        one = lambda _, x: jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.lax.fori_loop(0, times, one, x)

    def seconds(times: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(some(x, np.int32(times)))
        return time.perf_counter() - began

    seconds(1)  # compiled, and warm
    times = 1
    while (taken := seconds(times)) < TIMED_SECONDS:
        times *= 2
    return each * times / taken


def _plan(learner: Learner, sampler: Sampler, layout: Layout, impl: str) -> PyTree:
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl)))
    words = _array(
        layout, layout.member_spec(), (*learner.members, *words.shape), words.dtype
    )
    draw = programs.planned(learner, sampler, layout, impl)
    drawn = jax.eval_shape(draw, words, np.int32(0))
    return _placed(drawn, layout, layout.batch_spec(learner, before=1))


def _array(layout: Layout, spec: P, shape: tuple[int, ...], dtype: Any) -> Any:
    return _placed(jax.ShapeDtypeStruct(shape, dtype), layout, spec)


def _like(array: Any) -> Any:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _placed(tree: PyTree, layout: Layout, spec: P) -> PyTree:
    """The shapes in a tree, with the place that arrays of them will have."""
    if layout.mesh is None:
        return tree
    where = NamedSharding(layout.mesh, spec)
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), tree
    )
