"""The compiled programs of a training: its first state, its plan of batches, its steps.

Each is one function of arrays, mapped over a `Layout`: on one device as it is, on
several by `jax.shard_map`. Keys enter as their numbers, which every process can put on
its own devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, UInt32

from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey, RootKey
from rpjax.data.sampling import Sampler
from rpjax.learners import Batch, Info, Learner, State
from rpjax.learners.reduction import vary
from rpjax.training.devices import MEMBER, Layout

Program = Callable[..., Any]


def first_state(learner: Learner, layout: Layout, impl: str) -> Program:
    """(root, one image) -> the state at step 0, each device its own members."""

    def start(root: Array, images: Array) -> State:
        return layout.local(learner).init(root_of(root, impl, layout), images)

    return layout.mapped(start, (P(), P()), layout.member_spec())


def planned(learner: Learner, sampler: Sampler, layout: Layout, impl: str) -> Program:
    """(keys, block's number, own) -> positions and valid, (block, *members, slots).

    keys: of each member, (*members, words); own: how many records each has, (*members),
    or None where all have as many as the sampler. A batch is padded with invalid slots
    to what the data axis divides. Every device draws the whole plan of its own members
    and keeps its slots: no device waits for another. Slots are dealt out in turns, so
    that the records of a Poisson batch, which come first, are spread evenly.
    """
    slots = -(-sampler.capacity // layout.data)
    padding = slots * layout.data - sampler.capacity

    def draw(words: Array, number: Array, own: Array | None) -> tuple[Array, Array]:
        def one(words: Array, own: Array | None) -> tuple[Array, Array]:
            key = key_of(words, impl)
            return sampler.draw(key, number, *() if own is None else (own,))

        many: Program = one
        for _ in learner.members:
            many = jax.vmap(many, out_axes=1)
        return tuple(map(dealt_out, many(words, own)))

    def dealt_out(leaf: Array) -> Array:
        if layout.axis is None:
            return leaf
        last = [(0, 0)] * (leaf.ndim - 1) + [(0, padding)]
        dealt = jnp.pad(leaf, last).reshape(*leaf.shape[:-1], slots, layout.data)
        number = jax.lax.axis_index(layout.axis)
        return jax.lax.dynamic_index_in_dim(dealt, number, -1, keepdims=False)

    out = layout.batch_spec(learner, before=1)
    member = layout.member_spec()
    mapped = layout.mapped(draw, (member, P(), member), (out, out))
    return lambda words, number, own=None: mapped(words, number, own)


def resident_steps(learner: Learner, layout: Layout, impl: str) -> Program:
    """(root, state, data, plan, start, count) -> state `count` steps on, and infos.

    data: images, labels and ids of all records, and each member's table of its own;
    plan: positions in the table, and valid; start: the first step in the plan. How many
    steps a call takes is an argument, so that the call can be made as long as suits.
    infos: (block, *members) each, filled from `start` on.
    """

    def run(
        root: Array,
        state: State,
        data: tuple[Array, ...],
        plan: tuple[Array, Array],
        start: Array,
        count: Array,
    ) -> tuple[State, Info]:
        local, key = layout.local(learner), root_of(root, impl, layout)
        images, labels, ids, table = data
        positions, valid = plan

        def batch_of(step: Array) -> Batch:
            where = jnp.take_along_axis(table, positions[step], -1)
            return Batch(images[where], labels[where], ids[where], valid[step])

        # traced once, for the shapes here and for the loop below
        @partial(jax.jit, inline=True)
        def after(state: State, batch: Batch) -> tuple[State, Info]:
            return local.step(key, state, batch, layout.axis)

        def one(step: Array, carry: tuple[State, Info]) -> tuple[State, Info]:
            state, infos = carry
            state, info = after(state, batch_of(step))
            infos = jax.tree.map(lambda all, new: all.at[step].set(new), infos, info)
            return state, infos

        _, shapes = jax.eval_shape(after, state, batch_of(start))
        empty = jax.tree.map(
            lambda s: jnp.zeros((len(positions), *s.shape), s.dtype), shapes
        )
        if layout.members > 1:
            empty = vary(empty, MEMBER)
        state, infos = jax.lax.fori_loop(start, start + count, one, (state, empty))
        return state, infos

    member = layout.member_spec()
    plan = layout.batch_spec(learner, before=1)
    return layout.mapped(
        run,
        (P(), member, (P(), P(), P(), member), (plan, plan), P(), P()),
        (member, layout.member_spec(before=1)),
    )


def streamed_step(learner: Learner, layout: Layout, impl: str) -> Program:
    """(root, state, images, table, plan, step) -> state one step on, and its info.

    images: of this step's slots, (*members, slots, h, w, c); table: labels, ids, and
    each member's positions in them. The rest is as in `resident_steps`.
    """

    def run(
        root: Array,
        state: State,
        images: Array,
        tables: tuple[Array, Array, Array],
        plan: tuple[Array, Array],
        step: Array,
    ) -> tuple[State, Info]:
        labels, ids, table = tables
        positions, valid = plan
        where = jnp.take_along_axis(table, positions[step], -1)
        batch = Batch(images, labels[where], ids[where], valid[step])
        key = root_of(root, impl, layout)
        return layout.local(learner).step(key, state, batch, layout.axis)

    member = layout.member_spec()
    plan = layout.batch_spec(learner, before=1)
    batch = layout.batch_spec(learner)
    return layout.mapped(
        run,
        (P(), member, batch, (P(), P(), member), (plan, plan), P()),
        (member, member),
    )


def plan_keys(
    sampler: Sampler,
    members: tuple[int, ...],
    root: RootKey,
    secret: UInt32[Any, "..."],
) -> Array:
    """Each member's key for its batches.

    Poisson sampling amplifies privacy only while nobody knows who was drawn, so its
    coins come from the secret; the order of an epoch is no secret of any guarantee.
    """
    if sampler.kind == "shuffled":
        return rp_keys.members(root, members)
    one: Callable[[Array], PRNGKey] = rp_keys.from_secret
    for _ in members:
        one = jax.vmap(one)
    return one(jnp.asarray(secret))


def key_of(words: Array, impl: str) -> PRNGKey:
    """The key with these numbers."""
    return jax.random.wrap_key_data(words, impl=impl)


def root_of(words: Array, impl: str, layout: Layout) -> RootKey:
    """The root key inside a mapped program: of one for each member, a device's own."""
    keys = jax.random.wrap_key_data(words, impl=impl)
    if not keys.ndim or layout.members == 1:
        return keys
    count = len(keys) // layout.members
    first = count * jax.lax.axis_index(MEMBER)
    return jax.lax.dynamic_slice_in_dim(keys, first, count)


def impl_of(keys: Array) -> str:
    """The name of the generator of keys."""
    return str(jax.random.key_impl(keys))
