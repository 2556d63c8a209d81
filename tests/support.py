"""Tiny models, tiny data, and statistical statements with their error rates."""

import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rpjax import keys
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.models import ResNet
from rpjax.perturbations import euler_step

SHAPE = (6, 6, 1)
CLASSES = 3


class Dense(nn.Module):
    """The smallest net with a residual block: what the training laws are tested on."""

    perturbation: Any = None
    norm: str = "group"

    @nn.compact
    def __call__(self, record_keys, images, train=False):
        f = nn.relu(nn.Dense(4, name="widen")(images))
        f = nn.Dense(images.shape[-1], name="narrow")(f)
        if self.perturbation is not None:
            record_keys = keys.per_block(record_keys, 0)
        x = euler_step(record_keys, self.perturbation, images, f)
        return nn.Dense(CLASSES, name="head")(x.reshape(len(x), -1))


def tiny(**options):
    """One residual block of a real ResNet."""
    defaults = {"stages": (1,), "widths": (8,), "classes": CLASSES, "groups": 4}
    return ResNet(**{**defaults, **options})


def records(count, seed=0, shape=SHAPE):
    """Records whose brightness tells their class; ids are not positions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    noise = rng.integers(0, 100, (count, *shape))
    images = (noise + 70 * labels[:, None, None, None]).astype(np.uint8)
    return Records(images, labels, (100 + 3 * np.arange(count)).astype(np.int32))


def pixels(count, seed=0, shape=SHAPE):
    """Normalised images, (count, *shape)."""
    values = np.random.default_rng(seed).normal(size=(count, *shape))
    return jnp.asarray(values, jnp.float32)


def record_keys(count, seed=0):
    return keys.per_record(keys.root(seed), jnp.arange(count))


def variables(model, shape=SHAPE, seed=0):
    """Initial variables; compiled, since eager initialisation is slow."""
    quiet = model.clone(perturbation=None)
    init = jax.jit(lambda key: quiet.init(key, None, jnp.zeros((1, *shape))))
    return init(jax.random.key(seed))


def batch_of(data, positions, valid=None):
    """A learner's batch of these records."""
    from rpjax.learners import Batch

    positions = np.asarray(positions)
    valid = np.ones(positions.shape, bool) if valid is None else np.asarray(valid)
    leaves = (data.images, data.labels, data.ids)
    return Batch(*(jnp.asarray(a[positions]) for a in leaves), jnp.asarray(valid))


def start(learner, data, root=None):
    """A learner's initial state, compiled."""
    root = keys.root(0) if root is None else root
    return jax.jit(learner.init)(root, jnp.asarray(data.images[:1]))


def ask(learner, state, data, positions=None, root=None, noise=True):
    """Logits of the records at these positions (all of them), compiled."""
    root = keys.root(0) if root is None else root
    data = data if positions is None else data.take(np.asarray(positions))
    predict = jax.jit(learner.predict, static_argnums=4)
    images, ids = jnp.asarray(data.images), jnp.asarray(data.ids)
    return np.asarray(predict(root, state, images, ids, noise))


# ------------------------------------------------------------- statistical statements


def normal_pvalue(draws, scale):
    """How plausible it is that `draws` are independent N(0, scale^2).

    The smaller of a Kolmogorov-Smirnov test (shape) and a chi-squared test of the sum
    of squares (scale), times two: a level-alpha test rejects a true null with
    probability at most alpha.
    """
    z = np.asarray(draws, np.float64).ravel() / scale
    shape = scipy.stats.kstest(z, "norm").pvalue
    tail = scipy.stats.chi2(len(z)).cdf(np.sum(z**2))
    return 2 * min(shape, 2 * min(tail, 1 - tail))


def assert_normal(draws, scale):
    """`draws` are N(0, scale^2); error rate 1e-4, and 10 % too much or little is seen.

    The power needs some 4 000 draws: the sample's scale is then known to 1.1 %.
    """
    assert np.size(draws) >= 4_000, "too few draws to tell 10 % apart"
    assert normal_pvalue(draws, scale) > 1e-4
    assert normal_pvalue(draws, 1.1 * scale) < 1e-6
    assert normal_pvalue(draws, scale / 1.1) < 1e-6


def assert_uncorrelated(a, b):
    """Correlation zero at an error rate of 6e-5; one half is seen from 100 pairs on."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    assert len(a) >= 100
    assert abs(np.corrcoef(a, b)[0, 1]) * math.sqrt(len(a)) < 4


def assert_binomial(hits, trials, probability, error_rate=1e-4):
    """`hits` of `trials` come from this probability."""
    pvalue = scipy.stats.binomtest(int(hits), int(trials), probability).pvalue
    assert pvalue > error_rate, (hits, trials, probability)


# ------------------------------------------------------------------------------ trees


def assert_same(one, other):
    """Equal bit for bit, leaf by leaf."""
    jax.tree.map(np.testing.assert_array_equal, _plain(one), _plain(other))


def assert_close(one, other, rtol=1e-5, atol=1e-5):
    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)

    jax.tree.map(compare, _plain(one), _plain(other))


def differ(one, other):
    """Whether two trees differ in some leaf."""
    pairs = zip(
        jax.tree.leaves(_plain(one)), jax.tree.leaves(_plain(other)), strict=True
    )
    return any(not np.array_equal(a, b) for a, b in pairs)


def _plain(tree):
    """Keys as numbers, everything on the host."""

    def plain(leaf):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)

    return jax.tree.map(plain, tree)


# ------------------------------------------------------------------------ refusals


def refused(function, *args, **kwargs) -> str:
    """The message with which the call is refused: one line."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -------------------------------------------------------------------------- in NumPy


def images(count, *shape, seed=0):
    """Random bytes (count, *shape)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def np_conv(x, kernel, stride=1):
    """SAME convolution by its definition."""
    kh, kw, _, features = kernel.shape
    oh, ow = (-(-size // stride) for size in x.shape[1:3])
    total = [
        max((o - 1) * stride + k - s, 0)
        for o, k, s in zip((oh, ow), (kh, kw), x.shape[1:3], strict=True)
    ]
    x = np.pad(x, ((0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)))
    out = np.zeros((len(x), oh, ow, features))
    for i, j in itertools.product(range(oh), range(ow)):
        window = x[:, i * stride : i * stride + kh, j * stride : j * stride + kw]
        out[:, i, j] = np.tensordot(window, kernel, 3)
    return out


def randomised(weights):
    """Weights without the zeros and ones of an initialisation, which hide mistakes."""
    leaves, tree = jax.tree.flatten(weights)
    rng = np.random.default_rng(0)
    return tree.unflatten(
        [a + jnp.asarray(0.1 * rng.normal(size=a.shape), a.dtype) for a in leaves]
    )
