"""What noise in the residual blocks does not hide: each claim on rpjax's own nets.

Adversaries here are those of differential privacy: they see a step and the weights
before it. A leak that is exact has no error rate; where there is chance it is stated.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import (
    CLASSES,
    ask,
    assert_normal,
    batch_of,
    differ,
    record_keys,
    records,
    start,
    tiny,
)

import rpjax as rp
from rpjax.attacks import gradients
from rpjax.data.records import Records
from rpjax.learners.inputs import noise_keys
from rpjax.perturbations import euler_step, noisy_input
from rpjax.privacy import gdp, residual

GAMMAS = (0.5, 5.0, 500.0)
STRATEGIES = (rp.Additive, rp.Multiplicative)
WHO = 3
KNOWN = 5
"""Positions of the record whose step is released, and of one in the same batch."""


class Flat(nn.Module):
    """One residual block on the image as a vector, and a linear head."""

    perturbation: rp.Additive | None = None

    @nn.compact
    def __call__(self, keys, images, train=False):
        x = images.reshape(len(images), 1, 1, -1)
        f = nn.Dense(x.shape[-1], name="block")(x)
        if keys is not None:
            keys = rp.keys.per_block(keys, 0)
        out = euler_step(keys, self.perturbation, x, f)
        return nn.Dense(CLASSES, name="head")(out.reshape(len(out), -1))


TX = optax.sgd(0.1, momentum=0.9)
"""Whose momentum after a first step is the gradient of that step."""


def of_size(strategy, **sizes):
    """A strategy whose sizes may be arguments of a compiled function: not checked."""
    made = object.__new__(strategy)
    for name, size in sizes.items():
        object.__setattr__(made, name, size)
    return made


def released(net, state, batch, inputs=None, draw="record"):
    """The parameters' gradient in one step of rpjax's own learner."""
    learner = rp.supervised(net, TX, inputs, draw)
    after, _ = learner.step(rp.keys.root(0), state, batch)
    return after.opt_state[0].trace


def alone(data, position):
    """A batch of one record, and an empty slot beside it."""
    return batch_of(data, [position, 0], [True, False])


def clean(data):
    return np.asarray(rp.Inputs().clean(jnp.asarray(data.images)))


def outputs(layers, net, params, images, keys=None):
    """What the layers of these names give, in a tree like the parameters'."""
    named = {"capture_intermediates": lambda module, _: module.name in layers}
    _, seen = net.apply({"params": params}, keys, jnp.asarray(images), **named)
    return seen["intermediates"]


def one_block(**options):
    """A ResNet of one block, as wide as its stem: its skip is the identity."""
    return tiny(**{"widths": (16,), **options})


@pytest.fixture(scope="module")
def flat(small):
    """(gamma, batch) -> the gradient of a step of `Flat` without input noise."""
    state = flat_state(small)

    @jax.jit
    def gradient(gamma, batch):
        return released(Flat(of_size(rp.Additive, gamma=gamma)), state, batch)

    return gradient


@pytest.fixture(scope="module")
def noisy_flat(small):
    """(gamma, step, batch) -> the same with noise of 100 on the input, fresh a step."""
    state = flat_state(small)

    @jax.jit
    def gradient(gamma, step, batch):
        net = Flat(of_size(rp.Additive, gamma=gamma))
        now = state._replace(step=step)
        return released(net, now, batch, rp.Inputs(noise=100.0), "step")

    return gradient


def flat_state(small):
    state = start(rp.supervised(Flat(), TX), small)
    # logits so small that no probability rounds to 1 in float32, nor p - y to 0
    state.params["head"]["kernel"] *= 1e-3
    return state


@pytest.fixture(scope="module")
def first_state(small):
    """Before any step of a ResNet of one block."""
    return start(rp.supervised(one_block(), TX), small)


@pytest.fixture(scope="module", params=["Strategy I", "Strategy II"])
def steps_of_a_resnet(request, first_state, small):
    """Gradients of a step on one clean record, under much noise and under little."""

    @jax.jit
    def gradient(gamma, batch):
        if request.param == "Strategy I":
            noise = of_size(rp.Additive, gamma=gamma)
        else:
            noise = of_size(rp.Multiplicative, gamma=gamma, floor=0.1)
        return released(one_block(perturbation=noise), first_state, batch)

    return [jax.device_get(gradient(g, alone(small, WHO))) for g in (0.5, 500.0)]


