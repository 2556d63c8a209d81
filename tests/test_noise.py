"""The optax transformation that adds a step's noise to a sum of clipped gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from support import assert_normal, assert_same, differ

from rpjax import keys
from rpjax.csprng import host_normal
from rpjax.errors import InputError
from rpjax.noise import SOURCES, gaussian_noise

SECRET = np.arange(8, dtype=np.uint32) * np.uint32(0x9E3779B9)
ZEROS = {"kernel": np.zeros((100, 59), np.float32), "bias": np.zeros(100, np.float32)}


@pytest.fixture(params=list(SOURCES))
def source(request):
    return request.param


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def after(tx, state, updates, steps):
    """The last noisy updates and the state after so many steps, compiled."""
    step = jax.jit(tx.update)
    for _ in range(steps):
        noisy, state = step(updates, state)
    return noisy, state


def test_every_entry_gets_normal_noise_of_that_deviation(source):
    tx = gaussian_noise(3.0, SECRET, source)
    noisy, _ = after(tx, tx.init(ZEROS), ZEROS, 1)
    assert_normal(flat(noisy), 3.0)


def test_the_noise_is_what_its_source_draws_for_secret_and_step(source):
    total = jax.tree.map(lambda leaf: leaf + 5.0, ZEROS)
    tx = gaussian_noise(0.5, SECRET, source)
    noisy, state = after(tx, tx.init(ZEROS), total, 3)
    drawn = {
        "threefry": keys.secret_normal(jnp.asarray(SECRET), 2, 6_000),
        "secure": host_normal(SECRET, 2, 6_000),
    }
    np.testing.assert_allclose(
        flat(noisy), 5.0 + 0.5 * np.asarray(drawn[source]), atol=1e-6
    )
    assert int(state.step) == 3


def test_a_run_goes_on_bit_for_bit_from_a_stored_state(source):
    tx = optax.chain(gaussian_noise(1.0, source=source), optax.sgd(0.1, momentum=0.9))
    _, state = after(tx, tx.init(ZEROS), ZEROS, 2)
    leaves, tree = jax.tree.flatten(state)
    stored = [np.array(leaf) for leaf in leaves]
    whole, _ = after(tx, state, ZEROS, 2)
    resumed = gaussian_noise(1.0, source=source)  # another process draws other bits
    again = optax.chain(resumed, optax.sgd(0.1, momentum=0.9))
    restored = jax.tree.unflatten(tree, stored)
    assert_same(whole, after(again, restored, ZEROS, 2)[0])


def test_each_init_draws_fresh_bits_and_given_ones_repeat_a_run():
    tx = gaussian_noise(1.0)
    one, two = (after(tx, tx.init(ZEROS), ZEROS, 1)[0] for _ in range(2))
    assert differ(one["bias"], two["bias"])
    fixed = gaussian_noise(1.0, SECRET)
    one, two = (after(fixed, fixed.init(ZEROS), ZEROS, 1)[0] for _ in range(2))
    assert_same(one, two)


def test_steps_do_not_share_noise(source):
    tx = gaussian_noise(1.0, SECRET, source)
    state, draws = tx.init(ZEROS), []
    for _ in range(4):
        noisy, state = tx.update(ZEROS, state)
        draws.append(flat(noisy))
    correlations = np.corrcoef(draws) - np.eye(4)
    # 6 correlations, each beyond 5.5 sigma with probability 4e-8
    assert np.abs(correlations).max() < 5.5 / len(draws[0]) ** 0.5


def test_members_under_vmap_have_noise_of_their_own(source):
    secrets = jnp.stack([jnp.asarray(SECRET + i) for i in range(3)]).astype(jnp.uint32)

    def one(secret, updates):
        tx = gaussian_noise(1.0, secret, source)
        return tx.update(updates, tx.init(updates))[0]

    found = jax.jit(jax.vmap(one, (0, None)))(secrets, jnp.zeros(40))
    alone = [SOURCES[source](secret, 0, 40) for secret in secrets]
    np.testing.assert_allclose(found, np.stack(alone), rtol=1e-5, atol=1e-7)


def test_noise_enters_once_however_many_devices_sum(source):
    """The deviation after a sum over 8 devices is that on one, not sqrt(8) times it."""
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
    tx = gaussian_noise(2.0, SECRET, source)
    state = tx.init(jnp.zeros(50))

    def step(state, parts):
        return tx.update(jax.lax.psum(parts.sum(0), "data"), state)[0]

    spread = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    parts = np.random.default_rng(0).normal(size=(16, 50)).astype(np.float32)
    expected = tx.update(parts.sum(0), state)[0]
    np.testing.assert_allclose(jax.jit(spread)(state, parts), expected, atol=1e-5)


def test_noise_is_added_in_float32_whatever_the_updates_are():
    """Half precision has 8 bits: it may round the noisy sum, and not the noise."""
    rng = np.random.default_rng(0)
    half = jnp.asarray(rng.normal(size=8_000), jnp.bfloat16)
    tx = gaussian_noise(0.3, SECRET)
    # not compiled, where XLA may keep a precision that it was not asked for
    noisy, _ = tx.update(half, tx.init(half))
    noise = keys.secret_normal(jnp.asarray(SECRET), 0, 8_000)
    exact = half.astype(jnp.float32) + 0.3 * noise
    assert noisy.dtype == jnp.bfloat16
    # equal but where the compiler's last bit falls on the edge of two halves
    assert (noisy != exact.astype(jnp.bfloat16)).sum() < 8
    twice = half + (0.3 * noise).astype(jnp.bfloat16)
    assert (twice != noisy).sum() > 100, "the test cannot tell"


def test_states_of_two_sources_do_not_mix():
    threefry, secure = (gaussian_noise(1.0, SECRET, s) for s in SOURCES)
    state = threefry.init(jnp.zeros(3))
    assert state.source == "threefry"
    assert "secret" not in repr(state), "a log would give the noise away"
    with pytest.raises(InputError, match="source is 'secure', but the state's"):
        secure.update(jnp.zeros(3), state)
    with pytest.raises(ValueError, match="threefry"):
        jax.tree.map(jnp.add, state, secure.init(jnp.zeros(3)))


@pytest.mark.parametrize("wrap", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_fresh_bits_are_not_drawn_while_tracing(wrap):
    with pytest.raises(InputError, match="secret is None while init is traced"):
        wrap(gaussian_noise(1.0).init)(jnp.zeros((2, 3)))
    wrap(gaussian_noise(1.0, SECRET).init)(jnp.zeros((2, 3)))


def test_bits_in_a_closed_over_model_are_not_drawn_while_tracing_either():
    with pytest.raises(InputError, match="secret is None while init is traced"):
        jax.jit(lambda: gaussian_noise(1.0).init(ZEROS))()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stddev": -1.0}, "stddev is -1.0; it must be finite and >= 0"),
        ({"stddev": float("inf")}, "stddev is inf; it must"),
        ({"secret": np.zeros(4, np.uint32)}, "secret has shape"),
        ({"source": "chacha"}, "source is 'chacha'; it must be one of 'threefry', 's"),
    ],
)
def test_bad_input_is_one_clear_line(unchecked, given, message):
    with pytest.raises(InputError, match=message) as caught:
        gaussian_noise(**{"stddev": 1.0, **given})
    assert "\n" not in str(caught.value)
