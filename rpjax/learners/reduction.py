"""Sums over the devices that share a batch; with no axis, nothing happens.

For use inside `jax.shard_map` with the named axis manual (`rpjax.training.devices`).
"""

from typing import TypeVar

import jax
from jax.flatten_util import ravel_pytree

from rpjax.annotations import PyTree

Tree = TypeVar("Tree")


def summed(tree: Tree, axis: str | None) -> Tree:
    """Every leaf summed over the devices of `axis`, in one all-reduce.

    One flat vector goes over the wire, gradients and figures together: a step has a
    single point at which devices wait for each other.
    """
    if axis is None:
        return tree
    flat, unravel = ravel_pytree(tree)
    total: Tree = unravel(jax.lax.psum(flat, axis))
    return total


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
