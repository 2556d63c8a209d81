"""DPSGD-F: a clip norm for each group, larger where more gradients are long.

Xu, Du and Wu, "Removing disparate impact on model accuracy in differentially private
stochastic gradient descent", KDD 2021. In a step with base norm C0 and groups k::

    m_k, o_k   records of k whose gradient is longer than C0, and the others; noised
    r_k        m_k / (m_k + o_k), or 1 where nobody is left
    C_k        C0 (1 + r_k / mean r)

and each gradient is cut to its group's C_k. Two things differ from published code. The
noise is scaled to the largest C_k of all groups, present or not: the largest of those
in the batch would tell who is there. And counts and gradients come from one and the
same sampled batch, so that both are one Gaussian mechanism with ``z^-2 = gradient^-2 +
count^-2``, sampled once; taken as two that are sampled apart they look cheaper than
they are.

Counts come before the first gradient is cut, so where a batch is taken in microbatches
every gradient is computed twice.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from rpjax.annotations import PyTree
from rpjax.errors import InputError
from rpjax.gradients.clipped import Clipped, EngineName, clipped_sum, gradient_norms
from rpjax.gradients.clipping import Flat, beside_count
from rpjax.gradients.examples import Loss
from rpjax.noise import SOURCES, Source


@dataclass(frozen=True)
class GroupClipping:
    """The rule of the module.

    clip_norm: C0. groups: K. count_noise_multiplier: standard deviation of the noise on
    each of the 2 K counts, of which a record moves one by one.
    """

    name: ClassVar[str] = "per_group"
    clip_norm: float
    groups: int
    count_noise_multiplier: float = 10.0

    def __post_init__(self) -> None:
        for name in ("clip_norm", "count_noise_multiplier"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(
                    f"{name} is {getattr(self, name)}; it must be finite and > 0"
                )
        if self.groups < 2:
            raise InputError(f"groups is {self.groups}; it must be >= 2")

    def gradient_noise_multiplier(self, noise_multiplier: float) -> float:
        """The gradient's own multiplier, for counts and gradient to have this one."""
        return beside_count(noise_multiplier, self.count_noise_multiplier)

    def counts(
        self, norms: Float[Array, " b"], groups: Int[Array, " b"], valid: Array
    ) -> Float[Array, "2 k"]:
        """Valid records of each group above the base norm, and the others.

        A record is in exactly one of the cells; one without a finite gradient is above.
        """
        own = jax.nn.one_hot(groups, self.groups, dtype=jnp.float32) * valid[:, None]
        below = (norms <= self.clip_norm)[:, None]
        return jnp.stack([jnp.sum(own * ~below, 0), jnp.sum(own * below, 0)])

    def bounds(self, noisy: Float[Array, "2 k"]) -> Float[Array, " k"]:
        """C_k from the noisy counts, which are cut to whole numbers from 0 on."""
        above, others = jnp.maximum(jnp.trunc(noisy), 0.0)
        total = above + others
        share = jnp.where(total > 0, above / jnp.maximum(total, 1), 1.0)
        return self.clip_norm * (1 + share / (jnp.mean(share) + 1e-8))


class GroupSum(NamedTuple):
    """A sum of gradients, each cut to its group's norm, and what it was made of.

    bounds: C_k (k,), from noisy counts. clipped: the sum, before noise, and the norms,
    which are not private; of one device's records, where there are several.
    """

    bounds: Array
    clipped: Clipped


