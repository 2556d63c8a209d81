"""Convolutions of certified norm, and blocks whose Lipschitz constant is known."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import assert_normal, batch_of, pixels, record_keys, records, start

import rpjax as rp
from rpjax.errors import InputError
from rpjax.models import LipschitzResNet, certified_constants, lipschitz
from rpjax.models.conv import NUMBERS
from rpjax.models.lipschitz import LipschitzBlock, adjoint, squares
from rpjax.models.spectral import bound, certified

SIZE, CHANNELS = (5, 6), 4
CONSTANTS = (0.5, 3.0)


def kernel_of(seed, shape=(3, 3, 3, 4), scale=1.0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)


def matrix(kernel, size):
    """The convolution as a dense matrix in float64, entry by entry from its sum."""
    (kh, kw, inputs, outputs), (h, w) = kernel.shape, size
    dense = np.zeros((h, w, outputs, h, w, inputs))
    for y, x, a, b in np.ndindex(h, w, kh, kw):
        row, column = y + a - (kh - 1) // 2, x + b - (kw - 1) // 2
        if 0 <= row < h and 0 <= column < w:
            dense[y, x, :, row, column] = np.asarray(kernel, np.float64)[a, b].T
    return dense.reshape(h * w * outputs, h * w * inputs)


def convolved(x, kernel, stride=1):
    steps = (stride, stride)
    return lax.conv_general_dilated(x, kernel, steps, "SAME", dimension_numbers=NUMBERS)


# --------------------------------------------------------------------- one convolution


def test_the_dense_matrix_of_these_tests_is_the_convolution():
    kernel, x = kernel_of(0), pixels(1, shape=(*SIZE, 3))
    by_matrix = matrix(kernel, SIZE) @ np.asarray(x, np.float64).ravel()
    found = convolved(x, kernel)
    np.testing.assert_allclose(np.ravel(found), by_matrix, atol=1e-5)
    # and the transposed one
    y = pixels(1, shape=(*SIZE, 4))
    by_matrix = matrix(kernel, SIZE).T @ np.asarray(y, np.float64).ravel()
    found = convolved(y, adjoint(kernel))
    np.testing.assert_allclose(np.ravel(found), by_matrix, atol=1e-5)


bounded = jax.jit(bound, static_argnums=1)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([(2, 5), (6, 6)]),
    channels=st.sampled_from([(3, 4), (4, 2)]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    smooth=st.booleans(),
)
def test_a_bound_is_above_the_norm_and_not_far(seed, size, channels, scale, smooth):
    kernel = kernel_of(seed, (3, 3, *channels), scale)
    if smooth:  # whose largest gain is at a single frequency
        kernel = jnp.abs(kernel)
    truth = np.linalg.norm(matrix(kernel, size), 2)
    exact, inside = certified(kernel, size), float(bounded(kernel, size))
    assert truth <= exact * (1 + 1e-12)
    assert exact <= inside
    # squaring five times: at most channels^(1/128); and the margin, and float32
    assert inside <= exact * min(channels) ** (1 / 128) * (1 + 2e-4)
    # all that is lost is the border; in a tiny image that can be almost everything
    assert min(size) < 6 or exact <= 1.35 * truth


def test_rounding_stays_far_below_the_margin():
    """sixteen and sixty-four channels, where the largest singular value stands alone:
    there the bound is the margin above the maximum, and its rounding shows."""
    for channels in (16, 64):
        kernel = jnp.abs(kernel_of(1, (3, 3, channels, channels)))
        ratio = float(bounded(kernel, (8, 8))) / certified(kernel, (8, 8))
        assert 1 + 0.9e-4 < ratio < 1 + 1.1e-4


def test_the_norm_grows_with_the_image_towards_the_largest_gain():
    """A box of ones on ever larger images: its gain, nine, is reached at none."""
    box = jnp.ones((3, 3, 1, 1))
    norms = [np.linalg.norm(matrix(box, (n, n)), 2) for n in (2, 4, 8)]
    assert norms == sorted(norms)
    assert norms[-1] < 9 == pytest.approx(certified(box, (8, 8)))
    # n ones in a row convolved with a box of three: 1 + 2 cos(pi / (n + 1))
    expected = [(1 + 2 * math.cos(math.pi / (n + 1))) ** 2 for n in (2, 4, 8)]
    assert norms == pytest.approx(expected)


def checkered(side=3):
    """Ones of alternating sign: largest gain at the highest frequency."""
    return jnp.asarray((-1.0) ** np.add.outer(range(side), range(side)), jnp.float32)


def test_the_highest_frequency_counts():
    kernel = checkered().reshape(3, 3, 1, 1)
    assert certified(kernel, (8, 8)) == pytest.approx(9)
    assert 9 < float(bounded(kernel, (8, 8))) < 9.01


def test_power_iteration_comes_from_below():
    """Why it is no certificate: two dozen steps from a random start fall short."""
    kernel, x = kernel_of(3), pixels(1, seed=1, shape=(*SIZE, 3))
    truth, gains = np.linalg.norm(matrix(kernel, SIZE), 2), []
    for _ in range(24):
        y = convolved(x / jnp.linalg.norm(x), kernel)
        gains.append(float(jnp.linalg.norm(y)))
        x = convolved(y, adjoint(kernel))
    assert max(gains) < truth < certified(kernel, SIZE)


def test_a_strided_convolution_is_within_the_bound_too():
    kernel = kernel_of(4)
    rows = matrix(kernel, (6, 6)).reshape(6, 6, 4, -1)
    for start_at in (0, 1):
        strided = rows[start_at::2, start_at::2].reshape(-1, 6 * 6 * 3)
        assert np.linalg.norm(strided, 2) <= certified(kernel, (6, 6))


def test_a_bound_has_a_gradient_even_at_zero():
    gradient = jax.jit(jax.grad(bound), static_argnums=1)
    kernel = kernel_of(5)
    assert np.isfinite(gradient(0 * kernel, SIZE)).all()
    # along itself a norm grows by itself
    along = jnp.vdot(gradient(kernel, SIZE), kernel)
    assert float(along) == pytest.approx(float(bound(kernel, SIZE)), rel=1e-4)


def test_squares_keep_distances_and_put_each_pixel_somewhere():
    images = pixels(2, shape=(5, 7, 3))
    made = squares(images, 2)
    assert made.shape == (2, 3, 4, 12)
    np.testing.assert_array_equal(
        np.sort(np.ravel(made[0])),
        np.sort(np.append(np.ravel(images[0]), np.zeros(3 * 4 * 12 - 5 * 7 * 3))),
    )
    np.testing.assert_array_equal(made[:, 1, 2, :3], images[:, 2, 4])


# --------------------------------------------------------------------------- one block


def block_and_weights(c, seed=0):
    """A block whose kernels and biases are large, which must not matter."""
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 3, CHANNELS, CHANNELS), "bias": (CHANNELS,)}
    weights = {
        f"{name}{index}": jnp.asarray(30 * rng.normal(size=shape), jnp.float32)
        for index in range(1 if c <= 1 else 2)
        for name, shape in shapes.items()
    }
    return LipschitzBlock(c), {"params": weights}


@pytest.mark.parametrize("c", CONSTANTS)
def test_no_two_inputs_are_moved_apart_by_more_than_c(c):
    """Random pairs far and near; and the pairs that the Jacobian stretches most."""
    block, weights = block_and_weights(c)
    step = jax.jit(lambda x: block.apply(weights, None, x))
    one, other = (pixels(64, seed=s, shape=(*SIZE, CHANNELS)) for s in (1, 2))
    scales = jnp.logspace(-2, 2, 64).reshape(-1, 1, 1, 1)
    other = one + scales * other

    def ratios(one, other):
        apart = jnp.linalg.norm((one - other).reshape(len(one), -1), axis=1)
        outputs = (step(one) - step(other)).reshape(len(one), -1)
        return np.asarray(jnp.linalg.norm(outputs, axis=1) / apart)

    assert ratios(one, other).max() <= c * (1 + 1e-4)
    jacobian = jax.jit(jax.jacrev(lambda x: step(x[None])[0].ravel()))
    found = [
        np.linalg.norm(np.asarray(jacobian(x), np.float64).reshape(120, 120), 2)
        for x in (*one[:4], *(100 * one[4:8]))
    ]
    assert max(found) <= c * (1 + 1e-5)
    # not empty words: some input is stretched by nearly as much
    assert max(found) >= (c if c <= 1 else 1 + 0.25 * (c - 1)) * (1 - 1e-5)


@pytest.mark.parametrize(
    ("c", "second"), [(0.5, None), (3.0, "the same"), (3.0, "checkered")]
)
def test_c_is_reached_where_convolutions_have_norm_one(c, second):
    """Kernels of one tap with all units switched on: then the block is linear."""
    tap = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    other = checkered().reshape(3, 3, 1, 1) if second == "checkered" else tap
    weights = {"kernel0": tap, "bias0": jnp.full(1, 9.0)}
    if c > 1:
        weights |= {"kernel1": other, "bias1": jnp.zeros(1)}
    block = LipschitzBlock(c)

    def step(x):
        return block.apply({"params": weights}, None, x.reshape(1, 5, 6, 1)).ravel()

    jacobian = np.asarray(jax.jit(jax.jacrev(step))(jnp.zeros(30)), np.float64)
    loss = 1.2 if second == "checkered" else 1 + 5e-4  # at the border
    assert c / loss < np.linalg.norm(jacobian, 2) <= c


def test_a_kernel_that_is_too_long_would_be_seen(monkeypatch):
    monkeypatch.setattr(lipschitz, "unit", lambda kernel, size: 2 * kernel)
    tap = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    params = {
        "blocks_0": {"kernel0": tap},
        "blocks_1": {"kernel0": tap, "kernel1": tap},
    }
    net = net_of(lipschitz=(0.5, 1.5), width=1)
    found = certified_constants(net, {"params": params}, (5, 6, 1))
    assert found == pytest.approx((0.5 * 7, 1 + 0.5 * 4))


def test_an_adversary_who_climbs_the_ratio_stays_below_c():
    """Gradient ascent on two inputs at once, from where the Jacobian is largest."""
    c = 1.5
    block, weights = block_and_weights(c, seed=3)

    def ratio(pair):
        one, other = (block.apply(weights, None, x[None]) for x in pair)
        return jnp.linalg.norm(one - other) / jnp.linalg.norm(pair[0] - pair[1])

    climb = jax.jit(jax.value_and_grad(ratio))
    pair = 3 * pixels(2, seed=5, shape=(*SIZE, CHANNELS))
    reached = []
    for _ in range(200):
        value, gradient = climb(pair)
        reached.append(float(value))
        pair = pair + 5 * gradient / jnp.linalg.norm(gradient)
    assert reached[0] + 0.05 < max(reached) <= c * (1 + 1e-5)


# ------------------------------------------------------------------------- the net


def net_of(**options):
    defaults = {"lipschitz": (1.0, 0.9, 1.2), "width": 4, "classes": 3}
    return LipschitzResNet(**{**defaults, **options})


def weights_of(net, images):
    quiet = net.clone(perturbation=None)
    return jax.jit(quiet.init)(jax.random.key(0), None, images)


def test_features_are_no_further_apart_than_images_times_the_constants():
    net = net_of(patch=2)
    images = pixels(8, shape=(6, 5, 1))
    weights = weights_of(net, images)
    out = jax.jit(partial(net.apply, method="features"))(weights, None, images)
    assert out.shape == (8, 3, 3, 4)
    apart, moved = (
        np.linalg.norm(np.reshape(a[:, None] - a[None], (64, -1)), axis=1)
        for a in map(np.asarray, (images, out))
    )
    assert (moved <= 1.0 * 0.9 * 1.2 * apart * (1 + 1e-5)).all()
    assert moved.max() > 0.1 * apart.max()


def test_each_block_adds_noise_of_its_own_scale():
    """What a block's output is, less what the same block makes without noise."""
    net = net_of(perturbation=rp.Additive(0.5), profile=(1.0, 0.0, 4.0))
    assert net.gammas == (0.5, 0.0, 2.0)
    images = pixels(40, shape=(6, 6, 1))
    weights = weights_of(net, images)
    blocks = {"capture_intermediates": lambda m, _: isinstance(m, LipschitzBlock)}

    @jax.jit
    def noises(keys, images):
        _, seen = net.apply(weights, keys, images, **blocks)
        out = [seen["intermediates"][f"blocks_{i}"]["__call__"][0] for i in range(3)]
        return [
            out[i]
            - LipschitzBlock(net.lipschitz[i]).apply(
                {"params": weights["params"][f"blocks_{i}"]}, None, out[i - 1]
            )
            for i in (1, 2)
        ]

    second, third = noises(record_keys(40), images)
    assert np.abs(second).max() < 1e-5
    assert_normal(third, 2.0)


