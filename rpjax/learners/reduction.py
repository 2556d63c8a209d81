"""Sums over the devices that share a batch; with no axis, nothing happens.

For use inside `jax.shard_map` with the named axis manual (`rpjax.training.devices`).
"""

import jax
from jaxtyping import Array

from rpjax.annotations import PyTree


def summed(value: Array, axis: str | None) -> Array:
    """`value` summed over the devices of `axis`."""
    return value if axis is None else jax.lax.psum(value, axis)


def mean_over(tree: PyTree, axis: str | None) -> PyTree:
    """Each leaf's mean over the devices of `axis`."""
    if axis is None:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.pmean(leaf, axis), tree)


def vary(tree: PyTree, axis: str | None) -> PyTree:
    """Mark replicated values as each device's own, so that gradients stay local.

    Without it the gradient of a replicated value is summed over devices by itself, and
    per-example gradients are wrong.
    """
    if axis is None:
        return tree
    if hasattr(jax.lax, "pcast"):
        return jax.tree.map(lambda a: jax.lax.pcast(a, axis, to="varying"), tree)
    return jax.tree.map(lambda a: jax.lax.pvary(a, axis), tree)  # jax < 0.9
