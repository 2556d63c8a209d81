"""Three engines against a Python loop over records; the layers that book-keeping knows.

The loop differentiates one record after another and clips with NumPy in float64.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rpjax import keys
from rpjax.gradients import (
    Flat,
    PerLayer,
    clipped_sum,
)
from rpjax.gradients.bookkeeping import survey
from rpjax.gradients.clipped import ENGINES
from rpjax.learners.losses import cross_entropy
from rpjax.models import resnet, wide_resnet
from rpjax.perturbations import Additive

COUNT = 4
VALID = np.array([True, True, False, True])


def loss_of(model, frozen=None):
    def loss(params, record):
        key, image, label = record
        whole = params if frozen is None else {**frozen, **params}
        logits = model.apply({"params": whole}, key[None], image[None], True)
        return cross_entropy(logits, label[None])[0], logits[0]

    return loss


def records_of(shape, count=COUNT):
    own = keys.per_record(keys.root(7), jnp.arange(count))
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(count, *shape)), jnp.float32)
    return own, images, jnp.asarray(rng.integers(0, 10, count), jnp.int32)


def stirred(params, seed=3):
    """Parameters off their initial zeros and ones, where gradients may be alike."""
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    moved = [p + 0.05 * rng.normal(size=p.shape).astype(np.float32) for p in leaves]
    return treedef.unflatten([jnp.asarray(p) for p in moved])


def initial(model, shape):
    quiet = model.clone(perturbation=None) if hasattr(model, "perturbation") else model
    init = jax.jit(lambda key: quiet.init(key, None, jnp.zeros((1, *shape))))
    return stirred(init(jax.random.key(0))["params"])


def looped(loss, params, records, count=COUNT):
    """Each record's gradient as a tree of float64 arrays."""
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    one = lambda i: gradient(params, jax.tree.map(lambda a: a[i], records))[0]
    return [
        jax.tree.map(lambda g: np.asarray(g, np.float64), one(i)) for i in range(count)
    ]


def norm(tree):
    return math.sqrt(sum(float(np.sum(g**2)) for g in jax.tree.leaves(tree)))


def clipped_by_hand(gradients, bound, valid=VALID):
    kept = [g for g, ok in zip(gradients, valid, strict=True) if ok]
    factors = [min(1.0, bound / norm(g)) for g in kept]
    return jax.tree.map(
        lambda *g: sum(f * a for f, a in zip(factors, g, strict=True)), *kept
    )


def assert_near(found, expected, tolerance=1e-5):
    """Every leaf to a relative error in norm."""

    def compare(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)

    jax.tree.map(compare, found, expected)


def agree(model, shape, engines=tuple(ENGINES), tolerance=1e-5, part=None):
    """All engines give the loop's clipped sum and norms for this model."""
    params, records = initial(model, shape), records_of(shape)
    frozen = None
    if part is not None:
        frozen = {k: v for k, v in params.items() if not k.startswith(part)}
        params = {k: v for k, v in params.items() if k.startswith(part)}
        assert params
        assert frozen
    loss = loss_of(model, frozen)
    gradients = looped(loss, params, records)
    norms = np.array([norm(g) for g in gradients])
    bound = float(np.median(norms))
    expected = clipped_by_hand(gradients, bound)
    for engine in engines:
        found = jax.jit(clipped_sum(loss, Flat(bound), engine))(params, records, VALID)
        np.testing.assert_allclose(found.norms, norms, rtol=tolerance)
        assert_near(found.total, expected, tolerance)


