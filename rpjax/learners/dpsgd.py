"""DP-SGD: per-example gradients, clipped, summed, noised, divided by a constant.

Abadi et al., arXiv 1607.00133, for Poisson batches in slots of fixed shape.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey, PyTree
from rpjax.errors import InputError
from rpjax.learners.base import Batch, Implementation, Info, Learner, State
from rpjax.learners.inputs import Inputs, noise_keys
from rpjax.learners.losses import cross_entropy
from rpjax.learners.networks import built, leaves_open, linen
from rpjax.learners.reduction import summed, vary
from rpjax.learners.supervised import (
    figures,
    forward_mechanism,
    init_with,
    means,
    predict_with,
)


def dpsgd(
    model: Any,
    tx: optax.GradientTransformation,
    inputs: Inputs | None = None,
    *,
    clip_norm: float,
    noise_multiplier: float,
    batch_size: int,
    microbatch: int | None = None,
) -> Learner:
    """Differentially private training of `model`.

    clip_norm: l2 norm to which each record's gradient is clipped.
    noise_multiplier: standard deviation of the noise on the clipped sum, divided by
        `clip_norm`; `rpjax.privacy.dpsgd` finds it from a target epsilon.
    batch_size: *expected* size of a Poisson batch; the noisy sum is divided by it,
        whatever the batch really holds.
    microbatch: records whose gradients are in memory at once; None is all of them.

    One record is one unit of privacy, so a model with BatchNorm is refused. The noise
    comes from 256 bits in the state, not from the run's key.
    """
    inputs = inputs or Inputs()
    _check(model, clip_norm, noise_multiplier, batch_size, microbatch)
    network = linen(model)
    mechanism = replace(
        forward_mechanism(model, inputs, "step"),
        kind="dpsgd",
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        batch_size=batch_size,
    )

    def step(
        key: PRNGKey, state: State, batch: Batch, axis: str | None = None
    ) -> tuple[State, Info]:
        pixels = inputs.training(key, state, "step", batch)
        own = noise_keys(state, "residual_noise", "step", batch.ids)

        def loss(params: PyTree, record: tuple[Array, ...]) -> tuple[Array, Array]:
            noise_key, image, label = record
            logits, _ = network.apply(noise_key[None], params, {}, image[None], True)
            return cross_entropy(logits, label[None])[0], logits[0]

        own_sum, norms, logits = clipped_sum(loss, clip_norm, microbatch)(
            vary(state.params, axis), (own, pixels, batch.labels), batch.valid
        )
        clipped = jnp.sum((norms > clip_norm) & batch.valid, dtype=jnp.float32)
        total, sums = summed(
            (own_sum, figures(logits, batch) | {"clipped": clipped}), axis
        )
        # every device adds the same draw to the same sum: the noise enters once
        gradient = noised(
            total, state.secret, state.step, noise_multiplier * clip_norm, batch_size
        )
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return state, means(sums)

    def using(how: Implementation) -> Learner:
        return dpsgd(
            built(model, how),
            tx,
            inputs,
            clip_norm=clip_norm,
            noise_multiplier=noise_multiplier,
            batch_size=batch_size,
            microbatch=microbatch,
        )

    return Learner(
        init=init_with(network, tx, inputs),
        step=step,
        predict=predict_with(network, inputs, mechanism.noisy),
        mechanism=mechanism,
        open=leaves_open(model),
        using=using,
    )


def clipped_sum(
    loss: Callable[[PyTree, PyTree], tuple[Array, Array]],
    clip_norm: float,
    microbatch: int | None = None,
) -> Callable[[PyTree, PyTree, Array], tuple[PyTree, Array, Array]]:
    """Sum of per-example gradients, each clipped to l2 norm `clip_norm`.

    loss: (params, one record) -> (scalar, auxiliary array).
    Returns (params, records with a leading axis b, valid (b,)) -> (sum like params,
    norms before clipping (b,), auxiliary (b, ...)).

    Guarantee: adding or removing one valid record moves the sum by at most `clip_norm`
    in l2 norm (up to float32 rounding); an invalid one moves it by exactly nothing; a
    gradient that is not finite counts as zero.
    """
    per_example = jax.vmap(jax.grad(loss, has_aux=True), (None, 0))

    def all_at_once(
        params: PyTree, records: PyTree, valid: Array
    ) -> tuple[PyTree, Array, Array]:
        gradients, aux = per_example(params, records)
        norms = example_norms(gradients)
        finite = jnp.isfinite(norms)
        weights = jnp.where(
            valid & finite, jnp.minimum(1.0, clip_norm / jnp.maximum(norms, 1e-12)), 0.0
        )
        total = jax.tree.map(lambda g: _weighted_sum(weights, g, finite), gradients)
        return total, norms, aux

    def in_chunks(
        params: PyTree, records: PyTree, valid: Array
    ) -> tuple[PyTree, Array, Array]:
        count = len(valid)
        if microbatch is None or count <= microbatch:
            return all_at_once(params, records, valid)
        chunks = -(-count // microbatch)
        # padding repeats records, and counts as invalid
        positions = jnp.arange(chunks * microbatch) % count

        def chunked(leaf: Array) -> Array:
            return leaf[positions].reshape(chunks, microbatch, *leaf.shape[1:])

        real = jnp.arange(chunks * microbatch).reshape(chunks, microbatch) < count
        zeros = jax.tree.map(jnp.zeros_like, params)

        def add(total: PyTree, chunk: PyTree) -> tuple[PyTree, tuple[Array, Array]]:
            part, norms, aux = all_at_once(params, *chunk)
            return jax.tree.map(jnp.add, total, part), (norms, aux)

        chunk_tree = (jax.tree.map(chunked, records), chunked(valid) & real)
        total, (norms, aux) = jax.lax.scan(add, zeros, chunk_tree)
        flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count]
        return total, flat(norms), flat(aux)

    return in_chunks


def noised(
    total: PyTree, secret: Array, step: Array, scale: float, batch_size: int
) -> PyTree:
    """``(total + scale n) / batch_size`` with standard normal n of this step."""
    flat, unravel = ravel_pytree(total)
    noise = rp_keys.secret_normal(secret, step, flat.size)
    return unravel((flat + scale * noise) / batch_size)


def example_norms(gradients: PyTree) -> Array:
    """l2 norm of each example's gradient over all leaves (b, ...), in float32."""
    squares = [
        jnp.sum(jnp.square(g.astype(jnp.float32)), axis=tuple(range(1, g.ndim)))
        for g in jax.tree.leaves(gradients)
    ]
    return jnp.sqrt(sum(squares))


def _weighted_sum(weights: Array, gradients: Array, finite: Array) -> Array:
    shape = (-1,) + (1,) * (gradients.ndim - 1)
    # 0 * inf is nan, so a broken gradient is replaced and not merely weighted away
    clean = jnp.where(finite.reshape(shape), gradients, 0.0)
    return jnp.tensordot(weights, clean.astype(jnp.float32), 1)


def _check(
    model: Any,
    clip_norm: float,
    noise_multiplier: float,
    batch_size: int,
    microbatch: int | None,
) -> None:
    if getattr(model, "norm", None) == "batch":
        raise InputError(
            "norm is 'batch', whose statistics mix the records of a batch; "
            "DP-SGD needs norm='group'"
        )
    if not 0 < clip_norm < float("inf"):
        raise InputError(f"clip_norm is {clip_norm}; it must be finite and > 0")
    if not 0 <= noise_multiplier < float("inf"):
        raise InputError(
            f"noise_multiplier is {noise_multiplier}; it must be finite and >= 0"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be >= 1")
    if microbatch is not None and microbatch < 1:
        raise InputError(f"microbatch is {microbatch}; it must be >= 1, or left out")