# ------------------------------------------------------ no input noise: the input shows


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_dense_block_shows_its_input_whatever_the_noise_behind_it(flat, small, gamma):
    gradient = flat(gamma, alone(small, WHO))
    x = clean(small)[WHO].ravel()
    kernel = np.asarray(gradient["block"]["kernel"], np.float64)
    values = np.linalg.svd(kernel, compute_uv=False)
    assert values[1] < 1e-6 * values[0]
    direction = np.linalg.svd(kernel)[0][:, 0]
    assert 1 - abs(direction @ x) / np.linalg.norm(x) < 1e-6
    recovered = gradients.dense_input(kernel, gradient["block"]["bias"])
    np.testing.assert_allclose(recovered, x, atol=1e-5)


def test_with_input_noise_it_shows_the_noisy_copy_and_no_more(noisy_flat, small):
    """What the guarantee rests on: clean image plus noise; error rate 1e-4."""
    seen = []
    for number, position in np.ndindex(8, len(small)):
        block = noisy_flat(0.5, number, alone(small, position))["block"]
        copy = gradients.dense_input(block["kernel"], block["bias"])
        seen.append(copy - clean(small)[position].ravel())
    assert_normal(seen, 100.0)


def test_among_known_records_too_the_span_shows_the_unknown_one(flat, small):
    gradient = flat(5.0, batch_of(small, [WHO, KNOWN]))
    images = clean(small).reshape(len(small), -1).astype(np.float64)
    values, rows = np.linalg.svd(np.float64(gradient["block"]["kernel"]).T)[1:]
    assert values[2] < 1e-6 * values[0]
    outside = images - images @ rows[:2].T @ rows[:2]
    outside = np.linalg.norm(outside, axis=1) / np.linalg.norm(images, axis=1)
    assert outside[[WHO, KNOWN]].max() < 1e-4
    assert np.delete(outside, [WHO, KNOWN]).min() > 0.1


def test_the_first_block_of_a_resnet_tells_which_record_it_was(
    steps_of_a_resnet, first_state, small
):
    """With certainty: only the true record can have made the gradient. delta = 1."""
    net, params = one_block(), first_state.params
    seen = jax.jit(lambda x: outputs(("norm0", "norm1"), net, params, x))(clean(small))
    for norm, layer in (("norm0", "conv0"), ("norm1", "conv1")):
        inputs = np.asarray(nn.relu(seen["block0"][norm]["__call__"][0]))
        for gradient in steps_of_a_resnet:
            kernel = gradient["block0"][layer]["kernel"]
            rest = np.array([gradients.unexplained(kernel, x) for x in inputs])
            assert rest[WHO] < 1e-5
            assert np.delete(rest, WHO).min() > 0.05


def test_where_there_are_more_windows_than_numbers_the_span_says_nothing(
    steps_of_a_resnet, small
):
    """The stem of a one-channel image: nine numbers a window, and 36 windows."""
    kernel = steps_of_a_resnet[0]["stem"]["kernel"]
    assert max(gradients.unexplained(kernel, x) for x in clean(small)) < 1e-10


def test_windows_are_those_of_a_convolution():
    """Whose gradient is summed here place by place: three windows of 36 numbers."""
    rng = np.random.default_rng(0)
    x, other, g = (rng.normal(size=(1, 3, k)) for k in (4, 4, 3))
    kernel, padded = np.zeros((3, 3, 4, 3)), np.pad(x, ((1, 1), (1, 1), (0, 0)))
    for column in range(3):
        kernel += padded[:, column : column + 3, :, None] * g[0, column]
    assert gradients.unexplained(kernel, x) < 1e-10
    assert gradients.unexplained(kernel, other) > 0.1
    assert gradients.unexplained(kernel, x[:, ::-1]) > 0.1


# --------------------------------------------------------------------------- the label