RGB = (8, 8, 3)
NETS: dict[str, Any] = {
    "ResNet-8": resnet(8, 10, perturbation=Additive(0.3)),
    "WRN-16-4": wide_resnet(16, 4, 10, groups=16, standardise=True, norm_last=True),
    "ResNet-18": resnet(18, 10),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_every_engine_gives_the_loops_clipped_sum(net):
    # the other engines do not look at the net: one shows them
    every = net is NETS["ResNet-8"]
    agree(net, RGB, tuple(ENGINES) if every else ("bookkeeping",))


OTHERS = {
    "patches": resnet(8, 10, convolution="im2col"),
    "standardised": resnet(8, 10, standardise=True, convolution="xla"),
}


@pytest.mark.parametrize("net", OTHERS.values(), ids=OTHERS)
def test_bookkeeping_knows_every_kind_of_convolution(net):
    agree(net, RGB, engines=("bookkeeping",))


def test_bottlenecks_and_the_imagenet_stem_too():
    net = resnet(50, 10, stem="imagenet")
    small = net.clone(stages=(1, 1, 1, 1), widths=(8, 8, 16, 16), stem_width=8)
    params, records = initial(small, (32, 32, 3)), records_of((32, 32, 3))
    by = lambda engine: jax.jit(clipped_sum(loss_of(small), Flat(1.0), engine))
    one, other = (by(e)(params, records, VALID).total for e in ("vmap", "bookkeeping"))
    # some leaves' gradients nearly vanish, so that only the whole can be compared
    assert norm(jax.tree.map(np.subtract, one, other)) <= 1e-5 * norm(one)


@pytest.mark.parametrize("part", ["head", ("block2", "head")])
def test_with_frozen_parameters(part):
    agree(resnet(8, 10), RGB, part=part, engines=("two_pass", "bookkeeping"))


def test_in_bfloat16_no_engine_is_much_further_off_than_the_loop():
    """Rounding costs some 6 % of this gradient, in whichever way it is computed."""
    exact, rounded = (loss_of(resnet(8, 10, dtype=d)) for d in ("float32", "bfloat16"))
    params = initial(resnet(8, 10), RGB)
    gradients = looped(exact, params, records_of(RGB))
    bound = float(np.median([norm(g) for g in gradients]))
    expected = clipped_by_hand(gradients, bound)

    def off(total):
        return norm(jax.tree.map(np.subtract, total, expected)) / norm(expected)

    again = looped(rounded, params, records_of(RGB))
    allowed = 1.25 * off(clipped_by_hand(again, bound))
    assert 0.02 < allowed < 0.3
    for engine in ENGINES:
        summing = jax.jit(clipped_sum(rounded, Flat(bound), engine))
        assert off(summing(params, records_of(RGB), VALID).total) <= allowed


# ------------------------------------------------------------------------- any layers


class Zoo(nn.Module):
    """Convolutions of every kind, and layers without a rule."""

    @nn.compact
    def __call__(self, record_keys, x, train=False):
        x = nn.Conv(8, (3, 3), (2, 2), padding="VALID")(x)
        x = nn.Conv(8, (3, 3), kernel_dilation=2, feature_group_count=2)(x)
        x = nn.LayerNorm()(nn.Conv(4, (1, 1), padding=[(1, 0), (0, 2)])(x))
        x = nn.ConvTranspose(4, (3, 3))(x)
        x = nn.Conv(6, (3, 3), padding="CIRCULAR")(x)
        x = nn.InstanceNorm()(x) + nn.Conv(6, (2, 3), input_dilation=1)(x)
        row = nn.Conv(5, (3,))(x[:, 0])
        x = nn.relu(x.mean((1, 2))) @ self.param(
            "own", nn.initializers.normal(), (6, 5)
        )
        x = x + nn.Dense(5)(row).mean(1) + nn.DenseGeneral(5)(row[:, 0])
        return nn.Dense(10, use_bias=False)(x)


class Twice(nn.Module):
    """One dense layer and one convolution, each used twice, on unlike inputs."""

    @nn.compact
    def __call__(self, record_keys, x, train=False):
        mix, turn = nn.Conv(3, (3, 3)), nn.Dense(3)
        x = mix(nn.relu(mix(x)))
        x = turn(nn.relu(turn(x.mean(1))).mean(1))
        return nn.Dense(10)(x)


class Lifted(nn.Module):
    """Layers inside remat and scan, where no call can be caught."""

    @nn.compact
    def __call__(self, record_keys, x, train=False):
        x = nn.remat(nn.Conv)(4, (3, 3))(x)
        body = nn.scan(
            lambda layer, x, _: (nn.relu(layer(x)), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        x, _ = body(nn.Dense(4), x, None)
        return nn.Dense(10)(x.mean((1, 2)))


@pytest.mark.parametrize("layers", [Zoo, Twice, Lifted])
def test_bookkeeping_leaves_no_parameter_out(layers):
    agree(layers(), (7, 7, 3), engines=("bookkeeping",))


class Words(nn.Module):
    """An embedding with repeated words, whose table also answers."""

    tied: bool

    @nn.compact
    def __call__(self, words):
        table = nn.Embed(11, 6)
        x = nn.LayerNorm()(table(words)).mean(-2)
        return table.attend(nn.Dense(6)(x)) if self.tied else nn.Dense(11)(x)


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_alone_and_tied_to_the_answer(tied):
    model = Words(tied)
    words = jnp.asarray(np.random.default_rng(0).integers(0, 11, (COUNT, 9)))
    words = words.at[0].set(3)
    params = stirred(model.init(jax.random.key(0), words[0])["params"])

    def loss(params, words):
        logits = model.apply({"params": params}, words)
        return jax.nn.logsumexp(logits) - logits[words[0]], logits

    gradients = looped(loss, params, words)
    bound = float(np.median([norm(g) for g in gradients]))
    found = jax.jit(clipped_sum(loss, Flat(bound), "bookkeeping"))(params, words, VALID)
    assert_near(found.total, clipped_by_hand(gradients, bound))


def test_a_penalty_on_the_weights_is_part_of_every_records_gradient():
    model, records = resnet(8, 10), records_of(RGB)
    params = initial(model, RGB)
    plain = loss_of(model)

    def loss(params, record):
        value, aux = plain(params, record)
        return value + 0.1 * sum(jnp.sum(p**2) for p in jax.tree.leaves(params)), aux

    gradients = looped(loss, params, records)
    found = jax.jit(clipped_sum(loss, Flat(1.0), "bookkeeping"))(params, records, VALID)
    assert_near(found.total, clipped_by_hand(gradients, 1.0))


def test_what_the_survey_finds_and_what_it_leaves_to_vmap():
    def seen(model, shape):
        params = jax.eval_shape(
            lambda: model.init(jax.random.key(0), None, jnp.zeros((1, *shape)))
        )["params"]
        found = survey(loss_of(model), params, records_of(shape))
        names = [
            "/".join(k.key for k in path)
            for path, _ in jax.tree.leaves_with_path(params)
        ]
        return {names[c.leaf] for c in found.calls}, {names[i] for i in found.elsewhere}

    kernels, others = seen(resnet(8, 10), RGB)
    assert all(name.endswith("kernel") for name in kernels)
    assert not any("kernel" in name for name in others)
    kernels, others = seen(Lifted(), (7, 7, 3))
    assert kernels == {"Dense_1/kernel"}
    assert {"CheckpointConv_0/kernel", "Dense_0/kernel"} <= others


# -------------------------------------------------------------------------- many ways


@pytest.fixture(scope="module")
def small():
    """A small convolutional net, its parameters, records, and their gradients."""
    model = resnet(8, 10).clone(stages=(1, 1), widths=(8, 8), stem_width=4)
    params, records = initial(model, RGB), records_of(RGB)
    return loss_of(model), params, records, looped(loss_of(model), params, records)


@pytest.mark.parametrize("engine", ENGINES)
def test_under_vmap_over_members(small, engine):
    loss, params, records, _ = small
    members = jax.tree.map(lambda p: jnp.stack([p, 1.1 * p]), params)
    summing = clipped_sum(loss, Flat(0.5), engine, microbatch=2)
    many = jax.jit(jax.vmap(summing, (0, None, None)))(members, records, VALID)
    alone = jax.jit(summing)
    for m in range(2):
        one = alone(jax.tree.map(lambda p, m=m: p[m], members), records, VALID)
        assert_near(jax.tree.map(lambda a, m=m: a[m], many.total), one.total)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_record_whose_gradient_is_not_finite_counts_as_zero(small, engine):
    loss, params, (own, images, labels), gradients = small
    for broken in (jnp.nan, jnp.inf, 1e30):
        records = (own, images.at[1].set(broken), labels)
        found = jax.jit(clipped_sum(loss, Flat(0.5), engine))(params, records, VALID)
        valid = np.array([True, False, False, True])
        assert not np.isfinite(found.norms[1])
        assert_near(found.total, clipped_by_hand(gradients, 0.5, valid))


@pytest.mark.parametrize("engine", ENGINES)
def test_nobody_valid_is_a_sum_of_zeros(small, engine):
    loss, params, records, _ = small
    for size in (None, 2):
        found = jax.jit(clipped_sum(loss, Flat(0.5), engine, size))(
            params, records, np.zeros(COUNT, bool)
        )
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(found.total))


def test_per_layer_clipping_is_the_same_by_bookkeeping(small):
    loss, params, records, _ = small
    one, other = (
        jax.jit(clipped_sum(loss, PerLayer(0.5), engine))(params, records, VALID)
        for engine in ("vmap", "bookkeeping")
    )
    assert_near(other.total, one.total)
