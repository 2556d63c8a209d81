"""Averages of the parameters, kept beside an optimiser's own state.

An average is a function of the parameters that training releases anyway, so it costs
no privacy (post-processing); De et al. (arXiv 2204.13650) evaluate one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from rpjax.annotations import PyTree
from rpjax.errors import InputError


class AveragedState(NamedTuple):
    """The state of `averaged`.

    updates: int32, how many went before.
    averages: the averages by the name of their decay, each like the trained parameters.
    inner: the state of the wrapped transformation.
    """

    updates: Array
    averages: dict[str, PyTree]
    inner: PyTree


def averaged(
    tx: optax.GradientTransformation, decays: Sequence[float] = (0.99, 0.999)
) -> optax.GradientTransformation:
    """`tx`, which also keeps exponential moving averages of the parameters.

    Update t = 0, 1, ... leads from the parameters to new ones, theta_t, and for each
    decay m the average a goes to ``m_t a + (1 - m_t) theta_t`` with the warm-up ``m_t =
    min(m, (1 + t) / (10 + t))``, from the initial parameters on. The updates are those
    of `tx`, unchanged. Each decay takes the memory of the parameters once more.

    `of_state` gives the averages of a state.

    Source: De et al., arXiv 2204.13650.
    """
    names = [_name(decay) for decay in decays]
    if not names:
        raise InputError("decays is empty; give at least one, such as 0.999")

    def init(params: PyTree) -> AveragedState:
        return AveragedState(
            updates=jnp.zeros((), jnp.int32),
            # copies, so that a caller who donates one buffer keeps the others
            averages={n: jax.tree.map(jnp.copy, params) for n in names},
            inner=tx.init(params),
        )

    def update(
        gradient: PyTree, state: AveragedState, params: PyTree = None
    ) -> tuple[PyTree, AveragedState]:
        if params is None:
            raise ValueError("an average of the parameters needs them: update(params=)")
        updates, inner = tx.update(gradient, state.inner, params)
        new = optax.apply_updates(params, updates)
        averages = {
            name: optax.incremental_update(
                new, average, 1 - warm_decay(float(name), state.updates)
            )
            for name, average in state.averages.items()
        }
        return updates, AveragedState(state.updates + 1, averages, inner)

    return optax.GradientTransformation(init, update)


def warm_decay(decay: float, updates: Array) -> Array:
    """``min(decay, (1 + t) / (10 + t))`` after t updates: early averages are short."""
    t = updates.astype(jnp.float32)
    return jnp.minimum(decay, (1 + t) / (10 + t))


def of_state(opt_state: PyTree) -> dict[float, PyTree]:
    """The averages in an optimiser's state by their decay; none if it keeps none."""
    found = optax.tree_utils.tree_get(opt_state, "AveragedState")
    return {float(n): tree for n, tree in found.averages.items()} if found else {}


def with_average(params: PyTree, opt_state: PyTree, decay: float) -> PyTree:
    """`params` with those that are trained replaced by their average.

    Leaves are matched by their paths, so the state may know a part of the parameters
    alone; what is not trained stays as it is.
    """
    kept = of_state(opt_state)
    if decay not in kept:
        held = ", ".join(f"{d:g}" for d in kept) or "none; train with averaged(tx)"
        raise InputError(f"decay is {decay}; the averages kept are: {held}")
    average = dict(jax.tree_util.tree_leaves_with_path(kept[decay]))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: average.get(path, leaf), params
    )


def _name(decay: float) -> str:
    if not 0 <= decay < 1:
        raise InputError(f"decays holds {decay}; each must lie in [0, 1)")
    return repr(float(decay))