def test_training_keeps_the_constants():
    """As a learner like any other: the loss falls, and no block exceeds its c."""
    net = net_of(lipschitz=(2.0,), perturbation=rp.Additive(0.05))
    learner = rp.supervised(net, optax.adam(0.05))
    data = records(32)
    state = before = start(learner, data)
    step, batch = jax.jit(learner.step), batch_of(data, range(32))
    for _ in range(60):
        state, info = step(rp.keys.root(0), state, batch)
    assert info["accuracy"] > 0.8
    for kernel in ("kernel0", "kernel1"):
        moved, here = (each.params["blocks_0"][kernel] for each in (state, before))
        assert jnp.linalg.norm(moved - here) > 1, "a net at rest keeps anything"
    found = certified_constants(net, {"params": state.params}, (6, 6, 1))
    assert all(0.7 * c < one <= c for one, c in zip(found, net.lipschitz, strict=True))


def test_what_is_no_constant_is_refused():
    for wrong in ((), (0.0,), (1.0, float("inf"))):
        with pytest.raises(InputError, match="lipschitz is"):
            net_of(lipschitz=wrong)
    for wrong in ((1.0,), (1.0, 1.0, -1.0)):
        with pytest.raises(InputError, match=r"profile is .* 3 blocks"):
            net_of(profile=wrong)


def test_a_public_trunk_is_what_the_theorem_on_depth_is_about():
    """Three layers without contraction: as much as one with sqrt(3) times the noise."""
    net = net_of(lipschitz=(1.0,) * 3, perturbation=rp.Additive(2.0))
    deep = rp.privacy.depth.curve(10.0, net.lipschitz, net.gammas)
    assert deep.mu == pytest.approx(10 / (2 * math.sqrt(3)))
