"""Layers whose per-example weight gradients follow from their input and output.

A convolution or a dense layer is linear in its weights: with its input ``a`` and the
gradient ``g`` of the loss by its output, the gradient by the weights is a contraction
of the two over positions. A `Rule` holds the ways to compute what clipping needs of it,
for all records at once:

- `instantiate`: every record's gradient;
- `ghost`: every record's squared norm, from inner products between positions and
  without any gradient (Li et al., arXiv 2110.05679; Bu et al., arXiv 2205.10683);
- `weighted`: the weighted sum of all records' gradients, as ordinary backpropagation
  does it.

Inputs and output gradients come with the record axis in front, then whatever axes the
layer saw.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.linear import canonicalize_padding
from jax import lax
from jaxtyping import Array, Float

from rpjax.gradients.examples import zeros
from rpjax.models.conv import HOOKS, Reparametrised, per_example_kernel

Positions = Float[Array, "b t _"]
Shape = tuple[int, ...]


class Rule(NamedTuple):
    """How one call of a layer enters the gradient by one of its parameters.

    name: the parameter's, within the layer.
    instantiate: (a, g) -> (b, *shape of the parameter).
    weighted: (a, g, weights (b,)) -> (*shape of the parameter).
    ghost: (a, g) -> (b,).
    positions: (shape of a, shape of g) -> places over which a record's sum runs.
    reparametrise: makes the parameter as it is used from the stored one, or None; the
        gradients here are by the one that is used.
    """

    name: str
    instantiate: Callable[[Array, Array], Array]
    weighted: Callable[[Array, Array, Array], Array]
    ghost: Callable[[Array, Array], Array]
    positions: Callable[[Shape, Shape], int]
    reparametrise: Callable[[Array], Array] | None = None


def rule_for(layer: nn.Module, inputs: Array) -> Rule | None:
    """The rule of a layer called with `inputs` alone, or None if there is none."""
    if type(layer) in (nn.Dense, nn.DenseGeneral) and jnp.ndim(inputs) >= 1:
        return _dense(layer)
    if type(layer) is nn.Conv:
        return _convolution(layer, inputs)
    if type(layer) is nn.Embed:
        return _embedding(layer)
    return None


def _ghost(a: Positions, g: Positions) -> Float[Array, " b"]:
    """``|sum_t a_t g_t'|^2`` of each record, as ``sum_ts <a_t, a_s> <g_t, g_s>``."""
    return jnp.sum(_gram(a) * _gram(g), (1, 2))


def _gram(x: Positions) -> Float[Array, "b t t"]:
    # in full precision: a clipped sum is computed apart from these norms, which must
    # not fall short of it by a rounding of an accelerator's fast arithmetic
    return _product("btf,bsf->bts", x, x, "highest")


def _dense(layer: Any) -> Rule | None:
    if isinstance(layer, nn.DenseGeneral):
        axes = layer.axis if isinstance(layer.axis, tuple) else (layer.axis,)
        plain = axes == (-1,) and not layer.batch_dims
        if not plain or not isinstance(layer.features, int):
            return None
    if layer.dot_general is not None or layer.dot_general_cls is not None:
        return None

    def positions(a: Array, g: Array) -> tuple[Array, Array]:
        b = len(a)
        return a.reshape(b, -1, a.shape[-1]), g.reshape(b, -1, g.shape[-1])

    def instantiate(a: Array, g: Array) -> Array:
        a, g = positions(a, g)
        return _product("btk,bto->bko", a, g)

    def weighted(a: Array, g: Array, weights: Array) -> Array:
        a, g = positions(a, g)
        return _product("btk,bto->ko", a, g * weights[:, None, None], "highest")

    return Rule(
        "kernel",
        instantiate,
        weighted,
        ghost=lambda a, g: _ghost(*positions(a, g)),
        positions=lambda a, g: math.prod(g[1:-1]),
    )


