"""DP-SGD written out, with one fault or none: what `verify` must find."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from support import CLASSES

from rpjax import keys
from rpjax.learners import Inputs, Learner, Mechanism, State
from rpjax.learners.losses import cross_entropy
from rpjax.learners.reduction import summed, vary

CLIP, SIGMA, SIZE = 0.5, 1.3, 8


class Net(nn.Module):
    """A hidden layer, with or without what couples or cuts off."""

    batch_norm: bool = False
    cut: bool = False

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(3, name="hidden")(images.reshape(len(images), -1))
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.tanh(x)
        x = jax.lax.stop_gradient(x) if self.cut else x
        return nn.Dense(CLASSES, name="head")(x)


def faulty(fault=""):
    """(optimiser) -> a learner with this fault."""
    net = Net(batch_norm=fault == "batch norm", cut=fault == "cut off")
    facts = Mechanism(
        kind="dpsgd",
        clip_norm=CLIP,
        noise_multiplier=SIGMA,
        batch_size=SIZE,
        trained=("head",) if fault == "frozen" else None,
    )
    return lambda tx: Learner(
        init=lambda key, images: started(net, tx, key, images),
        step=lambda *args: step(net, tx, fault, *args),
        predict=lambda key, state, images, ids, noise=True: net.apply(
            {"params": state.params, "batch_stats": state.stats}, Inputs().clean(images)
        ),
        mechanism=facts,
    )


def started(net, tx, key, images):
    made = net.init(keys.domain(key, "init"), Inputs().clean(images))
    params, secret = made["params"], keys.fixed_secret(key)
    stats = made.get("batch_stats", {})
    return State(jnp.int32(0), params, stats, tx.init(params), secret)


def step(net, tx, fault, key, state, batch, axis=None):
    params = vary(state.params, axis)
    gradients, unravel = per_example(net, fault, params, state.stats, batch)
    total = summed(clipped_sum(fault, gradients, batch.valid, unravel), axis)
    count = summed(jnp.sum(batch.valid, dtype=jnp.float32), axis)
    noise = SIGMA * CLIP * drawn(fault, state, len(total), axis)
    if fault == "one key for all":
        leaves, treedef = jax.tree.flatten(params)
        alike = [noise[: leaf.size].reshape(leaf.shape) for leaf in leaves]
        noise = ravel_pytree(treedef.unflatten(alike))[0]
    if fault == "noise scaled to the mean":
        noise = noise / SIZE
    if fault == "noise on each device" and axis is not None:
        noise = summed(noise, axis)
    size = jnp.maximum(count, 1) if fault == "true size" else SIZE
    released = (total + noise) / size
    if fault == "clipped together":
        mean = total / jnp.maximum(count, 1)
        short = jnp.minimum(1, CLIP / jnp.maximum(jnp.linalg.norm(mean), 1e-9))
        released = mean * short + noise / SIZE
    if fault == "undivided noise":
        released = total / SIZE + noise
    updates, opt_state = tx.update(unravel(released), state.opt_state, state.params)
    moved = optax.apply_updates(state.params, updates)
    state = state._replace(step=state.step + 1, params=moved, opt_state=opt_state)
    return state, {"loss": jnp.float32(0)}


def per_example(net, fault, params, stats, batch):
    """The gradient of each record's loss as a row, and how a row becomes a tree."""

    def losses(params):
        logits, _ = net.apply(
            {"params": params, "batch_stats": stats},
            Inputs().clean(batch.images),
            True,
            mutable=["batch_stats"],
        )
        each = cross_entropy(logits, batch.labels)
        if fault == "loss mixes":
            each = each / each.mean()
        if fault == "loss mixes valid":
            each = each / (jnp.sum(each * batch.valid) / jnp.sum(batch.valid) + 1e-6)
        return each

    rows = jax.vmap(lambda tree: ravel_pytree(tree)[0])(jax.jacrev(losses)(params))
    unravel = ravel_pytree(params)[1]
    if fault == "frozen":
        head = jax.tree.map(jnp.zeros_like, params)
        head["head"] = jax.tree.map(jnp.ones_like, params["head"])
        rows = rows * ravel_pytree(head)[0][None]
    if fault == "wrong gradient":
        half = jax.tree.map(jnp.ones_like, params)
        half["hidden"]["kernel"] *= 0.5
        rows = rows * ravel_pytree(half)[0][None]
    return rows, unravel


def clipped_sum(fault, rows, valid, unravel):
    counted = rows
    if fault == "layer left out":
        marks = unravel(jnp.ones_like(rows[0]))
        marks["hidden"]["kernel"] *= 0
        counted = rows * ravel_pytree(marks)[0][None]
    norms = jnp.linalg.norm(counted, axis=1)
    weights = valid * jnp.minimum(1, CLIP / jnp.maximum(norms, 1e-9))
    if fault == "clipped together":
        weights = valid.astype(jnp.float32)
    if fault == "not clipped":
        weights = valid.astype(jnp.float32)
    if fault == "counted twice":
        weights = weights.at[:3].multiply(2)
    if fault == "slot left out":
        weights = weights.at[5].set(0)
    if fault == "padding counts":
        weights = jnp.minimum(1, CLIP / jnp.maximum(norms, 1e-9))
    if fault != "not finite":
        weights = jnp.where(jnp.isfinite(norms), weights, 0)
        rows = jnp.where(weights[:, None] > 0, rows, 0)
    return weights @ rows


def drawn(fault, state, size, axis):
    secret, number = state.secret, state.step
    if fault == "seed reuse":
        number = 0
    if fault == "seed public":
        secret = jnp.arange(8, dtype=jnp.uint32)
    if fault in ("noise on each device", "noise drifts apart") and axis is not None:
        secret = secret.at[:].add(jax.lax.axis_index(axis).astype(jnp.uint32))
    return keys.secret_normal(secret, number, size)