def test_the_last_bias_of_a_resnet_shows_the_label(steps_of_a_resnet, small):
    for gradient in steps_of_a_resnet:
        bias = gradient["head"]["bias"]
        assert np.sum(bias < 0) == 1
        assert gradients.label(bias) == small.labels[WHO]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_last_bias_shows_every_label_through_every_noise(
    flat, noisy_flat, small, gamma
):
    for position in range(len(small)):
        one = alone(small, position)
        for gradient in (flat(gamma, one), noisy_flat(gamma, 0, one)):
            assert gradients.label(gradient["head"]["bias"]) == small.labels[position]


# ---------------------------------------------------------------- Strategy II at zero


def dark_with(corner):
    """An image black but for its upper two rows, and a last pixel of this value."""
    image = np.zeros((1, 6, 6, 1), np.uint8)
    image[:, :2], image[:, 5, 5] = 200, corner
    return Records(image, np.zeros(1, np.int32), np.zeros(1, np.int32))


def test_strategy_two_at_zero_tells_neighbours_apart_without_an_error(first_state):
    """Black pixels are 0 behind the stem; there a noise in proportion is none."""
    draws, inputs = 200, rp.Inputs(mean=0.0, std=1.0)

    @partial(jax.jit, static_argnums=0)
    def silent(floor, images):
        """How many draws left the last pixel's features as without noise."""
        many = jnp.repeat(inputs.clean(images), draws, 0)
        perturbed = one_block(perturbation=rp.Multiplicative(0.5, floor))
        noisy, quiet = (
            outputs(("block0",), net, first_state.params, many, keys)
            for net, keys in (
                (perturbed, record_keys(draws)),
                (one_block(), None),
            )
        )
        noisy, quiet = (each["block0"]["__call__"][0] for each in (noisy, quiet))
        return jnp.sum((noisy == quiet)[:, 5, 5].all(-1))

    dark, lit = (jnp.asarray(dark_with(corner).images) for corner in (0, 255))
    assert (silent(0.0, dark), silent(0.0, lit)) == (draws, 0)
    assert (silent(0.1, dark), silent(0.1, lit)) == (0, 0)
    # Renyi's divergence of a feature that is 0 for one and 0.3 for the other
    for floor, infinite in ((0.0, True), (0.1, False)):
        scales = 0.5 * floor, 0.5 * max(0.3, floor)
        divergence = residual.renyi_gaussian(1.05, 0.0, scales[0], 0.3, scales[1])
        assert np.isinf(divergence) == infinite


# ----------------------------------------------------- noise scaled by the batch's own


def scaled_by_the_batch(key, x):
    """The block noise of the EnResNet code: relative to the whole batch's spread."""
    return x + 0.5 * jnp.std(x) * jax.random.normal(key, x.shape)


def test_noise_scaled_by_a_batch_statistic_shows_a_record_in_the_others_outputs():
    """Seven known records with a dark or a bright eighth: who it was shows in theirs.

    Their 7 * 576 normals tell their standard deviation to 1.1 %, and the two scales are
    7 % apart: six standard errors.
    """
    data = records(8, shape=(24, 24, 1))
    scales = []
    for brightness, seed in ((0, 1), (255, 2)):
        images = data.images.copy()
        images[0] = brightness
        x = rp.Inputs().clean(jnp.asarray(images))
        out = scaled_by_the_batch(jax.random.key(seed), x)
        noise = np.asarray(out - x)[1:]
        assert_normal(noise, 0.5 * float(jnp.std(x)))
        scales.append(noise.std())
    assert abs(scales[0] / scales[1] - 1) > 0.04


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_here_the_others_outputs_do_not_depend_on_a_record(
    first_state, small, strategy
):
    """Bit for bit, through input clipping, input noise and block noise."""
    inputs = rp.Inputs(noise=0.5, bound=3.0)
    learner = rp.supervised(one_block(perturbation=strategy(0.5)), TX, inputs)
    images = small.images.copy()
    images[0] //= 3  # another norm, too
    other = Records(images, small.labels, small.ids)
    one, two = (ask(learner, first_state, data) for data in (small, other))
    assert differ(one[0], two[0])
    np.testing.assert_array_equal(one[1:], two[1:])


