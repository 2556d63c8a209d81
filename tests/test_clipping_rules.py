"""Clipping rules, and clipped gradients in a loop of one's own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.errors import InputError
from rpjax.gradients import (
    Adaptive,
    Automatic,
    Flat,
    Normalised,
    PerLayer,
    clipped_grad,
    clipped_sum,
)
from rpjax.gradients.clipped import ENGINES

# -------------------------------------------------------------------------------- rules


def dot(params, record):
    """A loss whose gradient is the record: two numbers in one layer, one in another."""
    a, b = params["one"], params["two"]["b"]
    return a["x"] * record[0] + a["y"] * record[1] + b * record[2], record[0]


ZEROS = {"one": {"x": np.float32(0), "y": np.float32(0)}, "two": {"b": np.float32(0)}}
RULES = [Flat(0.7), Normalised(0.7), Automatic(0.7), PerLayer(0.7), Adaptive(0.7)]


@given(
    values=st.lists(
        st.tuples(*[st.floats(-5, 5, width=32)] * 3), min_size=2, max_size=6
    ),
    number=st.integers(0, len(RULES) - 1),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_one_record_more_moves_the_sum_by_the_sensitivity_at_most(values, number):
    rule = RULES[number]
    records = np.asarray(values, np.float32)
    valid = np.ones(len(records), bool)
    summing = clipped_sum(dot, rule)
    vector = lambda ok: np.array(
        jax.tree.leaves(summing(ZEROS, jnp.asarray(records), jnp.asarray(ok)).total)
    )
    moved = np.linalg.norm(vector(valid) - vector(np.arange(len(records)) != 0))
    assert moved <= rule.sensitivity() * (1 + 1e-5) + 1e-6


def test_what_each_rule_makes_of_a_long_and_a_short_gradient():
    records = jnp.asarray([[3.0, 0.0, 4.0], [0.03, 0.0, 0.04]])
    one = lambda rule, i: np.array(
        jax.tree.leaves(
            clipped_sum(dot, rule)(ZEROS, records, jnp.arange(2) == i).total
        )
    )
    unit = np.array([0.6, 0.0, 0.8])
    np.testing.assert_allclose(one(Flat(2.0), 0), 2 * unit, rtol=1e-6)
    np.testing.assert_allclose(one(Flat(2.0), 1), 0.05 * unit, rtol=1e-6)
    np.testing.assert_allclose(one(Normalised(2.0), 0), unit, rtol=1e-6)
    np.testing.assert_allclose(one(Normalised(2.0), 1), 0.025 * unit, rtol=1e-6)
    np.testing.assert_allclose(one(Automatic(2.0), 0), 10 / 5.01 * unit, rtol=1e-6)
    np.testing.assert_allclose(one(Automatic(2.0), 1), 0.1 / 0.06 * unit, rtol=1e-5)
    half = math.sqrt(2)  # two layers share a clip norm of 2
    np.testing.assert_allclose(one(PerLayer(2.0), 0), [half, 0, half], rtol=1e-6)
    np.testing.assert_allclose(one(PerLayer(2.0), 1), 0.05 * unit, rtol=1e-6)


def test_the_adaptive_rule_splits_its_noise_and_follows_the_quantile():
    rule = Adaptive(1.0, quantile=0.5, learning_rate=0.2, count_noise_multiplier=10)
    own = rule.gradient_noise_multiplier(2.0, 100)
    assert own**-2 + 20.0**-2 == pytest.approx(2.0**-2)
    assert own > 2.0
    assert rule.moved(1.0, 50.0, 100) == pytest.approx(math.exp(-0.1))
    assert rule.moved(1.0, -50.0, 100) == pytest.approx(math.exp(0.1))
    assert rule.moved(1.0, 0.0, 100) == pytest.approx(1.0)
    assert Adaptive(1.0).count_noise(100) == 5
    with pytest.raises(InputError, match="nothing is left for the gradient"):
        rule.gradient_noise_multiplier(20.0, 100)


# ------------------------------------------------------------------ in one's own loop


def square(params, x, y, scale):
    """A loss of a batch, as people write it."""
    return scale * jnp.mean((x @ params["w"] - y) ** 2)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=6)
    return {"w": jnp.asarray([0.1, -0.2, 0.3])}, jnp.float32(x), jnp.float32(y)


@pytest.mark.parametrize("engine", ENGINES)
def test_clipped_grad_is_grad_with_every_record_clipped(batch, engine):
    params, x, y = batch
    padding = np.array([0, 0, 1, 0, 0, 0], bool)
    fun = clipped_grad(square, 0.8, batch_argnums=(1, 2), engine=engine, normalize_by=5)
    found = jax.jit(fun)(params, x, y, 2.0, is_padding_example=padding)
    expected = np.zeros(3)
    for xi, yi, out in zip(x, y, padding, strict=True):
        g = np.asarray(4 * (xi @ params["w"] - yi) * xi, float)
        expected += 0 if out else g * min(1, 0.8 / np.linalg.norm(g)) / 5
    np.testing.assert_allclose(found["w"], expected, rtol=1e-5)


def test_clipped_grad_hands_back_what_is_asked_for(batch):
    params, x, y = batch

    def loss(params, x, y):
        error = x @ params["w"] - y
        return error**2, {"error": error}

    fun = clipped_grad(
        loss,
        has_aux=True,
        batch_argnums=(1, 2),
        keep_batch_dim=False,
        return_values=True,
        return_grad_norms=True,
    )
    _, own = fun(params, x, y)
    error = np.asarray(x @ params["w"] - y)
    np.testing.assert_allclose(own.aux["error"], error, rtol=1e-5)
    np.testing.assert_allclose(own.values, error**2, rtol=1e-5)
    norms = np.abs(2 * error) * np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(own.grad_norms, norms, rtol=1e-5)


def test_sensitivity_depends_on_the_relation():
    fun = clipped_grad(square, 3.0, normalize_by=4.0)
    assert fun.sensitivity() == fun.sensitivity("zero_out") == 0.75
    assert fun.sensitivity("replace_one") == 1.5
    assert clipped_grad(square, 3.0, clipping="normalised").sensitivity() == 1.0
    with pytest.raises(InputError, match="relation is 'neighbours'; it is one of"):
        fun.sensitivity("neighbours")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm is 0.0; it must be finite and > 0"),
        ({"clip_norm": float("nan")}, "clip_norm is nan"),
        ({"microbatch": 0}, "microbatch is 0; it must be >= 1"),
        ({"normalize_by": 0}, "normalize_by is 0"),
        ({"batch_argnums": (0, 1)}, "batch_argnums names 0"),
        ({"clipping": "adaptive"}, "clipping is 'adaptive', which has a state"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        clipped_grad(square, **options)


def test_a_loss_that_is_no_scalar_or_batches_of_unlike_size_are_refused(batch):
    params, x, y = batch
    with pytest.raises(InputError, match=r"loss returned an array of shape \(1,\)"):
        clipped_grad(lambda p, x: x @ p["w"])(params, x)
    with pytest.raises(InputError, match="must have equally many"):
        clipped_grad(square, batch_argnums=(1, 2))(params, x, y[:4], 1.0)
