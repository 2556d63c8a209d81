"""Residual nets: sizes, arithmetic, where the noise enters, and who influences whom."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import (
    SHAPE,
    assert_normal,
    assert_same,
    assert_uncorrelated,
    differ,
    np_conv,
    pixels,
    randomised,
    record_keys,
    tiny,
    variables,
)

from rpjax.errors import InputError
from rpjax.models import resnet, wide_resnet
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