def test_batch_norm_couples_records(small):
    """In training, where it takes its statistics from the batch."""
    net = one_block(norm="batch")

    @jax.jit
    def train(images):
        made = net.init(jax.random.key(0), None, images)
        return net.apply(made, None, images, True, mutable=["batch_stats"])[0]

    x = jnp.asarray(clean(small))
    assert differ(train(x)[1:], train(x.at[0].multiply(-1))[1:])


# ----------------------------------------------------------- kept noise, several views


def test_kept_noise_under_different_views_cancels(small):
    """Their difference is that of the clean images, and their sums the record."""
    x = jnp.asarray(clean(small)[:1])
    keys = record_keys(1)
    noisy = jax.jit(lambda x: noisy_input(keys, x, 100.0))
    views = [noisy(jnp.roll(x, -shift, axis=2)) for shift in (0, 1)]
    shown = np.asarray(views[1] - views[0], np.float64)[0, ..., 0]
    image = np.asarray(x, np.float64)[0, ..., 0]
    np.testing.assert_allclose(shown, np.roll(image, -1, 1) - image, atol=1e-4)
    # summed along a row: the image up to one number a row
    summed = np.cumsum(shown, axis=1)[:, :-1]
    np.testing.assert_allclose(summed, image[:, 1:] - image[:, :1], atol=1e-3)


def test_rpjax_makes_every_view_from_the_one_noisy_copy(first_state, small):
    inputs = rp.Inputs(noise=100.0, augmentation=rp.Augmentation(crop=1))
    state, batch = first_state, batch_of(small, range(4))
    keys = noise_keys(state, "input_noise", "record", batch.ids)
    noisy = jax.jit(inputs.noisy)(keys, batch.images)
    copy = np.pad(noisy, ((0, 0), (1, 1), (1, 1), (0, 0)))

    @jax.jit
    def views(step):
        now = state._replace(step=step)
        return inputs.training(rp.keys.root(0), now, "record", batch)

    seen = set()
    for step in range(6):
        for view, noisy in zip(np.asarray(views(step)), copy, strict=True):
            found = [
                (i, j)
                for i, j in np.ndindex(3, 3)
                if np.allclose(view, noisy[i : i + 6, j : j + 6], atol=1e-3)
            ]
            assert len(found) == 1
            seen.update(found)
    assert len(seen) > 3


# ------------------------------------------------------------------------ the skip path


def test_a_bound_on_the_branch_is_no_bound_on_the_block(first_state, small):
    """F is bounded by G, and noise is 1 / 8 of what x itself moves by.

    A wrong decision has probability Phi(-4) = 3e-5 a draw, so four or more of 400 occur
    with probability 1e-9. The claim that the block moves by 2 G would allow 1.7 % of
    the hits at 1 % false alarms.
    """
    net, params = one_block(), jax.tree.map(jnp.copy, first_state.params)
    params["block0"]["conv1"]["kernel"] *= 0.01
    layers = ("stem", "block0")
    pair = jnp.asarray(clean(small)[:2])

    def states(images):
        seen = outputs(layers, net, params, images)
        return (seen["stem"]["__call__"][0], seen["block0"]["__call__"][0])

    before, after = (np.asarray(a, np.float64) for a in jax.jit(states)(pair))
    reach = np.linalg.norm((after - before).reshape(2, -1), axis=1).max()  # G
    moved = after[1] - after[0]
    gamma = np.linalg.norm(moved) / 8
    claimed = 2 * reach / gamma
    assert claimed < 0.5

    @jax.jit
    def noised(keys, x, f):
        return euler_step(keys, rp.Additive(gamma), x, f)

    def scores(x, f, seed):
        many = (jnp.repeat(jnp.asarray(a[None], jnp.float32), 200, 0) for a in (x, f))
        out = noised(record_keys(200, seed), *many)
        middle = (after[0] + after[1]) / 2
        return np.tensordot(np.asarray(out, np.float64) - middle, moved, 3)

    branch = after - before
    wrong = np.sum(scores(before[0], branch[0], 1) > 0)
    missed = np.sum(scores(before[1], branch[1], 2) < 0)
    assert wrong + missed < 4
    assert gdp.tpr(0.01, claimed) < 0.05
