"""Drawn figures in one frame: centred, upright, of one size, whoever drew them.

Two collections of digits differ in position, slant, size and proportion more than in
shape. All four are moments of the ink: the frame moves its centre to the middle, takes
the slant off by a shear along the lines, and scales its spread along and across. Each
is computed of one image alone, so framing is a public map like any other.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

SIDE = 24
"""Pixels of a framed image's side."""

# standard deviations of the ink along columns and lines, in framed pixels
TALL, WIDE = 5.0, 4.0
# how far proportions are evened out: 0 keeps them, 1 gives every figure the same
EVENED = 0.6
# a figure thinner than this share of its height is a stroke, and stays one
THINNEST = 0.35
# a tenth of a pixel or so, where there is no ink at all
LEAST = 0.05

Figure = Float[Array, "h w"]
Scalar = Float[Array, ""] | float


def framed(
    figure: Figure,
    *,
    taller: Scalar = 1.0,
    wider: Scalar = 1.0,
    slant: Scalar = 0.0,
    down: Scalar = 0.0,
    right: Scalar = 0.0,
) -> Float[Array, "side side"]:
    """A bright figure on a dark ground in its frame, (24, 24), brightest pixel 1.

    The others disturb the frame, for training: factors on height and width, a shear in
    columns a line, a shift in pixels.
    """
    middle, spread = moments(figure)
    height, across, shear = spread[0], spread[1], spread[2]
    up = jnp.sqrt(height)
    width = jnp.sqrt(jnp.maximum(across - shear**2 / height, LEAST))
    width = jnp.maximum(width, THINNEST * up)
    by_line = up / TALL / taller
    by_column = (up / TALL) ** (1 - EVENED) * (width / WIDE) ** EVENED / wider
    lines, columns = grid(SIDE)
    lines, columns = (lines - down) * by_line, (columns - right) * by_column
    columns = columns + (shear / height + slant) * lines
    return brightest_one(sampled(figure, middle[0] + lines, middle[1] + columns))


def moments(figure: Figure) -> tuple[Float[Array, " 2"], Float[Array, " 3"]]:
    """Centre (line, column) of the ink, and its variances along lines, columns, both.

    The third is the covariance of line and column.
    """
    lines, columns = jnp.indices(figure.shape, jnp.float32)
    ink = figure / jnp.maximum(jnp.sum(figure), 1e-6)
    middle = jnp.stack([jnp.sum(ink * lines), jnp.sum(ink * columns)])
    below, beside = lines - middle[0], columns - middle[1]
    spread = [below * below, beside * beside, below * beside]
    found = jnp.stack([jnp.sum(ink * each) for each in spread])
    return middle, found + jnp.array([LEAST, LEAST, 0.0])


def sampled(
    figure: Figure, lines: Float[Array, "a b"], columns: Float[Array, "a b"]
) -> Float[Array, "a b"]:
    """The figure between its pixels, bilinear; 0 outside.

    As jax.scipy.ndimage.map_coordinates with order 1, at a tenth of its time on a CPU.
    """
    top, left = jnp.floor(lines), jnp.floor(columns)
    down, right = lines - top, columns - left

    def at(line: Array, column: Array) -> Array:
        height, width = figure.shape
        inside = (line >= 0) & (line < height) & (column >= 0) & (column < width)
        line = jnp.clip(line, 0, height - 1).astype(jnp.int32)
        column = jnp.clip(column, 0, width - 1).astype(jnp.int32)
        return jnp.where(inside, figure[line, column], 0.0)

    above = (1 - right) * at(top, left) + right * at(top, left + 1)
    below = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
    return (1 - down) * above + down * below


def grid(side: int) -> tuple[Float[Array, "s s"], Float[Array, "s s"]]:
    """Lines and columns of a square, counted from its middle."""
    lines, columns = jnp.indices((side, side), jnp.float32)
    return lines - (side - 1) / 2, columns - (side - 1) / 2


def brightest_one(figure: Figure) -> Figure:
    """The figure scaled to a brightest pixel of 1."""
    return figure / jnp.maximum(jnp.max(figure), 1e-3)
