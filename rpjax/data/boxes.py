"""Random parts of images, resized to the size of the whole, on the device.

The random-resized crop of Szegedy et al. (arXiv 1409.4842), by the law of torchvision's
`RandomResizedCrop`: a share of the area drawn uniformly, an aspect ratio drawn
uniformly in its logarithm, a place drawn uniformly; bilinear.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rpjax.annotations import PRNGKey

# sizes that are drawn at once; the first that fits into the image is taken
ATTEMPTS = 10
Range = tuple[float, float]


class Box(NamedTuple):
    """A part of an image, in whole pixels."""

    top: Int[Array, ""]
    left: Int[Array, ""]
    height: Int[Array, ""]
    width: Int[Array, ""]


def random_box(key: PRNGKey, shape: tuple[int, int], area: Range, aspect: Range) -> Box:
    """A box within an image of this height and width.

    area: least and largest share of the image. aspect: least and largest width over
    height. Where none of ten sizes fits, the largest box of such an aspect is taken.
    """
    height, width = shape
    size_key, place_key = jax.random.split(key)
    share, bent = jax.random.uniform(size_key, (2, ATTEMPTS))
    pixels = height * width * (area[0] + (area[1] - area[0]) * share)
    low, high = map(math.log, aspect)
    ratio = jnp.exp(low + (high - low) * bent)
    drawn = jnp.stack([jnp.sqrt(pixels / ratio), jnp.sqrt(pixels * ratio)])
    sizes = jnp.round(drawn).astype(jnp.int32)
    whole = jnp.array([height, width], jnp.int32)
    fits = ((sizes >= 1) & (sizes <= whole[:, None])).all(0)
    size = sizes[:, jnp.argmax(fits)]
    size = jnp.where(fits.any(), size, jnp.array(_largest(shape, aspect), jnp.int32))
    place = jax.random.randint(place_key, (2,), 0, whole - size + 1)
    return Box(*place, *size)


def _largest(shape: tuple[int, int], aspect: Range) -> tuple[int, int]:
    height, width = shape
    tall = min(height, round(width / aspect[0]))
    wide = min(width, round(height * aspect[1]))
    return max(1, tall), max(1, wide)


def resized(image: Float[Array, "h w c"], box: Box) -> Float[Array, "h w c"]:
    """The part of the image that lies in the box, as large as the image.

    What lies outside the box has no weight: its outermost pixels are repeated.
    """
    rows = _weights(box.top, box.height, image.shape[0])
    columns = _weights(box.left, box.width, image.shape[1])
    # not with factors rounded to few digits, which is some devices' default
    exact = jax.lax.Precision.HIGHEST
    part = jnp.einsum("yi,ijc->yjc", rows, image, precision=exact)
    return jnp.einsum("xj,yjc->yxc", columns, part, precision=exact)


def _weights(
    first: Int[Array, ""], count: Int[Array, ""], size: int
) -> Float[Array, "new old"]:
    """Of each old pixel for each new one, between the two that are nearest."""
    old = jnp.arange(size, dtype=jnp.float32)
    inside = jnp.clip((old + 0.5) * count / size - 0.5, 0, count - 1)
    return jnp.maximum(0, 1 - jnp.abs((first + inside)[:, None] - old[None]))
