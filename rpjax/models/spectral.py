"""Upper bounds of a convolution's operator norm, for the size that it is applied to.

A convolution with zero padding (SAME, stride 1) on h x w pixels is a part of the
periodic one on a grid of (h + kh - 1) x (w + kw - 1): pad the image with zeros,
convolve around the torus, look at h x w of the pixels. Neither padding nor looking
lengthens a vector, so its norm is at most that of the periodic one, which Fourier's
basis makes block diagonal: the largest singular value, over the frequencies (u, v) of
that grid, of the i x o matrices sum_ab K[a, b] exp(-2 pi i (a u + b v)).

`bound` is for use inside a net: Gram iteration (Delattre et al., arXiv 2305.16173),
made of matrix products, differentiable, above the truth after any number of iterations.
`certified` is the same maximum by singular values, in float64 on the host. Power
iteration, the usual way to normalise spectra, comes from *below* and certifies nothing.
"""

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax
from jaxtyping import Array, Float

ITERATIONS = 5
"""Squarings: the bound exceeds the maximum by c^(1 / 128) at most, c channels."""
MARGIN = 1e-4
"""By which the bound is enlarged, for float32's rounding (tests/test_lipschitz.py)."""
TINY = 1e-30

Kernel = Float[Array, "kh kw i o"]
Size = tuple[int, int]


def unit(kernel: Kernel, size: Size) -> Kernel:
    """The kernel over its `bound`: its convolution lengthens no difference."""
    return kernel / bound(kernel, size)


def bound(kernel: Kernel, size: Size) -> Float[Array, ""]:
    """An upper bound of the convolution's operator norm on feature maps of `size`.

    Let A be the matrix of a frequency, and G = A* A be squared k times: its Frobenius
    norm is then at least |A|_2^(2^(k + 1)), and at most sqrt(c) times that. G is scaled
    to length 1 before each squaring, and the logarithms of its lengths are added up.

    kernel: HWIO, float32.
    size: height and width of the convolution's input.
    """
    scale = jnp.sqrt(jnp.sum(jnp.square(kernel)) + TINY)
    down, across = _waves(kernel.shape, size)
    blocks = _product("uh,vw,hwio->uvio", down, across, kernel / scale)
    wide = kernel.shape[2] < kernel.shape[3]
    adjoint = "uvik,uvjk->uvij" if wide else "uvki,uvkj->uvij"
    gram = _product(adjoint, jnp.conj(blocks), blocks)

    def scaled_and_squared(
        carry: tuple[Array, Array], weight: Array
    ) -> tuple[tuple[Array, Array], None]:
        gram, log_square = carry
        length = jnp.sqrt(jnp.sum(gram.real**2 + gram.imag**2, (2, 3)) + TINY)
        gram = gram / length[..., None, None]
        square = _product("uvik,uvkj->uvij", gram, gram)
        return (square, log_square + weight * jnp.log(length)), None

    weights = jnp.asarray(0.5 ** np.arange(ITERATIONS + 1), jnp.float32)
    start = (gram, jnp.zeros(gram.shape[:2]))
    (_, log_square), _ = lax.scan(scaled_and_squared, start, weights)
    return (1 + MARGIN) * scale * jnp.exp(jnp.max(log_square) / 2)


def certified(kernel: npt.ArrayLike, size: Size) -> float:
    """What `bound` approaches from above: the same maximum by singular values, float64.

    >>> blur = np.full((3, 3, 1, 1), 1 / 9)
    >>> round(certified(blur, (8, 8)), 6)
    1.0
    """
    exact = np.asarray(kernel, np.float64)
    down, across = _waves(exact.shape, size)
    blocks = np.einsum("uh,vw,hwio->uvio", down, across, exact, optimize=True)
    largest = np.linalg.svd(blocks, compute_uv=False).max()
    # rounding moves a singular value by a small multiple of 1e-16 of the largest
    return float(largest * (1 + 1e-12))


def _waves(
    shape: tuple[int, ...], size: Size
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
    """exp(-2 pi i f a) for the grid's frequencies f down and across, and taps a.

    Half the frequencies across: those of a real kernel at -f are the conjugates.
    """
    (kh, kw), (h, w) = shape[:2], (n + k - 1 for n, k in zip(size, shape, strict=False))
    down, across = np.arange(h) / h, np.arange(w // 2 + 1) / w
    return tuple(
        np.exp(-2j * np.pi * np.outer(f, np.arange(k)))
        for f, k in ((down, kh), (across, kw))
    )


def _product(how: str, *factors: npt.ArrayLike) -> Array:
    """In full precision: an accelerator's fast arithmetic may fall short of a bound."""
    return jnp.einsum(how, *factors, precision="highest")
