"""Gaussian noise on a sum of clipped gradients, as an optax transformation.

The noise of a step follows from 256 secret bits and the step's number. The sum over
devices comes first, then the noise, once: every device that holds the same state adds
the same numbers to the same sum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, UInt32

from rpjax.annotations import PyTree
from rpjax.csprng import secure_normal
from rpjax.errors import InputError
from rpjax.keys import fresh_secret, secret_normal

Source = Literal["threefry", "secure"]

SOURCES: dict[str, Callable[[Array, int | Array, int], Array]] = {
    "threefry": secret_normal,
    "secure": secure_normal,
}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "secret"],
    meta_fields=["source"],
)
@dataclass(frozen=True)
class NoiseState:
    """From what the noise of the next step is drawn.

    step: int32, draws made so far.
    secret: uint32 (8,). Whoever knows it can take the noise off again: it belongs in
        checkpoints, and a checkpoint of a run that goes on belongs to nobody else.
    source: what turns secret and step into normals, "threefry" or "secure"; a part of
        the tree's structure, so that states of two sources do not mix.
    """

    step: Any
    secret: Any = field(repr=False)
    source: str


def gaussian_noise(
    stddev: float | Array,
    secret: UInt32[Any, " 8"] | None = None,
    source: Source = "threefry",
) -> optax.GradientTransformation:
    """Adds independent N(0, stddev^2) to every entry of the updates.

    stddev: noise multiplier times the l2 sensitivity of the *sum* of clipped gradients,
        in the gradient's unit. Divide by the expected batch size afterwards.
    secret: 256 bits; None has the operating system draw fresh ones at each `init`. Give
        them to repeat a run, to every process of a job the same (`rpjax.distributed`),
        and to members trained under `jax.vmap` each its own.
    source: "threefry" is fast; "secure" asks a cryptographic generator on the host, see
        `rpjax.csprng.secure_normal` for what that is good for.

    Guarantee: of a sum whose l2 sensitivity is s, the result is the Gaussian mechanism
    with noise multiplier stddev / s, in so far as the source's normals are normal and
    secret and float32 is real arithmetic; and whatever follows in an `optax.chain` is
    post-processing. The numbers are those that `rpjax.dpsgd` adds for the same secret.

    >>> import jax.numpy as jnp, optax
    >>> tx = optax.chain(gaussian_noise(2.0), optax.scale(1 / 64), optax.sgd(0.1))
    >>> updates, state = tx.update(jnp.zeros(3), tx.init(jnp.zeros(3)))
    >>> state[0].source, int(state[0].step)
    ('threefry', 1)

    Raises:
        InputError: stddev negative or not finite, an unknown source, a secret of
            another shape; or fresh bits asked for while `init` is being traced.
    """
    _check(stddev, secret, source)

    def init(params: PyTree) -> NoiseState:
        bits = _fresh(params) if secret is None else secret
        return NoiseState(jnp.int32(0), jnp.asarray(bits, jnp.uint32), source)

    def update(
        updates: PyTree, state: NoiseState, params: PyTree = None
    ) -> tuple[PyTree, NoiseState]:
        del params
        if state.source != source:
            raise InputError(
                f"source is {source!r}, but the state's noise is {state.source!r}; "
                "a run goes on with the source it began with"
            )
        noisy = noised(updates, state.secret, state.step, stddev, source)
        return noisy, replace(state, step=state.step + 1)

    return optax.GradientTransformation(init, update)


def noised(
    total: PyTree,
    secret: UInt32[Array, " 8"],
    step: int | Array,
    stddev: float | Array,
    source: str = "threefry",
) -> PyTree:
    """``total + stddev n`` with standard normal n of this step, added in float32."""
    flat, unravel = ravel_pytree(total)
    noise = SOURCES[source](secret, step, flat.size)
    added = flat.astype(jnp.float32) + stddev * noise
    noisy: PyTree = unravel(added.astype(flat.dtype))
    return noisy


def _fresh(params: PyTree) -> UInt32[Any, " 8"]:
    # drawn while tracing they would be a constant of the program: the same noise in
    # every run of it, and in all members that it maps over
    leaves = [jnp.zeros(()), *jax.tree.leaves(params)]
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise InputError(
            "secret is None while init is traced by jit or vmap, which would fix the "
            "bits; call init outside, or pass secret=rpjax.keys.fresh_secret()"
        )
    return fresh_secret()


def _check(stddev: Any, secret: Any, source: str) -> None:
    if not isinstance(stddev, jax.Array) and not 0 <= stddev < math.inf:
        raise InputError(f"stddev is {stddev}; it must be finite and >= 0")
    if secret is not None and jnp.shape(secret) != (8,):
        raise InputError(
            f"secret has shape {jnp.shape(secret)}; it must be 8 words of 32 bits"
        )
    if source not in SOURCES:
        raise InputError(
            f"source is {source!r}; it must be one of {', '.join(map(repr, SOURCES))}"
        )