def group_sum(
    loss: Loss,
    rule: GroupClipping,
    engine: EngineName = "vmap",
    microbatch: int | None = None,
    prepare: Callable[[PyTree], PyTree] | None = None,
) -> Callable[..., GroupSum]:
    """Sum of gradients, each cut to its group's norm.

    engine, microbatch, prepare: as for `rpjax.gradients.clipped_sum`.

    Returns (params, records, groups (b,), valid (b,), noise (2, k), axis=None) ->
    `GroupSum`, where noise is added to the counts as it is. axis: of the devices that
    share a batch, over which counts are summed.

    Guarantee: given the noisy counts, adding or removing a record of group k moves the
    sum by ``bounds[k]`` at most; one of an invalid slot moves nothing.
    """
    lengths = gradient_norms(loss, engine, microbatch, prepare)
    clipped = clipped_sum(loss, Flat(rule.clip_norm), engine, microbatch, prepare)

    def function(
        params: PyTree,
        records: PyTree,
        groups: Array,
        valid: Array,
        noise: Array,
        axis: str | None = None,
    ) -> GroupSum:
        counts = rule.counts(lengths(params, records, valid), groups, valid)
        if axis is not None:
            counts = jax.lax.psum(counts, axis)
        bounds = rule.bounds(counts + noise)
        found = clipped(params, records, valid, clip_norms=bounds[groups])
        return GroupSum(bounds, found)

    return function


class GroupNoise(NamedTuple):
    """The noise of one step. counts: (2, k), to be added. normals: the gradient's."""

    counts: Array
    normals: Array


def group_noise(
    rule: GroupClipping,
    noise_multiplier: float,
    size: int,
    secret: Array,
    step: int | Array,
    source: Source = "threefry",
) -> GroupNoise:
    """One draw for both: two draws of a step would be the same numbers.

    noise_multiplier: of counts and gradient together. size: of the gradient.
    """
    cells = 2 * rule.groups
    normals = SOURCES[source](secret, step, cells + size)
    spread = rule.count_noise_multiplier if noise_multiplier > 0 else 0.0
    return GroupNoise(spread * normals[:cells].reshape(2, -1), normals[cells:])


def group_noised(
    total: PyTree,
    bounds: Array,
    normals: Array,
    rule: GroupClipping,
    noise_multiplier: float,
) -> PyTree:
    """The sum with its noise, which is that of the largest bound.

    The largest of all groups, whoever is in the batch.
    """
    flat, unravel = ravel_pytree(total)
    own = rule.gradient_noise_multiplier(noise_multiplier)
    noisy: PyTree = unravel(flat + own * jnp.max(bounds) * normals)
    return noisy


class GroupStep(NamedTuple):
    """What a step releases, and what it saw.

    gradient: noisy sum over the expected batch size, like the parameters. bounds: C_k.
    norms, aux: of each record, not private.
    """

    gradient: PyTree
    bounds: Array
    norms: Array
    aux: Any


def group_step(
    loss: Loss,
    rule: GroupClipping,
    *,
    noise_multiplier: float,
    batch_size: int,
    engine: EngineName = "vmap",
    source: Source = "threefry",
) -> Callable[..., GroupStep]:
    """One step of DPSGD-F for a loop of one's own, on one device.

    noise_multiplier: of counts and gradient together: what an accountant is told
        (`rpjax.privacy.dpsgd`). batch_size: the expected one.

    Returns (params, records, groups (b,), valid (b,), secret, step) -> `GroupStep`.
    Groups are part of a record, such as its class.

    Raises:
        InputError: count noise so small that nothing is left for the gradient.
    """
    rule.gradient_noise_multiplier(noise_multiplier)
    summed = group_sum(loss, rule, engine)

    def function(
        params: PyTree,
        records: PyTree,
        groups: Array,
        valid: Array,
        secret: Array,
        step: int | Array,
    ) -> GroupStep:
        size = ravel_pytree(params)[0].size
        noise = group_noise(rule, noise_multiplier, size, secret, step, source)
        bounds, found = summed(params, records, groups, valid, noise.counts)
        noisy = group_noised(found.total, bounds, noise.normals, rule, noise_multiplier)
        gradient = jax.tree.map(lambda leaf: leaf / batch_size, noisy)
        return GroupStep(gradient, bounds, found.norms, found.aux)

    return function
