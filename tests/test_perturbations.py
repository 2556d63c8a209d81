"""Strategy I, Strategy II and input noise: scale, independence, and what is clipped."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import assert_normal, assert_same, assert_uncorrelated, pixels, record_keys

from rpjax import keys
from rpjax.errors import InputError
from rpjax.perturbations import (
    Additive,
    Multiplicative,
    Perturbation,
    clip_to_ball,
    euler_step,
    floored,
    noisy_input,
)

WIDE = (16, 16, 4)


def draws_of(record_keys, shape):
    """The standard normals that each record's key stands for."""
    return np.stack([jax.random.normal(k, shape, jnp.float32) for k in record_keys])


def test_additive_noise_has_standard_deviation_gamma_wherever_it_is():
    for state in (jnp.zeros((8, *WIDE)), 7 * jnp.ones((8, *WIDE))):
        zero = jnp.zeros_like(state)
        noise = euler_step(record_keys(8), Additive(0.5), state, zero) - state
        assert_normal(noise, 0.5)


def test_multiplicative_noise_has_standard_deviation_gamma_times_the_state():
    state = jnp.where(pixels(8, shape=WIDE) < 0, -3.0, 3.0)
    step = euler_step(record_keys(8), Multiplicative(0.5), state, jnp.zeros_like(state))
    assert_normal(step - state, 1.5)


def test_multiplicative_noise_never_falls_below_its_floor():
    state = 1e-3 * pixels(8, shape=WIDE)
    noise = euler_step(record_keys(8), Multiplicative(2.0, 0.1), state, -state)
    assert_normal(noise, 0.2)


@pytest.mark.parametrize(
    "perturbation", [Additive(0.5), Multiplicative(0.5, 0.2)], ids=["I", "II"]
)
def test_an_euler_step_is_the_textbook_formula(perturbation):
    x, f = np.array(pixels(4, 1)), np.array(pixels(4, 2))
    x[0, 0, 0] = 0.0
    n = draws_of(record_keys(4), x.shape[1:])
    scale = 1.0
    if isinstance(perturbation, Multiplicative):
        scale = np.where(x < 0, -1, 1) * np.maximum(np.abs(x), 0.2)
    found = euler_step(record_keys(4), perturbation, jnp.asarray(x), jnp.asarray(f))
    np.testing.assert_allclose(found, x + f + 0.5 * scale * n, rtol=1e-6, atol=1e-6)


def test_the_floor_keeps_the_sign_and_gives_zero_a_plus():
    x = jnp.array([-2.0, -0.05, -0.0, 0.0, 0.05, 2.0])
    expected = np.array([-2.0, -0.1, 0.1, 0.1, 0.1, 2.0], np.float32)
    np.testing.assert_array_equal(floored(x, 0.1), expected)
    np.testing.assert_array_equal(floored(x, 0.0), np.asarray(x))


def test_without_a_floor_a_feature_that_is_zero_gets_no_noise():
    x = pixels(2).at[:, 0].set(0.0)
    noise = euler_step(record_keys(2), Multiplicative(0.5, 0.0), x, -x)
    assert (noise[:, 0] == 0).all()
    assert (noise[:, 1:] != 0).all()


def test_records_have_independent_noise_that_their_companions_leave_alone():
    zero = jnp.zeros((4, *WIDE))
    noise = euler_step(record_keys(4), Additive(1.0), zero, zero)
    for one, other in itertools.combinations(noise, 2):
        assert_uncorrelated(one, other)
    order = np.array([2, 0, 3, 1])
    shuffled = euler_step(record_keys(4)[order], Additive(1.0), zero, zero)
    assert_same(shuffled, noise[order])


def test_blocks_have_independent_noise():
    zero = jnp.zeros((4, *WIDE))
    one, other = (
        euler_step(keys.per_block(record_keys(4), i), Additive(1.0), zero, zero)
        for i in range(2)
    )
    assert_uncorrelated(one, other)


@pytest.mark.parametrize(
    "perturbation", [Additive(0.5), Multiplicative(0.5, 0.2)], ids=["I", "II"]
)
def test_noise_is_drawn_in_float32_for_bfloat16_activations(perturbation):
    x, f = (pixels(2, seed, WIDE).astype(jnp.bfloat16) for seed in (1, 2))
    key = record_keys(1)[0]
    noise = perturbation.noise(key, jnp.ones((4096,), jnp.bfloat16))
    assert noise.dtype == jnp.float32
    # a bfloat16 normal takes some hundred values
    assert len(np.unique(noise)) > 4_000
    step = euler_step(record_keys(2), perturbation, x, f)
    assert step.dtype == jnp.bfloat16
    exact = x + f + jax.vmap(perturbation.noise)(record_keys(2), x)
    assert_same(
        step.astype(jnp.float32), exact.astype(jnp.bfloat16).astype(jnp.float32)
    )


def test_without_a_perturbation_the_step_is_the_residual_layer_and_needs_no_keys():
    x, f = pixels(2, 1), pixels(2, 2)
    assert_same(euler_step(None, None, x, f), x + f)


def test_a_perturbation_without_keys_is_an_error():
    with pytest.raises(ValueError, match="one key per record"):
        euler_step(None, Additive(0.5), pixels(2), pixels(2))
    with pytest.raises(ValueError, match="one key per record"):
        euler_step(None, Additive(0.0), pixels(2), pixels(2))


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_a_scale_that_is_no_scale_is_refused(value):
    for make in (Additive, Multiplicative, lambda v: Multiplicative(1.0, v)):
        with pytest.raises(InputError, match="must be a finite number >= 0"):
            make(value)


def test_the_strategies_are_perturbations():
    assert isinstance(Additive(1.0), Perturbation)
    assert isinstance(Multiplicative(1.0), Perturbation)


# ------------------------------------------------------------------------ input noise


def test_input_noise_has_its_standard_deviation():
    x = pixels(8, shape=WIDE)
    assert_normal(noisy_input(record_keys(8), x, 0.5) - x, 0.5)


def test_input_noise_is_the_records_own_draw_on_the_clipped_image():
    x = pixels(4)
    norms = np.linalg.norm(np.asarray(x).reshape(4, -1), axis=1)
    bound = float(np.median(norms))
    clipped = np.asarray(x) * np.minimum(1, bound / norms)[:, None, None, None]
    expected = clipped + 0.5 * draws_of(record_keys(4), x.shape[1:])
    found = noisy_input(record_keys(4), x, 0.5, bound)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_norm_keeps_the_direction_and_spares_short_images():
    x = pixels(4).at[0].set(0.0)
    x = x.at[1].multiply(1e-3)
    clipped = np.asarray(clip_to_ball(x, 1.0)).reshape(4, -1)
    flat = np.asarray(x).reshape(4, -1)
    assert (np.linalg.norm(clipped, axis=1) <= 1 + 1e-6).all()
    np.testing.assert_array_equal(clipped[:2], flat[:2])
    for short, full in zip(clipped[2:], flat[2:], strict=True):
        np.testing.assert_allclose(short, full / np.linalg.norm(full), rtol=1e-5)


def test_no_input_noise_needs_no_keys_and_noise_without_keys_is_an_error():
    x = pixels(2)
    assert_same(noisy_input(None, x, 0.0), x)
    with pytest.raises(ValueError, match="one key per record"):
        noisy_input(None, x, 0.1)
