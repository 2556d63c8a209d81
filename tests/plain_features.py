"""A trunk that does nothing, private records for it, and releases of known laws."""

import jax
import jax.numpy as jnp
import numpy as np

from rpjax import features
from rpjax.data.records import numbered
from rpjax.features.trunk import Trunk

WIDTH = 12


@jax.jit
def _pixels(images):
    return images.reshape(len(images), -1).astype(jnp.float32) / 255


def plain_trunk(classes=1, bound=1.0, dimension=WIDTH, sample=None, **fields):
    """Pixels are the features; centres at zero, unless a sample has others."""
    centres = np.zeros((classes, dimension)) if sample is None else sample.centres
    spread = fields.pop("spread", np.eye(dimension) / dimension)
    return Trunk("plain", "nothing", _pixels, centres, bound, spread, sample, **fields)


def private(count, classes=3, seed=0, width=WIDTH):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, width, 1)).astype(np.uint8)
    return numbered(images, rng.integers(0, classes, count).astype(np.int32), 50)


def gaussian_release(means, covariance, count, noise, seed, **fields):
    """Released features of Gaussian classes that no bound has touched."""
    rng = np.random.default_rng(seed)
    classes, dimension = means.shape
    labels = np.repeat(np.arange(classes), count)
    clean = rng.multivariate_normal(np.zeros(dimension), covariance, len(labels))
    noisy = means[labels] + clean + noise * rng.standard_normal(clean.shape)
    trunk = plain_trunk(bound=100.0, dimension=dimension, **fields)
    return features.Released(noisy, labels, classes, trunk, noise, 1e-5, "fixed")
