"""Losses of one record, so that a batch is a plain sum over records."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "b k"], labels: Int[Array, " b"]
) -> Float[Array, " b"]:
    """``-log softmax(logits)[label]`` for each record, in float32."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]


def correct(
    logits: Float[Array, "b k"], labels: Int[Array, " b"]
) -> Float[Array, " b"]:
    """1 where the largest logit is the label's."""
    return (jnp.argmax(logits, -1) == labels).astype(jnp.float32)


def squared_error(
    logits: Float[Array, "b k"], labels: Int[Array, " b"]
) -> Float[Array, " b"]:
    """``|softmax(logits) - onehot(label)|^2 / 2``, the base of MFE as published."""
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    target = jax.nn.one_hot(labels, probs.shape[-1], dtype=jnp.float32)
    return jnp.sum((probs - target) ** 2, -1) / 2
