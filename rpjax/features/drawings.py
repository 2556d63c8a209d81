"""Public images: known digits deformed, and images made of random numbers.

All that a public trunk is fitted on comes from here: scikit-learn's digits, drawn again
and again as other hands might have; strokes along random curves; noise with the
spectrum of natural images (Baradad et al., "Learning to See by Looking at Noise", arXiv
2106.05963); pieces of scikit-learn's two sample photographs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rpjax.annotations import PRNGKey
from rpjax.features.framing import Figure, framed, grid, sampled

# a source digit is magnified to this side, with a margin of a sixth all round
MAGNIFIED, MARGIN = 48, 8
DRAWN = 36
STROKE = 28


def magnified(images: UInt8[np.ndarray, "n h w 1"]) -> Float[np.ndarray, "n 48 48"]:
    """Small grey images as large smooth ones in [0, 1], with a dark margin."""
    inner = MAGNIFIED - 2 * MARGIN
    pixels = jnp.asarray(images[..., 0], jnp.float32) / 255
    large = jax.image.resize(pixels, (len(pixels), inner, inner), "cubic")
    around = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))
    return np.pad(np.clip(large, 0, 1), around)


def deformed(key: PRNGKey, figure: Figure) -> Float[Array, "side side"]:
    """A magnified digit as another hand might draw it, in a slightly disturbed frame.

    Turned by up to 15 degrees, sheared, stretched, bent by a smooth random field, with
    thicker or thinner, softer or sharper strokes.
    """
    by_field, by_numbers = jax.random.split(key)
    u = jax.random.uniform(by_numbers, (11,), minval=-1.0)
    field = jax.random.uniform(by_field, (2, 5, 5), minval=-1.7, maxval=1.7)
    bent = jax.image.resize(field, (2, DRAWN, DRAWN), "cubic")
    lines, columns = grid(DRAWN)
    lines, columns = lines + bent[0], columns + bent[1]
    angle = 0.26 * u[0]
    down = jnp.cos(angle) * lines - jnp.sin(angle) * columns
    right = jnp.sin(angle) * lines + jnp.cos(angle) * columns
    right = right * jnp.exp(0.25 * u[1]) + 0.35 * u[2] * down
    scale, middle = MAGNIFIED / DRAWN, (MAGNIFIED - 1) / 2
    drawn = sampled(figure, middle + scale * down, middle + scale * right)
    inked = _inked(drawn, 0.45 + 0.2 * u[3], 8.0 * jnp.exp(0.7 * u[4]))
    placed = framed(
        inked,
        taller=jnp.exp(0.1 * u[5]),
        wider=jnp.exp(0.12 * u[6]),
        slant=0.15 * u[7],
        down=u[8],
        right=u[9],
    )
    return placed ** jnp.exp(0.5 * u[10])


def _inked(drawn: Figure, level: Array, sharpness: Array) -> Figure:
    """Strokes where it is brighter than the level: soft, and 0 on the ground."""
    ground = jax.nn.sigmoid(-level * sharpness)
    ink = jax.nn.sigmoid((drawn - level) * sharpness)
    return jnp.maximum((ink - ground) / (1 - ground), 0.0)


def redrawn(
    figures: Float[np.ndarray, "n 48 48"], draws: int, key: PRNGKey
) -> UInt8[np.ndarray, "m 24 24 1"]:
    """Every figure deformed so many times, framed, as bytes; the first draw first."""
    drawn = [
        _redrawn(jax.random.split(jax.random.fold_in(key, draw), len(figures)), figures)
        for draw in range(draws)
    ]
    return np.concatenate([np.asarray(each) for each in drawn])[..., None]


@jax.jit
def _redrawn(keys: Array, figures: Array) -> UInt8[Array, "n 24 24"]:
    return jax.vmap(lambda key, figure: _bytes(deformed(key, figure)))(keys, figures)


def strokes(key: PRNGKey, count: int) -> UInt8[np.ndarray, "n 28 28 1"]:
    """Images of one stroke each, along a smooth curve through random points."""
    one = jax.jit(jax.vmap(lambda k: _bytes(_stroke(k))))
    return np.asarray(one(jax.random.split(key, count)))[..., None]


def _stroke(key: PRNGKey) -> Figure:
    by_points, by_width = jax.random.split(key)
    points = jax.random.uniform(by_points, (5, 2), minval=4.0, maxval=24.0)
    corners = points[1:-1]
    starts, ends = (points[:-2] + corners) / 2, (corners + points[2:]) / 2
    t = jnp.linspace(0.0, 1.0, 12)[:, None, None]
    curve = (1 - t) ** 2 * starts[None] + 2 * t * (1 - t) * corners[None]
    curve = (curve + t**2 * ends[None]).reshape(-1, 2)
    pixels = jnp.stack(jnp.indices((STROKE, STROKE), jnp.float32), -1)
    apart = pixels[:, :, None, :] - curve[None, None]
    distance = jnp.sqrt(jnp.min(jnp.sum(apart**2, -1), -1))
    width = jax.random.uniform(by_width, minval=0.8, maxval=2.0)
    return jax.nn.sigmoid(3 * (width - distance))


def clouds(key: PRNGKey, count: int, side: int) -> UInt8[np.ndarray, "n s s 3"]:
    """Colour noise whose amplitude falls as 1/frequency, as in natural images."""
    down, right = jnp.fft.fftfreq(side)[:, None], jnp.fft.fftfreq(side)[None, :]
    fall = 1 / jnp.maximum(jnp.hypot(down, right), 1 / side)

    def one(key: PRNGKey) -> Array:
        white = jax.random.uniform(key, (side, side, 3), minval=-1.0)
        waves = jnp.fft.fft2(white, axes=(0, 1)) * fall[..., None]
        shaped = jnp.real(jnp.fft.ifft2(waves, axes=(0, 1)))
        # the three colours mostly move together
        mixed = shaped @ (0.15 * jnp.eye(3) + 0.85 / 3)
        return _bytes(jax.nn.sigmoid(1.5 * mixed / jnp.std(mixed)))

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, count)))


def pieces(key: PRNGKey, count: int, side: int) -> UInt8[np.ndarray, "n s s 3"]:
    """Square pieces of scikit-learn's two photographs, at several magnifications."""
    from sklearn.datasets import load_sample_images

    photographs = [np.asarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return np.stack([_piece(rng, photographs, side) for _ in range(count)])


def _piece(
    rng: np.random.Generator, photographs: list[np.ndarray], side: int
) -> np.ndarray:
    image = photographs[rng.integers(len(photographs))]
    step = int(rng.integers(1, 9))
    top, left = (int(rng.integers(n - side * step + 1)) for n in image.shape[:2])
    cut = image[top : top + side * step, left : left + side * step]
    blocks = cut.reshape(side, step, side, step, 3).mean((1, 3))
    piece: np.ndarray = blocks[:, :: rng.choice((-1, 1))].round().astype(np.uint8)
    return piece


def _bytes(values: Array) -> UInt8[Array, "..."]:
    return jnp.round(255 * jnp.clip(values, 0, 1)).astype(jnp.uint8)
