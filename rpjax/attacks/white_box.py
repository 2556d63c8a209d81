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
from jaxtyping import Array, Float

from rpjax import keys as rp_keys
from rpjax.annotations import PyTree
from rpjax.data.records import Records
from rpjax.learners import Learner, State
from rpjax.training import Query

# stands for a gradient of exactly zero; far below what float32 training leaves
LEAST = 1e-30


def gradient_norms(
    many: Learner, state: State, records: Records, query: Query, seeds: Sequence[int]
) -> Float[np.ndarray, "models n groups"]:
    """Log of the norm of each record's mean gradient, in float32.

    The last group is that of all parameters; those before it are the parts of the
    network, by name (`groups`). An ensemble is one model, answering together.

    many: models side by side, ``len(seeds)`` of them, and `state` theirs.
    query: noise on or off, and over how many draws the gradient is averaged.
    seeds: from which each model's noise comes, with the record's id, as for `ask`.
    """
    draws = query.draws if query.noise and many.mechanism.noisy else 1
    roots = rp_keys.roots(list(seeds))

    def drawing(root: Array, draw: Array) -> Array:
        return rp_keys.at_step(rp_keys.domain(root, "query"), draw)

    drawn = jax.vmap(jax.vmap(drawing, (0, None)), (None, 0))(roots, jnp.arange(draws))
    images = np.asarray(records.images[:])
    norms = _compiled(many, query.noise)(
        drawn, jax.device_get(state), images, records.ids, records.labels
    )
    return np.moveaxis(np.asarray(norms), 0, 1)


def groups(params: PyTree) -> tuple[str, ...]:
    """Names of the parts of a network, in the order of `gradient_norms`."""
    return tuple(sorted(params)) if isinstance(params, Mapping) else ()


@functools.lru_cache(maxsize=32)
def _compiled(many: Learner, noise: bool) -> Callable[..., Array]:
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
        keys: Array, state: State, images: Array, ids: Array, labels: Array
    ) -> Array:
        def one(record: tuple[Array, ...]) -> Array:
            return of_record(keys, state, *record)

        return jax.lax.map(one, (images, ids, labels))

    compiled: Callable[..., Array] = jax.jit(all_records)
    return compiled


def _squares(tree: PyTree) -> Array:
    """Squared norm over everything but the axis of the models."""
    return sum(
        jnp.sum(jnp.square(leaf.reshape(len(leaf), -1)), -1)
        for leaf in jax.tree.leaves(tree)
    )
