"""Convolutions: one hook through which every convolution of a model goes.

Same numbers, other costs:

=============  ======================================================================
"xla"          the compiler's own
"canonical"    the same, with its gradients spelled in the one layout for which the
               CPU's compiler calls its library inside a loop: otherwise it writes
               naive loops there, which take many times as long
"im2col"       patches times a matrix, at the price of kh*kw copies of its input; the
               per-example and per-member gradients of the others are grouped
               convolutions, those of this one stay ordinary matrix products
=============  ======================================================================

"auto" is chosen for the device, or by measurement (`rpjax.training.tuning`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Convolution = Literal["auto", "xla", "canonical", "im2col"]
Pads = tuple[tuple[int, int], ...]

NUMBERS = ("NHWC", "HWIO", "NHWC")


def convolution(kind: Convolution) -> Callable[..., Array]:
    """The function to hand to ``nn.Conv(conv_general_dilated=...)``."""
    if kind == "auto":
        kind = "canonical" if jax.default_backend() == "cpu" else "xla"
    return HOOKS[kind]


def canonical(
    lhs: Float[Array, "b h w c"],
    rhs: Float[Array, "kh kw i o"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *args: Any,
    **kwargs: Any,
) -> Float[Array, "b oh ow o"]:
    """`lax.conv_general_dilated` for NHWC and HWIO, and so are both its gradients.

    XLA's CPU compiler brings convolutions into the form that its library takes in the
    outermost computation only, so inside a loop those of the backward pass miss it
    (jax-ml/jax#12868). Reverse-mode differentiation only. Dilated and grouped
    convolutions go to the compiler's own.
    """
    if not _ordinary(*args, **kwargs):
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, *args, **kwargs
        )
    strides = tuple(window_strides)
    pads = _explicit(padding, lhs.shape[1:3], rhs.shape[:2], strides)
    return _canonical(lhs, rhs, strides, pads, kwargs.get("precision"))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _canonical(
    x: Array, kernel: Array, strides: tuple[int, ...], pads: Pads, precision: Any
) -> Array:
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=NUMBERS, precision=precision
    )


def _forward(
    x: Array, kernel: Array, strides: tuple[int, ...], pads: Pads, precision: Any
) -> tuple[Array, tuple[Array, Array]]:
    return _canonical(x, kernel, strides, pads, precision), (x, kernel)


def _backward(
    strides: tuple[int, ...],
    pads: Pads,
    precision: Any,
    saved: tuple[Array, Array],
    g: Array,
) -> tuple[Array, Array]:
    x, kernel = saved
    window, size = kernel.shape[:2], x.shape[1:3]
    spread = [(n - 1) * s + 1 for n, s in zip(g.shape[1:3], strides, strict=True)]
    convolve = partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        dimension_numbers=NUMBERS,
        precision=precision,
    )
    # by the input: the cotangent, spread out by the strides, under the turned kernel
    before = [k - 1 - low for k, (low, _) in zip(window, pads, strict=True)]
    after = [
        n + k - 1 - low - wide
        for n, k, low, wide in zip(size, window, before, spread, strict=True)
    ]
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    by_input = convolve(
        g,
        turned,
        padding=tuple(zip(before, after, strict=True)),
        lhs_dilation=strides,
    )
    # by the kernel: the input under the cotangent, records in the place of channels
    ends = [
        k - 1 + wide - n - low
        for n, k, (low, _), wide in zip(size, window, pads, spread, strict=True)
    ]
    by_kernel = convolve(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        padding=tuple((low, end) for (low, _), end in zip(pads, ends, strict=True)),
        rhs_dilation=strides,
    )
    return by_input, by_kernel.transpose(1, 2, 0, 3)


_canonical.defvjp(_forward, _backward)


def _ordinary(
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kwargs: Any,
) -> bool:
    """Whether a convolution is neither dilated nor grouped."""
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    groups = feature_group_count * batch_group_count
    return groups == 1 and all(d == 1 for d in dilations)


def _explicit(
    padding: str | Sequence[tuple[int, int]],
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
) -> Pads:
    if isinstance(padding, str):
        return tuple(lax.padtype_to_pads(size, window, strides, padding))
    return tuple((low, high) for low, high in padding)


def im2col(
    lhs: Float[Array, "b h w c"],
    rhs: Float[Array, "kh kw i o"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *args: Any,
    **kwargs: Any,
) -> Float[Array, "b oh ow o"]:
    """`lax.conv_general_dilated` for NHWC and HWIO, as patches times a matrix.

    Dilated and grouped convolutions go to the compiler's own.
    """
    if not _ordinary(*args, **kwargs):
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, *args, **kwargs
        )
    window, strides = rhs.shape[:2], tuple(window_strides)
    pads = _explicit(padding, lhs.shape[1:3], window, strides)
    patches = _patches(lhs, window, strides, pads)
    matrix = rhs.reshape(-1, rhs.shape[-1])
    precision = kwargs.get("precision")
    return jnp.einsum("bhwp,po->bhwo", patches, matrix, precision=precision)


def _patches(
    x: Array, kernel: tuple[int, ...], strides: tuple[int, ...], padding: Pads
) -> Array:
    """The windows of `x`, (b, oh, ow, kh * kw * c), in the order of an HWIO kernel."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (kh, kw), (sh, sw) = kernel, strides
    oh, ow = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    windows = [
        x[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.concatenate(windows, -1)


HOOKS: dict[str, Callable[..., Array]] = {
    "xla": lax.conv_general_dilated,
    "canonical": canonical,
    "im2col": im2col,
}


def per_example_kernel(
    x: Float[Array, "b n h w c"],
    g: Float[Array, "b n oh ow o"],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    pads: Pads,
) -> Float[Array, "b kh kw c o"]:
    """Each record's gradient by the kernel, from input and output gradient, float32.

    A record is `n` images that share one gradient. One batched matrix product for each
    column of the kernel, with its rows side by side as im2col has them.
    """
    x = jnp.pad(x.astype(g.dtype), ((0, 0), (0, 0), *pads, (0, 0)))
    (kh, kw), (sh, sw), (oh, ow) = window, strides, g.shape[2:4]

    def column(j: int) -> Array:
        across = x[:, :, :, j : j + (ow - 1) * sw + 1 : sw]
        rows = [across[:, :, i : i + (oh - 1) * sh + 1 : sh] for i in range(kh)]
        return jnp.einsum(
            "bnhwk,bnhwo->bko",
            *(jnp.concatenate(rows, -1), g),
            preferred_element_type=jnp.float32,
        )

    columns = jnp.stack([column(j) for j in range(kw)], 1)
    split = columns.reshape(len(g), kw, kh, x.shape[-1], g.shape[-1])
    return split.transpose(0, 2, 1, 3, 4)


@dataclass(frozen=True)
class Reparametrised:
    """A convolution whose kernel is first made from the stored one.

    For ``nn.Conv(conv_general_dilated=...)``; `rpjax.gradients` looks into it.
    """

    convolution: Callable[..., Array]
    transform: Callable[[Array], Array]

    def __call__(self, lhs: Array, rhs: Array, *args: Any, **kwargs: Any) -> Array:
        """`convolution` with the transformed kernel."""
        return self.convolution(lhs, self.transform(rhs), *args, **kwargs)


class StandardisedConv(nn.Module):
    """Convolution with weight standardisation, a learned gain and a bias.

    Each output channel's weights have mean 0 and variance 1 / fan-in, times the gain:
    De et al., arXiv 2204.13650 (after Brock et al., arXiv 2101.08692).
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    conv_general_dilated: Callable[..., Array] = lax.conv_general_dilated
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        """Feature maps (b, h, w, c) to (b, oh, ow, features), padding SAME."""
        y = nn.Conv(
            self.features,
            self.kernel_size,
            self.strides,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
            conv_general_dilated=Reparametrised(self.conv_general_dilated, standardise),
        )(x)
        gain = self.param("gain", nn.initializers.ones, (self.features,))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        gain, bias = (a.astype(y.dtype).reshape(1, 1, 1, -1) for a in (gain, bias))
        return y * gain + bias


def standardise(kernel: Float[Array, "kh kw i o"]) -> Float[Array, "kh kw i o"]:
    """Mean 0 and variance 1 / fan-in over each output channel's weights."""
    kernel32 = kernel.astype(jnp.float32)
    fan_in = kernel[..., 0].size
    mean = kernel32.mean((0, 1, 2), keepdims=True)
    variance = kernel32.var((0, 1, 2), keepdims=True)
    scale = lax.rsqrt(jnp.maximum(variance * fan_in, 1e-4))
    return ((kernel32 - mean) * scale).astype(kernel.dtype)
