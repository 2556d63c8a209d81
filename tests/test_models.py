"""Residual nets: sizes, arithmetic, where the noise enters, and who influences whom."""

import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support import (
    SHAPE,
    assert_close,
    assert_normal,
    assert_same,
    assert_uncorrelated,
    differ,
    pixels,
    record_keys,
    tiny,
    variables,
)

from rpjax.errors import InputError
from rpjax.models import canonical, convolution, im2col, resnet, wide_resnet
from rpjax.models.conv import StandardisedConv, standardise
from rpjax.models.norms import GroupNorm
from rpjax.models.resnet import Block
from rpjax.perturbations import Additive, Multiplicative

# ------------------------------------------------------------------------------ sizes


def shapes(model, shape):
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(
        lambda x: model.clone(perturbation=None).init(jax.random.key(0), None, x),
        images,
    )


def parameters(model, shape):
    leaves = jax.tree.leaves(shapes(model, shape)["params"])
    return sum(leaf.size for leaf in leaves)


# The published counts are those of post-activated nets. Normalisation before instead of
# after the weights moves its parameters from one width to the next and keeps their sum,
# so only the shortcuts differ: 1x1 convolutions where He et al. pad with zeros on CIFAR
# (16 32 + 32 64 weights more), and no normalisation in the shortcut of the four-stage
# nets (two parameters a channel less).
PROJECTIONS = 16 * 32 + 32 * 64


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (8, 75_290 + PROJECTIONS),
        (20, 269_722 + PROJECTIONS),
        (56, 853_018 + PROJECTIONS),
        (110, 1_727_962 + PROJECTIONS),
    ],
)
def test_a_cifar_resnet_has_the_published_number_of_parameters(depth, expected):
    assert parameters(resnet(depth, classes=10), (32, 32, 3)) == expected


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (18, 11_689_512 - 2 * (128 + 256 + 512)),
        (34, 21_797_672 - 2 * (128 + 256 + 512)),
        (50, 25_557_032 - 2 * (256 + 512 + 1024 + 2048)),
    ],
)
def test_a_four_stage_resnet_has_the_published_number_of_parameters(depth, expected):
    model = resnet(depth, classes=1000, stem="imagenet")
    assert parameters(model, (224, 224, 3)) == expected


def test_a_wide_resnet_has_the_published_number_of_parameters():
    assert parameters(wide_resnet(16, 4, classes=10), (32, 32, 3)) == 2_748_890


def de_et_al(depth, width):
    options = {"standardise": True, "norm_last": True, "shortcut": "own"}
    return wide_resnet(depth, width, classes=10, groups=16, **options)


@pytest.mark.parametrize(("depth", "width"), [(16, 4), (40, 4), (10, 1)])
def test_the_net_of_de_et_al_has_the_parameters_of_its_description(depth, width):
    def convolution(side, before, after):
        return side**2 * before * after + 2 * after  # and gain and bias

    expected, before = convolution(3, 3, 16), 16
    for channels in (16 * width, 32 * width, 64 * width):
        expected += 2 * before + convolution(1, before, channels)  # shortcut
        for _ in range((depth - 4) // 6):
            expected += 2 * before + convolution(3, before, channels)
            expected += 2 * channels + convolution(3, channels, channels)
            before = channels
    expected += 2 * before + (before + 1) * 10
    assert parameters(de_et_al(depth, width), (32, 32, 3)) == expected


def test_batch_norm_has_as_many_parameters_as_group_norm():
    one, other = (resnet(8, classes=10, norm=norm) for norm in ("group", "batch"))
    assert parameters(one, (32, 32, 3)) == parameters(other, (32, 32, 3))


def test_a_depth_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="depth is 9; a ResNet has one of"):
        resnet(9, classes=10)
    for depth in (4, 15):
        with pytest.raises(InputError, match="6 n \\+ 4"):
            wide_resnet(depth, 4, classes=10)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 2), (28, 28, 1), (64, 64, 4)])
