"""DP-SGD whose noise a cryptographic generator draws: steps, devices, resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import Dense, assert_same, batch_of, start

from rpjax.csprng import host_normal
from rpjax.learners import dpsgd
from rpjax.training import fit


def learner(noise_multiplier=2.0, **options):
    return dpsgd(
        Dense(),
        optax.sgd(1.0),
        clip_norm=0.5,
        noise_multiplier=noise_multiplier,
        batch_size=4,
        noise="secure",
        **options,
    )


def flat(params):
    return np.asarray(jax.flatten_util.ravel_pytree(params)[0])


def trained(small, steps=6, **options):
    return fit(
        learner(), small, batch_size=4, steps=steps, noise_seed="fixed", **options
    )


@pytest.fixture(scope="module")
def run(small):
    return trained(small)


@pytest.mark.parametrize("clipping", ["flat", "adaptive"])
def test_a_step_adds_the_secure_draw_of_its_secret_and_number(small, clipping):
    """On an empty batch the step is the draw alone, times what the rule makes of it."""
    made = learner(noise_multiplier=0.3, clipping=clipping)
    state = start(made, small)._replace(step=jnp.int32(9))
    empty = batch_of(small, range(4), np.zeros(4, bool))
    after, _ = jax.jit(made.step)(jax.random.key(0), state, empty)
    moved = flat(state.params) - flat(after.params)
    drawn = host_normal(np.asarray(state.secret), 9, len(moved))
    scale = moved @ drawn / (drawn @ drawn)
    np.testing.assert_allclose(moved, scale * drawn, atol=1e-6)
    assert scale == pytest.approx(0.3 * 0.5 / 4, rel=1e-4) or clipping == "adaptive"


def test_eight_devices_add_the_noise_of_one(small, run):
    eight = trained(small, devices=8)
    found, expected = flat(eight.state.params), flat(run.state.params)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(small, run, tmp_path):
    trained(small, steps=3, checkpoints=tmp_path)
    resumed = trained(small, steps=6, checkpoints=tmp_path)
    assert_same(flat(resumed.state.params), flat(run.state.params))
