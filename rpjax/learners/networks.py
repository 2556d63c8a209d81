"""A network as two pure functions, so that an average of nets is a network too."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import PyTree
from rpjax.learners.base import Implementation

Mapping = Literal["auto", "vmap", "map", "unroll"]
Combine = Literal["probabilities", "logits"]


class Network(NamedTuple):
    """What a learner trains.

    init: (key, pixels) -> (params, stats).
    apply: (record keys, params, stats, pixels, train, noise, axis) -> (logits, stats);
        statistics of a batch are those of all devices of the axis together.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Array, PyTree]]


def linen(model: Any) -> Network:
    """The network of a Linen module called as ``model(keys, pixels, train)``.

    Without noise the module is asked with ``perturbation=None``: the same parameters.
    """
    quiet = model.clone(perturbation=None) if hasattr(model, "perturbation") else model

    def init(key: Array, pixels: Array) -> tuple[PyTree, PyTree]:
        variables = nn.unbox(quiet.init(key, None, pixels))
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        keys: Array | None,
        params: PyTree,
        stats: PyTree,
        pixels: Array,
        train: bool = False,
        noise: bool = True,
        axis: str | None = None,
    ) -> tuple[Array, PyTree]:
        net = model if noise else quiet
        if train and axis and hasattr(net, "batch_axis"):
            net = net.clone(batch_axis=axis)
        variables = (
            {"params": params, "batch_stats": stats} if stats else {"params": params}
        )
        if not (train and stats):
            return net.apply(variables, keys, pixels, train), stats
        logits, updates = net.apply(
            variables, keys, pixels, train, mutable=["batch_stats"]
        )
        return logits, updates["batch_stats"]

    return Network(init, apply)


def leaves_open(model: Any) -> frozenset[str]:
    """Which fields of `Implementation` a model leaves to "auto"."""
    auto = getattr(model, "convolution", None) == "auto"
    return frozenset({"convolution"} if auto else ())


def built(model: Any, how: Implementation) -> Any:
    """The model computed in that way, where it leaves this open."""
    if how.convolution is None or not leaves_open(model):
        return model
    return model.clone(convolution=how.convolution)


def averaged(
    network: Network, members: int, mapping: Mapping, combine: Combine
) -> Network:
    """`members` copies with an axis in front of every parameter; their mean answer.

    Trained through its mean, this is EnResNet (Wang et al., arXiv 1811.10745), which
    averages logits.
    """
    over = over_members(members, mapping)

    def init(key: Array, pixels: Array) -> tuple[PyTree, PyTree]:
        member_keys = rp_keys.members(key, (members,))
        made: tuple[PyTree, PyTree] = over(
            lambda k: network.init(k, pixels), member_keys
        )
        return made

    def apply(
        keys: Array | None,
        params: PyTree,
        stats: PyTree,
        pixels: Array,
        train: bool = False,
        noise: bool = True,
        axis: str | None = None,
    ) -> tuple[Array, PyTree]:
        def one(index: Array, params: PyTree, stats: PyTree) -> tuple[Array, PyTree]:
            own = None
            if keys is not None:
                own = jax.vmap(lambda k: rp_keys.member(k, index))(keys)
            return network.apply(own, params, stats, pixels, train, noise, axis)

        logits, stats = over(one, jnp.arange(members), params, stats)
        return combined(logits, combine), stats

    return Network(init, apply)


def combined(logits: Array, how: Combine) -> Array:
    """The answer of an ensemble, (members, b, classes) -> (b, classes).

    "probabilities" averages softmax outputs and returns their logarithm.
    """
    if how == "logits":
        return logits.mean(0)
    log_probs = jax.nn.log_softmax(logits)
    return jax.nn.logsumexp(log_probs, 0) - jnp.log(len(logits))


def default_mapping() -> Mapping:
    """How members run where nobody chose and nothing was measured."""
    return "map" if jax.default_backend() == "cpu" else "vmap"


def over_members(count: int, mapping: Mapping) -> Callable[..., Any]:
    """``over(f, *trees)``: `f` on each member's slice of the trees, results stacked.

    "vmap" turns convolutions into grouped ones; "map" runs one member after another
    in a compiled loop; "unroll" writes them all out, which takes two or three times as
    long to compile for five. "auto" is "map" on CPU and "vmap" elsewhere, unless `fit`
    has measured (`rpjax.training.tuning`).
    """
    if mapping == "auto":
        mapping = default_mapping()
    if mapping == "vmap":
        return lambda f, *trees: jax.vmap(f)(*trees)
    if mapping == "map":
        return lambda f, *trees: jax.lax.map(lambda args: f(*args), trees)

    def unrolled(f: Callable[..., Any], *trees: PyTree) -> PyTree:
        slices = [jax.tree.map(lambda a, i=i: a[i], trees) for i in range(count)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(f(*s) for s in slices))

    return unrolled
