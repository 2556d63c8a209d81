"""Convolutions and norms of the nets: own ones against the library's."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support import (
    assert_close,
    differ,
    np_conv,
    pixels,
    randomised,
    tiny,
    variables,
)

from rpjax.models import canonical, convolution, im2col, resnet
from rpjax.models.conv import StandardisedConv, standardise
from rpjax.models.norms import GroupNorm

# ----------------------------------------------------------------------- convolutions


def test_weight_standardisation_gives_mean_zero_and_variance_one_over_fan_in():
    kernel = np.random.default_rng(0).normal(2.0, 3.0, (3, 3, 5, 4)).astype(np.float32)
    found = np.asarray(standardise(jnp.asarray(kernel)))
    mean, std = kernel.mean((0, 1, 2)), kernel.std((0, 1, 2))
    np.testing.assert_allclose(
        found, (kernel - mean) / std / 45**0.5, rtol=1e-4, atol=1e-6
    )
    flat = standardise(jnp.ones((3, 3, 5, 4)))
    assert np.abs(flat).max() == 0  # not 0 / 0


def test_a_standardised_convolution_is_convolution_gain_and_bias():
    layer = StandardisedConv(4, (3, 3), (2, 2))
    x = pixels(2, shape=(6, 6, 5))
    weights = randomised(jax.jit(layer.init)(jax.random.key(0), x))
    (kernel,) = jax.tree.leaves(weights["params"]["Conv_0"])
    expected = np_conv(np.asarray(x), np.asarray(standardise(kernel)), stride=2)
    gain, bias = (np.asarray(weights["params"][name]) for name in ("gain", "bias"))
    expected = expected * gain + bias
    np.testing.assert_allclose(layer.apply(weights, x), expected, rtol=1e-4, atol=1e-5)


def test_standardised_nets_ignore_shift_and_scale_of_their_kernels():
    model = tiny(standardise=True)
    weights = randomised(variables(model))

    def moved(path, leaf):
        return 3 * leaf + 1 if "Conv_0" in jax.tree_util.keystr(path) else leaf

    other = jax.tree_util.tree_map_with_path(moved, weights)
    assert differ(weights, other)
    ask = jax.jit(model.apply)
    assert_close(ask(weights, None, pixels(2)), ask(other, None, pixels(2)), atol=1e-4)


NHWC = ("NHWC", "HWIO", "NHWC")
CONVOLUTIONS = [
    # image, kernel, strides, padding
    ((6, 6), (3, 3), (1, 1), "SAME"),
    ((6, 6), (3, 3), (2, 2), "SAME"),
    ((7, 5), (3, 3), (2, 2), "SAME"),
    ((6, 6), (1, 1), (2, 2), "SAME"),
    ((9, 9), (7, 7), (2, 2), "SAME"),
    ((6, 6), (2, 4), (1, 3), "SAME"),
    ((6, 6), (2, 2), (1, 1), "SAME_LOWER"),
    ((6, 6), (3, 3), (1, 2), "VALID"),
    ((5, 5), (5, 5), (1, 1), "VALID"),
    ((6, 6), (3, 3), (2, 2), ((1, 0), (0, 2))),
    ((1, 1), (3, 3), (1, 1), "SAME"),
    ((2, 2), (1, 1), (3, 3), "VALID"),
]


def convolutions_agree(own, x, kernel, weights, **options):
    """Values and both gradients of `own` are those of the compiler's convolution."""

    def loss(convolve, x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = convolve(x, kernel, dimension_numbers=numbers, **options)
        return jnp.sum(jnp.sin(y) * weights[: y.size].reshape(y.shape)), y

    def both(x, kernel):
        return [
            jax.value_and_grad(loss, (1, 2), has_aux=True)(c, x, kernel)
            for c in (own, lax.conv_general_dilated)
        ]

    found, expected = jax.jit(both)(x, kernel)
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


OWN = pytest.mark.parametrize("own", [canonical, im2col], ids=["canonical", "im2col"])


@OWN
@pytest.mark.parametrize(("size", "kernel", "strides", "padding"), CONVOLUTIONS)
def test_a_convolution_of_ours_is_the_compilers(own, size, kernel, strides, padding):
    rng = np.random.default_rng(0)
    x, k, weights = (
        jnp.asarray(rng.normal(size=s), jnp.float32)
        for s in ((2, *size, 3), (*kernel, 3, 4), (2_000,))
    )
    convolutions_agree(own, x, k, weights, window_strides=strides, padding=padding)


@OWN
@pytest.mark.parametrize(
    "options",
    [
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1), "padding": ((1, 1), (1, 1))},
        {"rhs_dilation": (1, 1), "lhs_dilation": (1, 1)},
    ],
)
def test_dilated_convolutions_are_handed_on(own, options):
    x, k = pixels(2, shape=(6, 6, 3)), pixels(3, shape=(3, 3, 4))
    weights = pixels(1, shape=(2_000,))[0]
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    convolutions_agree(own, x, k, weights, **options)


