"""Trunks that have learnt nothing: random filters, or pieces of photographs as filters.

Filters, a rectifier, means over cells, unit norm, then the principal directions of
public images: the bottom layer of Coates, Ng, Lee, "An Analysis of Single-Layer
Networks in Unsupervised Feature Learning", AISTATS 2011. What the public images are
makes the centre and the directions: random strokes for drawn figures, noise with the
spectrum of natural images for colour ones, or pieces of scikit-learn's two photographs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rpjax import keys as rp_keys
from rpjax.errors import InputError
from rpjax.features.directions import Projection, principal
from rpjax.features.drawings import clouds, pieces, strokes
from rpjax.features.framing import framed
from rpjax.features.trunk import Trunk, digests, in_batches

PUBLIC = 4000
"""Public images for centre and directions."""

Filters = Float[Array, "s s c f"]
Bank = Callable[[UInt8[Array, "b h w c"]], Float[Array, "b d"]]


def random_trunk(
    shape: tuple[int, int, int],
    seed: int = 0,
    *,
    dimension: int = 40,
    filters: int = 32,
) -> Trunk:
    """Random filters; centre, directions and bound from images made of random numbers.

    shape: (height, width, channels) of the images. Grey ones are drawn figures, bright
    on dark, which are framed first; colour ones are squares.
    """
    key = rp_keys.domain(rp_keys.root(seed), "init")
    by_filters, by_images = jax.random.split(key)
    grey = _grey(shape)
    public = strokes(by_images, PUBLIC) if grey else clouds(by_images, PUBLIC, shape[0])
    raw = jax.random.uniform(by_filters, (7, 7, shape[2], filters), minval=-1.0)
    what = "random strokes" if grey else "noise with the spectrum of natural images"
    return _trunk("random", what, public, _bank(_filters(raw), grey), dimension)


def photograph_trunk(
    shape: tuple[int, int, int],
    seed: int = 0,
    *,
    dimension: int = 40,
    filters: int = 128,
) -> Trunk:
    """Pieces of two photographs as filters, and pieces for centre and directions."""
    if _grey(shape):
        raise InputError(f"shape is {shape}; photographs are of colour, (s, s, 3)")
    key = rp_keys.domain(rp_keys.root(seed), "init")
    by_filters, by_images = jax.random.split(key)
    public = pieces(by_images, PUBLIC, shape[0])
    patches = pieces(by_filters, 20 * filters, 6).astype(np.float64) / 255
    white = _whitened(patches.reshape(len(patches), -1))[:filters]
    raw = white.reshape(filters, 6, 6, 3).transpose(1, 2, 3, 0)
    bank = _bank(_filters(jnp.asarray(raw, jnp.float32)), False)
    return _trunk("photographs", "pieces of two photographs", public, bank, dimension)


def _whitened(patches: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Patches without the correlation of neighbouring pixels (ZCA)."""
    own = patches - patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(own.T) + 1e-3 * np.eye(own.shape[1]))
    white: np.ndarray = own @ (vectors / np.sqrt(values)) @ vectors.T
    return white


def _trunk(
    name: str, what: str, public: np.ndarray, bank: Bank, dimension: int
) -> Trunk:
    raw = in_batches(jax.jit(bank), public)
    projection = principal(raw, dimension)
    bound = float(np.median(np.linalg.norm(projection(raw), axis=1)))
    features = _within(bank, projection, bound)
    return Trunk(
        name=name,
        source=f"random numbers and {what}",
        features=features,
        centres=np.zeros((1, dimension)),
        bound=bound,
        spread=np.cov(in_batches(features, public).T),
        seen=digests(public),
    )


def _within(bank: Bank, projection: Projection, bound: float) -> Bank:
    """Projected features, scaled down to the bound where they are longer.

    With one centre for all classes the clipping of a release can be part of the map, so
    that clean test images go through it too.
    """
    origin = jnp.asarray(projection.origin, jnp.float32)[None]
    matrix = jnp.asarray(projection.matrix, jnp.float32)

    def features(images: Array) -> Array:
        found = (bank(images) - origin) @ matrix
        norms = jnp.sqrt(jnp.sum(found**2, 1, keepdims=True))
        return found * jnp.minimum(1.0, bound / jnp.maximum(norms, 1e-12))

    compiled: Bank = jax.jit(features)
    return compiled


def _bank(filters: Filters, grey: bool) -> Bank:
    def bank(images: Array) -> Array:
        pixels = images.astype(jnp.float32) / 255
        if grey:
            pixels = jax.vmap(framed)(pixels[..., 0])[..., None]
        answers = jnp.maximum(_convolved(pixels, filters), 0.0)
        cells = answers.shape[1] // (6 if grey else 4)
        means = _cells(answers, cells).reshape(len(pixels), -1)
        norms = jnp.sqrt(jnp.sum(means**2, 1, keepdims=True))
        return means / jnp.maximum(norms, 1e-12)

    return bank


def _filters(raw: Filters) -> Filters:
    """Of mean zero in every channel and of norm one."""
    own = raw - raw.mean((0, 1), keepdims=True)
    return own / jnp.sqrt(jnp.sum(own**2, (0, 1, 2), keepdims=True))


def _convolved(pixels: Float[Array, "b h w c"], filters: Filters) -> Array:
    return jax.lax.conv_general_dilated(
        pixels, filters, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _cells(answers: Float[Array, "b h w f"], side: int) -> Array:
    """Means over squares of this side; what is left over at the edge is left out."""
    whole = answers.shape[1] // side
    kept = answers[:, : whole * side, : whole * side]
    shape = (len(answers), whole, side, whole, side, answers.shape[-1])
    return kept.reshape(shape).mean((2, 4))


def _grey(shape: tuple[int, int, int]) -> bool:
    if shape[2] == 1:
        return True
    if shape[2] == 3 and shape[0] == shape[1]:
        return False
    raise InputError(f"shape is {shape}; must be (h, w, 1) or (s, s, 3)")
