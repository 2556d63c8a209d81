"""Engines: what clipping needs of a batch's per-example gradients, in three ways.

An engine takes a loss of one record, parameters and records, and returns `Examples`:
every record's squared norms, leaf by leaf, and a function from weights to the weighted
sum of gradients. Which engine computed them changes time and memory and nothing else.

============  ==========================================================================
vmap          every gradient, side by side: any function; records times parameters
two_pass      norms first, each gradient forgotten at once; then one ordinary backward
              pass of the weighted losses: any function
bookkeeping   one backward pass to the outputs of the layers; norms and sums follow from
              their inputs and output gradients (`rpjax.gradients.bookkeeping`)
============  ==========================================================================

two_pass: Lee and Kifer, arXiv 2009.03106.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rpjax.annotations import PyTree

Loss = Callable[[PyTree, PyTree], tuple[Array, Any]]
"""(parameters, one record) -> (scalar loss, auxiliary arrays)."""


class Examples(NamedTuple):
    """The per-example gradients of a batch, as far as a clipped sum needs them.

    squares: like the parameters; each leaf the squared l2 norms (b,) of that leaf's
        gradients, in float32.
    aux: the loss's auxiliary arrays, (b, ...).
    weighted: (weights, like `squares`) -> the sum of gradients times weights, like the
        parameters, in float32. A record of weight 0 counts as zero, whatever its
        gradient is.
    """

    squares: PyTree
    aux: Any
    weighted: Callable[[PyTree], PyTree]


class Engine(Protocol):
    """(loss, parameters, records with a leading axis b) -> `Examples`."""

    def __call__(self, loss: Loss, params: PyTree, records: PyTree) -> Examples:
        """See the class."""
        ...


def by_vmap(loss: Loss, params: PyTree, records: PyTree) -> Examples:
    """`Examples` from every record's gradient, all of them in memory at once."""
    gradients, aux = jax.vmap(jax.grad(loss, has_aux=True), (None, 0))(params, records)
    return Examples(
        squares=jax.tree.map(squares_of, gradients),
        aux=aux,
        weighted=lambda weights: jax.tree.map(weighted_sum, weights, gradients),
    )


def by_two_passes(loss: Loss, params: PyTree, records: PyTree) -> Examples:
    """`Examples` from two backward passes, whose second has one weight a record.

    Both in full precision: norms of the one bound gradients of the other.
    """
    loss = _in_full_precision(loss)

    def squares(record: PyTree) -> tuple[PyTree, Any]:
        gradient, aux = jax.grad(loss, has_aux=True)(params, record)
        return jax.tree.map(lambda g: squares_of(g[None])[0], gradient), aux

    found, aux = jax.vmap(squares)(records)

    def weighted(weights: PyTree) -> PyTree:
        own, *others = jax.tree.leaves(weights)
        if any(other is not own for other in others):
            raise ValueError("two passes take one weight a record, not one a layer")
        # a broken record would spoil the sum even with weight zero, so that one which
        # has a weight stands in for it
        stand_in = jnp.argmax(own > 0)
        where = jnp.where(own > 0, jnp.arange(len(own)), stand_in)
        safe = jax.tree.map(lambda leaf: leaf[where], records)

        def total(params: PyTree) -> Array:
            losses = jax.vmap(lambda record: loss(params, record)[0])(safe)
            return jnp.sum(own * losses)

        gradient = jax.grad(total)(params)
        somebody = jnp.any(own > 0)
        return jax.tree.map(
            lambda g: jnp.where(somebody, g.astype(jnp.float32), 0.0), gradient
        )

    return Examples(found, aux, weighted)


def _in_full_precision(loss: Loss) -> Loss:
    def exact(params: PyTree, record: PyTree) -> tuple[Array, Any]:
        with jax.default_matmul_precision("highest"):
            return loss(params, record)

    return exact


def squares_of(gradients: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """Squared l2 norm of each record's gradient, in float32."""
    wide = gradients.astype(jnp.float32)
    return jnp.sum(wide * wide, axis=tuple(range(1, wide.ndim)))


def weighted_sum(
    weights: Float[Array, " b"], gradients: Float[Array, "b ..."]
) -> Float[Array, "..."]:
    """Sum of gradients times weights; those of weight 0 may be anything."""
    clean = keep(weights > 0, gradients.astype(jnp.float32))
    # norms are in full precision, and a sum in less could exceed what they allow
    return jnp.tensordot(weights, clean, 1, precision="highest")


def keep(kept: Bool[Array, " b"], leaf: Array) -> Array:
    """`leaf` (b, ...) with zeros for the records that are not kept.

    0 * inf is nan, so what is broken has to be replaced and not only weighted away.
    """
    return jnp.where(kept.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0)


def zeros(shape: Any, given: PyTree) -> Array:
    """Zeros that vary over the mesh axes over which `given` varies.

    Otherwise their gradient would be summed over those axes by itself. What they vary
    over is taken on by a choice between two equal values, which costs nothing: every
    version of jax has another name for it.
    """
    made = jnp.zeros(shape.shape, shape.dtype)
    for leaf in jax.tree.leaves(given):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        numbers = jax.random.key_data(leaf) if is_key else leaf
        made = jnp.where(numbers.ravel()[0] != 0, made, made)
    return made
