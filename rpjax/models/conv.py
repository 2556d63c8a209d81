"""Convolutions: one hook through which every convolution of a model goes.

`convolution("xla")` is the compiler's own; `convolution("im2col")` gathers patches and
multiplies matrices. Same numbers, other costs: per-example and per-member gradients of
the first become grouped convolutions, and inside a compiled loop on CPU it took some
nine to thirteen times as long per net, while im2col stays an ordinary matrix product at
the price of kh*kw copies of its input (`benchmarks/records/members_cpu.json`). "auto"
is im2col on CPU, xla elsewhere.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Convolution = Literal["auto", "xla", "im2col"]


def convolution(kind: Convolution) -> Callable[..., Array]:
    """The function to hand to ``nn.Conv(conv_general_dilated=...)``."""
    if kind == "auto":
        kind = "im2col" if jax.default_backend() == "cpu" else "xla"
    hooks: dict[str, Callable[..., Array]] = {
        "xla": lax.conv_general_dilated,
        "im2col": im2col,
    }
    return hooks[kind]


def im2col(
    lhs: Float[Array, "b h w c"],
    rhs: Float[Array, "kh kw i o"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **kwargs: Any,
) -> Float[Array, "b oh ow o"]:
    """`lax.conv_general_dilated` for NHWC and HWIO, as patches times a matrix.

    Dilated and grouped convolutions go to the compiler's own.
    """
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    grouped = feature_group_count != 1 or kwargs.get("batch_group_count", 1) != 1
    if grouped or any(d != 1 for d in dilations):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            precision=precision,
            **kwargs,
        )
    kernel, strides = rhs.shape[:2], tuple(window_strides)
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(lhs.shape[1:3], kernel, strides, padding)
    else:
        pads = padding
    patches = _patches(lhs, kernel, strides, pads)
    matrix = rhs.reshape(-1, rhs.shape[-1])
    return jnp.einsum("bhwp,po->bhwo", patches, matrix, precision=precision)


def _patches(
    x: Array,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    padding: Sequence[tuple[int, int]],
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

        def standardised(lhs: Array, rhs: Array, *args: Any, **kwargs: Any) -> Array:
            return self.conv_general_dilated(lhs, standardise(rhs), *args, **kwargs)

        y = nn.Conv(
            self.features,
            self.kernel_size,
            self.strides,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
            conv_general_dilated=standardised,
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