def test_any_image_size_and_number_of_channels_gives_logits(stem, shape):
    model = resnet(8, classes=7, stem=stem, perturbation=Additive(0.5))
    images = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    logits = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), record_keys(3), x)[0],
        images,
    )
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)


def test_a_stage_but_the_first_halves_the_resolution():
    model = resnet(20, classes=10, dtype=jnp.bfloat16)
    outputs = jax.eval_shape(
        lambda x: traced(model, variables_of(model, x), None, x),
        pixels(2, shape=(9, 9, 3)),
    )
    assert [o.shape for o in outputs] == [
        *[(2, 9, 9, 16)] * 3,
        *[(2, 5, 5, 32)] * 3,
        *[(2, 3, 3, 64)] * 3,
    ]
    assert {o.dtype for o in outputs} == {jnp.dtype(jnp.bfloat16)}


def variables_of(model, x):
    return model.init(jax.random.key(0), None, x)


def traced(model, weights, keys, images):
    """The outputs of the residual blocks, in order."""
    _, captured = model.apply(
        weights,
        keys,
        images,
        capture_intermediates=lambda module, _: isinstance(module, Block),
    )
    blocks = captured["intermediates"]
    names = sorted(blocks, key=lambda name: int(name.removeprefix("block")))
    return [blocks[name]["__call__"][0] for name in names]


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("standardised", [False, True])
def test_bfloat16_is_for_activations_while_parameters_and_logits_stay_float32(
    norm, standardised
):
    model = resnet(8, 10, norm=norm, standardise=standardised, dtype=jnp.bfloat16)
    for leaf in jax.tree.leaves(shapes(model, (8, 8, 3))):
        assert leaf.dtype == jnp.float32
    logits = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), None, x)[0],
        pixels(2, shape=(8, 8, 3)),
    )
    assert logits.dtype == jnp.float32


# ------------------------------------------------------------------------- arithmetic


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


