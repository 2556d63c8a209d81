"""What the weights give away: how steep a record's loss is, layer by layer.

A record that was learnt by heart lies where its loss is flat, so its gradient by the
parameters is small. Where the forward pass is noisy, one gradient is mostly noise: so
the mean over draws is looked at (expectation over transformation, Athalye et al., arXiv
1707.07397). Nasr, Shokri and Houmansadr (S&P 2019, arXiv 1812.00910) found gradients of
late layers to tell members best.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from rpjax import keys as rp_keys
from rpjax.annotations import PyTree
from rpjax.data.records import Records
from rpjax.learners import Learner, State
from rpjax.learners.reduction import vary
from rpjax.training import Query, programs
from rpjax.training.devices import DATA, Devices, Layout, layout, number

# stands for a gradient of exactly zero; far below what float32 training leaves
LEAST = 1e-30


def gradient_norms(
    many: Learner,
    state: State,
    records: Records,
    query: Query,
    seeds: Sequence[int],
    devices: Devices = None,
) -> Float[np.ndarray, "models n groups"]:
    """Log of the norm of each record's mean gradient, in float32.

    The last group is that of all parameters; those before it are the parts of the
    network, by name (`groups`). An ensemble is one model, answering together.

    many: models side by side, ``len(seeds)`` of them, and `state` theirs.
    query: noise on or off, and over how many draws the gradient is averaged.
    seeds: from which each model's noise comes, with the record's id, as for `ask`.
    devices: all of them share the records, each holding every model.
    """
    where = layout({DATA: number(devices)}, (), 0)
    draws = query.draws if query.noise and many.mechanism.noisy else 1
    roots = rp_keys.roots(list(seeds))

    def drawing(root: Array, draw: Array) -> Array:
        return rp_keys.at_step(rp_keys.domain(root, "query"), draw)

    drawn = jax.vmap(jax.vmap(drawing, (0, None)), (None, 0))(roots, jnp.arange(draws))
    padding = np.arange(-(-len(records) // where.data) * where.data) % len(records)
    shown = records.take(padding)
    asked = (np.asarray(shown.images[:]), shown.ids, shown.labels)
    ask = _compiled(many, where, query.noise, programs.impl_of(roots))
    words = where.put(jax.random.key_data(drawn))
    placed = where.put(where.fetch(state))
    norms = ask(words, placed, *where.put(asked, P(where.axis)))
    return np.moveaxis(where.fetch(norms)[: len(records)], 0, 1)


def groups(params: PyTree) -> tuple[str, ...]:
    """Names of the parts of a network, in the order of `gradient_norms`."""
    return tuple(sorted(params)) if isinstance(params, Mapping) else ()


@functools.lru_cache(maxsize=32)
def _compiled(
    many: Learner, where: Layout, noise: bool, impl: str
) -> Callable[..., Array]:
    def loss(
        params: PyTree, key: Array, state: State, image: Array, name: Array, y: Array
    ) -> Array:
        asked = (image[None], name[None], noise)
        answer = many.predict(key, state._replace(params=params), *asked)
        # of models that share nothing: the gradient of the sum is each one's own
        return -jax.nn.log_softmax(answer)[..., 0, y].sum()

    def of_record(keys: Array, state: State, *record: Array) -> Array:
        def add(total: PyTree, key: Array) -> tuple[PyTree, None]:
            own = jax.grad(loss)(state.params, key, state, *record)
            return jax.tree.map(jnp.add, total, own), None

        none = jax.tree.map(jnp.zeros_like, state.params)
        total, _ = jax.lax.scan(add, none, keys)
        parts = [_squares(total[name]) for name in groups(total)]
        squares = jnp.stack([*parts, _squares(total)], -1) / len(keys) ** 2
        return jnp.log(jnp.maximum(squares, LEAST)) / 2

    def all_records(
        words: Array, state: State, images: Array, ids: Array, labels: Array
    ) -> Array:
        keys = jax.random.wrap_key_data(words, impl=impl)
        # else the gradients of all devices' records would be added
        state = vary(state, where.axis)

        def one(record: tuple[Array, ...]) -> Array:
            return of_record(keys, state, *record)

        return jax.lax.map(one, (images, ids, labels))

    records = P(where.axis)
    specs = (P(), P(), records, records, records)
    compiled: Callable[..., Array] = jax.jit(where.mapped(all_records, specs, records))
    return compiled


def _squares(tree: PyTree) -> Array:
    """Squared norm over everything but the axis of the models."""
    return sum(
        jnp.sum(jnp.square(leaf.reshape(len(leaf), -1)), -1)
        for leaf in jax.tree.leaves(tree)
    )