@OWN
def test_grouped_convolutions_are_handed_on(own):
    x, k = pixels(2, shape=(6, 6, 4)), pixels(3, shape=(3, 2, 4))
    weights = pixels(1, shape=(2_000,))[0]
    options = {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2}
    convolutions_agree(own, x, k, weights, **options)


def test_all_kinds_of_convolution_make_the_same_net():
    images = pixels(4, shape=(9, 9, 2))
    kinds = ("canonical", "im2col", "xla")
    models = [resnet(8, 3, convolution=kind) for kind in kinds]
    weights = variables(models[0], (9, 9, 2))
    canon, patches, compiled = (model.apply(weights, None, images) for model in models)
    assert_close(canon, compiled, rtol=1e-4, atol=1e-5)
    assert_close(patches, compiled, rtol=1e-4, atol=1e-5)


def test_inside_a_loop_gradients_of_canonical_convolutions_have_the_librarys_form(
    optimised,
):
    """What the compiler cannot call a library for, it writes as naive loops there."""

    def forms(own):
        def loss(x, k):
            return jnp.sum(jnp.sin(own(x, k, (2, 2), "SAME", dimension_numbers=NHWC)))

        def steps(x, k, n):
            def step(_, at):
                return jax.tree.map(jnp.add, at, jax.grad(loss, (0, 1))(*at))

            return lax.fori_loop(0, n, step, (x, k))

        x, k = pixels(4, shape=(8, 8, 3)), pixels(3, shape=(3, 3, 5))
        text = jax.jit(steps).lower(x, k, 3).compile().as_text()
        return set(re.findall(r"convolution\(.*dim_labels=(\S+?)[,\s]", text))

    assert forms(canonical) == {"b01f_01io->b01f"}
    assert forms(lax.conv_general_dilated) > {"b01f_01io->b01f"}


def test_automatic_convolution_is_canonical_on_cpu():
    assert convolution("auto") is canonical
    assert convolution("im2col") is im2col
    assert convolution("xla") is lax.conv_general_dilated


# ------------------------------------------------------------------------------- norms


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
@pytest.mark.parametrize("groups", [1, 4, 12])
def test_group_normalisation_is_flaxs_in_value_and_gradient(groups, dtype):
    x = (3 * pixels(5, shape=(7, 4, 12)) + 1).astype(dtype)
    weights = {"scale": pixels(1, 1, (2, 3, 2)).ravel(), "bias": jnp.arange(12.0)}
    along = pixels(5, seed=2, shape=(7, 4, 12))

    def loss(kind, x, weights):
        y = kind(num_groups=groups, dtype=dtype).apply({"params": weights}, x)
        assert y.dtype == dtype
        return jnp.sum(jnp.sin(y.astype(jnp.float32)) * along)

    found, expected = (
        jax.value_and_grad(loss, (1, 2))(kind, x, weights)
        for kind in (GroupNorm, nn.GroupNorm)
    )
    tolerance = 1e-4 if dtype == jnp.float32 else 0.05
    assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_group_normalisation_of_equal_pixels_is_finite():
    x = jnp.full((2, 3, 3, 4), 1e3)
    layer = GroupNorm(num_groups=2)
    weights = layer.init(jax.random.key(0), x)
    assert_close(layer.apply(weights, x), jnp.zeros_like(x), atol=1e-3)
    gradient = jax.grad(lambda x: layer.apply(weights, x).sum())(x)
    assert np.isfinite(gradient).all()