def np_group_norm(x, weights, groups):
    b, h, w, c = x.shape
    split = x.reshape(b, h, w, groups, c // groups)
    mean = split.mean((1, 2, 4), keepdims=True)
    variance = split.var((1, 2, 4), keepdims=True)
    normalised = ((split - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    return normalised * weights["scale"] + weights["bias"]


def np_net(params, images, noise, *, skip, norm_last, scale_of):
    """Two blocks by their formulas: 16 to 8 channels, then 8 to 8 with stride 2."""

    def activated(x, weights):
        groups = 4
        if norm_last:
            return np_group_norm(np.maximum(x, 0), weights, groups)
        return np.maximum(np_group_norm(x, weights, groups), 0)

    x = np_conv(images, params["stem"]["kernel"])
    for index, stride in enumerate((1, 2)):
        block = params[f"block{index}"]
        first = activated(x, block["norm0"])
        f = np_conv(first, block["conv0"]["kernel"], stride)
        f = np_conv(activated(f, block["norm1"]), block["conv1"]["kernel"])
        if not skip:
            state, drift = f, 0
        elif "shortcut" in block:
            state, drift = np_conv(first, block["shortcut"]["kernel"], stride), f
        else:
            state, drift = x, f
        x = state + drift + scale_of(state) * noise[index]
    x = activated(x, params["head_norm"]).mean((1, 2))
    return x @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("norm_last", [False, True])
@pytest.mark.parametrize("strategy", [None, Additive(0.5), Multiplicative(0.5, 0.2)])
def test_a_net_is_its_formulas_in_numpy_with_the_actual_draws(
    skip, norm_last, strategy
):
    model = tiny(
        stages=(1, 1),
        widths=(8, 8),
        skip=skip,
        norm_last=norm_last,
        perturbation=strategy,
    )
    weights = randomised(variables(model))
    images, keys = pixels(3), record_keys(3)
    noise = [
        np.stack([jax.random.normal(jax.random.fold_in(k, i), (s, s, 8)) for k in keys])
        for i, s in enumerate((6, 3))
    ]
    scale_of = {
        type(None): lambda x: 0.0,
        Additive: lambda x: 0.5,
        Multiplicative: lambda x: (
            0.5 * np.where(x < 0, -1, 1) * np.maximum(abs(x), 0.2)
        ),
    }[type(strategy)]
    params = jax.tree.map(np.asarray, weights["params"])
    expected = np_net(
        params,
        np.asarray(images),
        noise,
        skip=skip,
        norm_last=norm_last,
        scale_of=scale_of,
    )
    found = jax.jit(model.apply)(weights, keys, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_shortcut_of_its_own_is_that_of_de_et_al():
    model = tiny(
        **{"stages": (2,), "widths": (16,), "groups": 8},
        **{"norm_last": True, "standardise": True, "shortcut": "own"},
    )
    weights = randomised(variables(model))
    found = traced(model, weights, None, pixels(2))

    def convolved(x, params):
        kernel = params["Conv_0"]["kernel"]
        mean, std = kernel.mean((0, 1, 2)), kernel.std((0, 1, 2))
        x = np_conv(x, (kernel - mean) / std / kernel[..., 0].size ** 0.5)
        return x * params["gain"] + params["bias"]

    def branch(x, norm, conv, params):
        return convolved(np_group_norm(np.maximum(x, 0), params[norm], 8), params[conv])

    params = jax.tree.map(np.asarray, weights["params"])
    first, second = params["block0"], params["block1"]
    x = convolved(np.asarray(pixels(2)), params["stem"])  # no norm before it
    f = branch(branch(x, "norm0", "conv0", first), "norm1", "conv1", first)
    x = branch(x, "shortcut_norm", "shortcut", first) + f  # of the same shape, too
    np.testing.assert_allclose(found[0], x, rtol=1e-4, atol=1e-4)
    assert "shortcut" not in second


def randomised(weights):
    """Weights without the zeros and ones of an initialisation, which hide mistakes."""
    leaves, tree = jax.tree.flatten(weights)
    rng = np.random.default_rng(0)
    return tree.unflatten(
        [a + jnp.asarray(0.1 * rng.normal(size=a.shape), a.dtype) for a in leaves]
    )


def test_without_a_skip_nothing_of_the_input_passes_a_silent_block():
    for skip, expected in ((True, False), (False, True)):
        model = tiny(stages=(2,), widths=(16,), skip=skip)
        weights = silenced(variables(model))
        last = traced(model, weights, None, pixels(2))[-1]
        assert bool((last == 0).all()) is expected


def silenced(weights):
    """F(x) = 0 in every block."""

    def zero(path, leaf):
        inside = path[1].key.startswith("block") and "conv" in path[2].key
        return jnp.zeros_like(leaf) if inside else leaf

    return jax.tree_util.tree_map_with_path(zero, weights)


def noted(kind, model, note):
    """`note(layer, input)` of every layer of this kind, by name, in a forward pass."""
    found = {}

    def intercept(call, args, kwargs, context):
        if isinstance(context.module, kind):
            found[context.module.name] = note(context.module, args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        shapes(model, SHAPE)
    return found


def test_groups_that_do_not_divide_a_width_become_the_next_that_do():
    model = tiny(widths=(12,), groups=8)
    groups = noted(nn.GroupNorm, model, lambda layer, x: layer.num_groups)
    assert groups == {"norm0": 8, "norm1": 6, "head_norm": 6}


def test_the_head_averages_and_computes_in_float32():
    model = tiny(dtype=jnp.bfloat16)
    assert noted(nn.Dense, model, lambda layer, x: x.dtype) == {"head": jnp.float32}


# ------------------------------------------------------------------------------ noise


@pytest.fixture(scope="module")
def three_blocks():
    """A net whose F is zero, so that consecutive blocks differ by their noise."""
    model = tiny(stages=(3,), widths=(16,), perturbation=Additive(0.5))
    return model, silenced(variables(model))


def block_noise(model, weights, keys, images):
    stem = traced(model.clone(perturbation=None), weights, None, images)[0]
    states = [stem, *traced(model, weights, keys, images)]
    return np.asarray([after - before for before, after in itertools.pairwise(states)])


def test_each_block_adds_independent_noise_of_standard_deviation_gamma(three_blocks):
    noise = block_noise(*three_blocks, record_keys(8), pixels(8))
    for block in noise:
        assert_normal(block, 0.5)
    for one, other in itertools.combinations(noise, 2):
        assert_uncorrelated(one, other)
    for one, other in itertools.combinations(noise[0], 2):
        assert_uncorrelated(one, other)


def test_a_blocks_noise_follows_from_the_records_key_and_the_blocks_index(three_blocks):
    noise = block_noise(*three_blocks, record_keys(2), pixels(2))
    for index, record in itertools.product(range(3), range(2)):
        key = jax.random.fold_in(record_keys(2)[record], index)
        expected = 0.5 * jax.random.normal(key, noise.shape[2:])
        np.testing.assert_allclose(noise[index, record], expected, atol=1e-5)


class Renamed(nn.Module):
    """A net inside another module, under another name."""

    net: nn.Module

    @nn.compact
    def __call__(self, keys, images):
        return self.net.clone(name="another", parent=self)(keys, images)


def test_the_name_and_place_of_a_net_change_nothing_in_its_noise():
    model = tiny(perturbation=Additive(0.5))
    weights = variables(model)
    moved = {"params": {"another": weights["params"]}}
    outer = Renamed(model.clone(parent=None)).apply(moved, record_keys(2), pixels(2))
    assert_same(outer, model.apply(weights, record_keys(2), pixels(2)))


def test_a_perturbed_net_without_keys_is_an_error_and_another_key_another_answer():
    model = tiny(perturbation=Additive(0.5))
    weights, images = variables(model), pixels(2)
    with pytest.raises(ValueError, match="a perturbed net needs one key per record"):
        model.apply(weights, None, images)
    ask = jax.jit(model.apply)
    one, other = (ask(weights, record_keys(2, seed), images) for seed in range(2))
    assert differ(one, other)
    assert_same(one, ask(weights, record_keys(2, 0), images))


# ----------------------------------------------------------------------- independence


@pytest.mark.usefixtures("optimised")
def test_a_records_output_does_not_depend_on_its_companions():
    companions_change_nothing("im2col")


@pytest.mark.parametrize("kind", ["xla", "canonical"])
def test_a_records_output_does_not_depend_on_its_companions_with_library_calls(kind):
    companions_change_nothing(kind)


def companions_change_nothing(kind):
    """Bit for bit in batches of one shape, at any place in it.

    A batch of another size may run other kernels, which sum in another order: there it
    is equal to float32 rounding, some 20 units in the last place (CPU, both kinds).
    """
    model = tiny(perturbation=Additive(0.5), convolution=kind)
    weights, keys, images = variables(model), record_keys(16), pixels(16)
    ask = jax.jit(model.apply)
    full = ask(weights, keys, images)
    others = pixels(16, seed=9) * 100
    assert_same(ask(weights, keys, images.at[8:].set(others[8:]))[:8], full[:8])
    order = np.random.default_rng(0).permutation(16)
    assert_same(ask(weights, keys[order], images[order]), full[order])
    alone = ask(weights, keys[:1], images[:1])
    np.testing.assert_allclose(alone, full[:1], rtol=1e-5, atol=1e-6)


def test_batch_norm_uses_the_batch_in_training_only():
    model = tiny(norm="batch")
    weights = randomised(variables(model))
    weights["batch_stats"] = jax.tree.map(jnp.abs, weights["batch_stats"])
    images, others = pixels(8), 5 * pixels(8, seed=1)
    mixed = images.at[4:].set(others[4:])
    ask = jax.jit(model.apply)
    assert_same(ask(weights, None, images)[:4], ask(weights, None, mixed)[:4])

    def training(x):
        return model.apply(weights, None, x, True, mutable=["batch_stats"])

    (one, stats), (other, _) = training(images), training(mixed)
    assert np.abs(one[:4] - other[:4]).max() > 1e-2
    assert differ(stats["batch_stats"], weights["batch_stats"])


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
