"""Residual perturbation: a residual block as one Euler-Maruyama step of an SDE.

A ResNet layer ``x + F(x)`` is the Euler step of ``dx = F dt``. Residual perturbation
trains the step of a stochastic differential equation instead (arXiv 2408.05723):

=============  ===========================  =======================================
Strategy I     ``dx = F dt + gamma dB``     ``x + F(x) + gamma n``
Strategy II    ``dx = F dt + gamma x dB``   ``x + F(x) + gamma floor(x) n``
=============  ===========================  =======================================

with ``n ~ N(0, I)``. The scale is a constant or a function of the record alone, never a
statistic of the batch: then a record's output depends on no other record. Each record
has its own key; this module is the only place where such noise is drawn, in float32.

By itself `gamma` proves nothing about the training data (docs/guarantees.md): what is
proved rests on the noise on the input (`noisy_input`) and on its clipping.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rpjax.annotations import FeatureMap, Pixels, PRNGKey, RecordKeys
from rpjax.draws import standard_normal
from rpjax.errors import InputError


@runtime_checkable
class Perturbation(Protocol):
    """The noise term of an SDE, for one record."""

    def noise(self, key: PRNGKey, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """One draw of the noise term at the state `x` (any shape), in float32."""
        ...


@dataclass(frozen=True)
class Additive:
    """Strategy I: noise ``gamma n``, the same everywhere.

    gamma: standard deviation of the noise, in units of the features.
    """

    gamma: float

    def __post_init__(self) -> None:
        _check("gamma", self.gamma)

    def noise(self, key: PRNGKey, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """``gamma n``."""
        return self.gamma * _standard_normal(key, x)


@dataclass(frozen=True)
class Multiplicative:
    """Strategy II: noise ``gamma floor(x) n``, in proportion to the state.

    gamma: standard deviation of the noise relative to the state (no unit).
    floor: least magnitude that the noise scales with. At zero the mechanism is singular
        (a feature that is exactly 0 for one record gets no noise at all), so 0 is only
        for comparison with the unfloored rule.
    """

    gamma: float
    floor: float = 0.1

    def __post_init__(self) -> None:
        _check("gamma", self.gamma)
        _check("floor", self.floor)

    def noise(self, key: PRNGKey, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """``gamma floor(x) n``."""
        # the gradient needs it again
        n = standard_normal(key, x.shape, apart=True)
        return self.gamma * floored(x, self.floor) * n


def euler_step(
    keys: RecordKeys | None,
    perturbation: Perturbation | None,
    x: FeatureMap,
    f: FeatureMap,
) -> FeatureMap:
    """``x + F(x)`` plus the noise term at `x`, each record with its own key.

    `f` is F(x). Without a perturbation the step is the plain residual layer and `keys`
    is not read; with one, missing keys are an error and never "no noise".
    """
    if perturbation is None:
        return x + f
    if keys is None:
        raise ValueError(
            "a perturbed block needs one key per record; "
            "use perturbation=None for a net without noise"
        )
    noise = jax.vmap(perturbation.noise)(keys, x)
    return (x + f + noise).astype(f.dtype)


def noisy_input(
    keys: RecordKeys | None, x: Pixels, scale: float, bound: float | None = None
) -> Pixels:
    """``clip_bound(x) + scale n``: the step on which the guarantee rests.

    scale: standard deviation of the noise per pixel, after normalisation (paper: pi).
    bound: l2 norm to which each record is clipped first (paper: R); None leaves it.
    """
    if bound is not None:
        x = clip_to_ball(x, bound)
    if scale == 0:
        return x
    if keys is None:
        raise ValueError("input noise needs one key per record")
    return x + scale * jax.vmap(_standard_normal)(keys, x)


def clip_to_ball(x: FeatureMap, bound: float) -> FeatureMap:
    """Scale each record down to l2 norm `bound` where it is longer; float32 norms."""
    wide = x.astype(jnp.float32)
    square = jnp.sum(wide**2, axis=(1, 2, 3), keepdims=True)
    # the root of zero has no derivative, and a block's output may well be zero
    norm = jnp.sqrt(jnp.maximum(square, 1e-24))
    return (wide * jnp.minimum(1.0, bound / norm)).astype(x.dtype)


def floored(x: Float[Array, "..."], floor: float) -> Float[Array, "..."]:
    """``sgn(x) max(|x|, floor)`` with sgn(0) = +1: never smaller than the floor."""
    return jnp.where(jnp.abs(x) < floor, jnp.where(x < 0, -floor, floor), x)


def _standard_normal(key: PRNGKey, x: Float[Array, "..."]) -> Float[Array, "..."]:
    # bfloat16 draws take 128 values only, so the draw is float32 whatever x is
    return standard_normal(key, x.shape)


def _check(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise InputError(f"{name} is {value}; it must be a finite number >= 0")