def _convolution(layer: nn.Conv, inputs: Array) -> Rule | None:
    hook: Any = layer.conv_general_dilated
    reparametrise = None
    if isinstance(hook, Reparametrised):
        hook, reparametrise = hook.convolution, hook.transform
    window = _tuple(layer.kernel_size, 1)
    rank = len(window)
    padding = canonicalize_padding(layer.padding, rank)
    known = hook is None or hook in HOOKS.values()
    ordinary = (
        known
        and layer.conv_general_dilated_cls is None
        and layer.mask is None
        and set(_tuple(layer.input_dilation, rank)) == {1}
        and (padding in ("SAME", "VALID") or not isinstance(padding, str))
    )
    if not ordinary:
        return None
    strides, dilation = _tuple(layer.strides, rank), _tuple(layer.kernel_dilation, rank)
    groups = layer.feature_group_count

    def images(x: Array) -> Array:
        """(b, ..., *space, c) as (b, n, *space, c)."""
        return x.reshape(len(x), -1, *x.shape[-rank - 1 :])

    def pads(a: Array) -> tuple[tuple[int, int], ...]:
        spread = tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
        if isinstance(padding, str):
            space = a.shape[-rank - 1 : -1]
            return tuple(lax.padtype_to_pads(space, spread, strides, padding))
        return tuple(tuple(pair) for pair in padding)

    def windows(a: Array, g: Array) -> tuple[Array, Array]:
        """Patches (b, t, window, c) and output gradients (b, t, o)."""
        a, g = images(a), images(g)
        cut = _windows(a, window, strides, dilation, pads(a), g.shape[2:-1])
        return (
            cut.reshape(len(a), -1, math.prod(window), a.shape[-1]),
            g.reshape(len(g), -1, g.shape[-1]),
        )

    def ghost(a: Array, g: Array) -> Array:
        patches, g = windows(a, g)
        parts = zip(
            jnp.split(patches, groups, -1), jnp.split(g, groups, -1), strict=True
        )
        flat = lambda p: p.reshape(*p.shape[:2], -1)
        return sum((_ghost(flat(p), own) for p, own in parts), jnp.zeros(len(a)))

    def instantiate(a: Array, g: Array) -> Array:
        if rank == 2 and groups == 1 and set(dilation) == {1}:
            return per_example_kernel(images(a), images(g), window, strides, pads(a))
        patches, g = windows(a, g)
        b, t, k, _ = patches.shape
        patches = patches.reshape(b, t, k, groups, -1)
        g = g.reshape(b, t, groups, -1)
        found = _product("btkgi,btgo->bkigo", patches, g)
        return found.reshape(b, *window, found.shape[2], -1)

    def weighted(a: Array, g: Array, weights: Array) -> Array:
        a, g = images(a), images(g)
        g = g * weights.reshape(-1, *(1,) * (g.ndim - 1))
        a, g = (x.reshape(-1, *x.shape[2:]) for x in (a, g))
        shape = (*window, a.shape[-1] // groups, g.shape[-1])
        convolve = lax.conv_general_dilated if hook is None else hook
        numbers = nn.linear._conv_dimension_numbers(a.shape)

        def forward(kernel: Array) -> Array:
            return convolve(
                *(a, kernel, strides, pads(a)),
                lhs_dilation=(1,) * rank,
                rhs_dilation=dilation,
                dimension_numbers=numbers,
                feature_group_count=groups,
                precision="highest",
            )

        zero = zeros(jax.ShapeDtypeStruct(shape, a.dtype), (a, g))
        return jax.vjp(forward, zero)[1](g.astype(a.dtype))[0].astype(jnp.float32)

    return Rule(
        "kernel",
        instantiate,
        weighted,
        ghost,
        positions=lambda a, g: math.prod(g[1:-1]),
        reparametrise=reparametrise,
    )


def _embedding(layer: nn.Embed) -> Rule:
    rows = layer.num_embeddings

    def flat(ids: Array, g: Array) -> tuple[Array, Array]:
        return ids.reshape(len(ids), -1), g.reshape(len(g), -1, g.shape[-1])

    def instantiate(ids: Array, g: Array) -> Array:
        def one(ids: Array, g: Array) -> Array:
            zero = jnp.zeros((rows, g.shape[-1]), jnp.float32)
            return zero.at[ids].add(g.astype(jnp.float32))

        return jax.vmap(one)(*flat(ids, g))

    def weighted(ids: Array, g: Array, weights: Array) -> Array:
        ids, g = flat(ids, g)
        g = (g.astype(jnp.float32) * weights[:, None, None]).reshape(-1, g.shape[-1])
        return jnp.zeros((rows, g.shape[-1]), jnp.float32).at[ids.ravel()].add(g)

    def ghost(ids: Array, g: Array) -> Array:
        ids, g = flat(ids, g)
        same = ids[:, :, None] == ids[:, None, :]
        return jnp.sum(same * _gram(g), (1, 2))

    return Rule(
        "embedding",
        instantiate,
        weighted,
        ghost,
        positions=lambda ids, g: math.prod(g[1:-1]),
    )


def _windows(
    x: Array,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    pads: Sequence[tuple[int, int]],
    out: tuple[int, ...],
) -> Array:
    """The windows of (b, n, *space, c), as (b, n, *out, prod(window), c)."""
    x = jnp.pad(x, ((0, 0), (0, 0), *pads, (0, 0)))
    cuts = []
    for offset in itertools.product(*map(range, window)):
        cut = [slice(None), slice(None)]
        for start, step, far, size in zip(offset, strides, dilation, out, strict=True):
            first = start * far
            cut.append(slice(first, first + (size - 1) * step + 1, step))
        cuts.append(x[tuple(cut)])
    return jnp.stack(cuts, -2)


def _product(spec: str, a: Array, g: Array, precision: Any = None) -> Array:
    return jnp.einsum(
        spec,
        *(a.astype(g.dtype), g),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    if value is None:
        return (1,) * rank
    if isinstance(value, int):
        return (value,) * rank
    return tuple(value)
