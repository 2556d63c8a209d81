"""Noise from the host's cryptographic generator, and the transformation that adds it.

What is drawn is a function of secret and step alone: that makes most of these exact.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from support import assert_normal, assert_same, differ

from rpjax import csprng, keys
from rpjax.csprng import host_normal, secure_normal

SIZE = 20_000
SECRETS = np.arange(32, dtype=np.uint32).reshape(4, 8) * np.uint32(0x9E3779B9)


def test_secure_normals_are_standard_normal():
    assert_normal(secure_normal(jnp.asarray(SECRETS[0]), 5, SIZE), 1.0)


def test_the_tails_are_there_with_both_signs():
    # 2 million draws: 126.7 expected beyond 4 of either sign, 53 is 6.5 sigma less
    draws = np.concatenate([host_normal(SECRETS[0], s, SIZE) for s in range(100)])
    for tail in (draws > 4, draws < -4):
        assert 53 / 2 < tail.sum() < 127  # 63.3 expected on each side


def test_the_extreme_words_give_finite_normals():
    words = np.array([0, 1, 2**64 - 2, 2**64 - 1], np.uint64)
    found = csprng._normals(words)
    assert np.isfinite(found).all()
    least = scipy.special.ndtri(2.0**-65)
    np.testing.assert_allclose(found[:2], [least, -least], rtol=1e-6)
    np.testing.assert_allclose(found[2:], 0, atol=1e-15)


def test_no_float32_of_ordinary_size_is_left_out():
    """Every one of these is hit by some word: a draw's own bits have no holes."""
    rng = np.random.default_rng(0)
    wanted = np.float32(np.exp(rng.uniform(np.log(1e-8), np.log(6), 2_000)))
    middle = scipy.special.ndtr(-wanted.astype(np.float64)) * 2.0**64
    steps = np.linspace(-2, 2, 65)  # of what separates this float32 from the next
    for value, word in zip(-wanted, middle, strict=True):
        density = np.exp(-(float(value) ** 2) / 2) / np.sqrt(2 * np.pi) * 2.0**64
        around = word + steps * density * float(np.spacing(abs(value)))
        tried = np.clip(around, 0, 2.0**63 - 1024).astype(np.uint64) << np.uint64(1)
        assert value in csprng._normals(tried)


def test_the_generator_is_shake_256_of_purpose_secret_and_step():
    """Re-derived here, so that no change of the code changes old runs unnoticed."""
    message = csprng.PURPOSE + bytes(range(32)) + bytes([7, 1, 0, 0, 0, 0, 0, 0])
    raw = hashlib.shake_256(message).digest(24)
    words = [int.from_bytes(raw[i : i + 8], "little") for i in (0, 8, 16)]
    signs = [1 - 2 * (word % 2) for word in words]
    expected = signs * scipy.special.ndtri([(w // 2 + 0.5) / 2**64 for w in words])
    secret = np.frombuffer(bytes(range(32)), "<u4")
    np.testing.assert_array_equal(
        host_normal(secret, 263, 3), expected.astype(np.float32)
    )


def test_steps_and_secrets_draw_independently():
    draws = [host_normal(secret, step, SIZE) for secret in SECRETS for step in range(3)]
    one_bit = SECRETS[0] ^ np.array([0, 0, 0, 0, 0, 0, 0, 1 << 31], np.uint32)
    draws.append(host_normal(one_bit, 0, SIZE))
    correlations = np.corrcoef(draws) - np.eye(13)
    # 78 correlations, each beyond 5.5 sigma with probability 4e-8
    assert np.abs(correlations).max() < 5.5 / SIZE**0.5


def test_a_shorter_draw_is_the_beginning_of_a_longer_one():
    assert_same(host_normal(SECRETS[0], 3, 10), host_normal(SECRETS[0], 3, 100)[:10])


def test_every_way_to_run_it_draws_the_hosts_numbers():
    """Jit, a loop with the step as its counter, and members each with a secret."""

    @jax.jit
    def collected(secrets, first):
        def body(i, out):
            draw = lambda secret: secure_normal(secret, first + i, 50)
            return out.at[:, i].set(jax.vmap(draw)(secrets))

        return jax.lax.fori_loop(0, 3, body, jnp.zeros((4, 3, 50)))

    found = collected(jnp.asarray(SECRETS), jnp.int32(8))
    expected = [[host_normal(s, 8 + i, 50) for i in range(3)] for s in SECRETS]
    assert_same(found, np.array(expected))
    assert differ(found[0, 0], found[0, 1])
    nested = jax.vmap(jax.vmap(lambda s, t: secure_normal(s, t, 50), (0, None)))
    steps = jnp.arange(8, 10)
    again = nested(jnp.asarray(SECRETS).reshape(2, 2, 8), steps)
    rows = [
        [host_normal(SECRETS[2 * j + i], 8 + j, 50) for i in (0, 1)] for j in (0, 1)
    ]
    assert_same(again, np.array(rows))


def test_all_devices_draw_the_same_and_a_collective_between_draws_is_no_deadlock():
    """Eight devices, a sum over them before each draw, more numbers than one chunk."""
    size, auto = 300_000, (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=auto)

    def local(secret, parts):
        def body(step, total):
            own = jnp.sum(parts) * jnp.ones(size)
            return total + jax.lax.psum(own, "data") + secure_normal(secret, step, size)

        return jax.lax.fori_loop(0, 4, body, jnp.zeros(size))

    # replicated for shard_map's own check of what varies over devices
    spread = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    parts = jax.device_put(jnp.ones(16), NamedSharding(mesh, P("data")))
    found = jax.jit(spread)(jnp.asarray(SECRETS[0]), parts)
    noise = sum(host_normal(SECRETS[0], step, size) for step in range(4))
    for shard in found.addressable_shards:
        np.testing.assert_allclose(shard.data, 64 + noise, atol=3e-5)
    copies = [np.asarray(shard.data) for shard in found.addressable_shards]
    assert len(copies) == 8
    assert all(np.array_equal(copies[0], copy) for copy in copies)


def test_members_spread_over_devices_keep_their_own_noise():
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((4,), ("member",), axis_types=auto, devices=jax.devices()[:4])
    draw = lambda secrets: jax.vmap(lambda s: secure_normal(s, 2, 30))(secrets)
    run = jax.jit(
        jax.shard_map(draw, mesh=mesh, in_specs=P("member"), out_specs=P("member"))
    )
    expected = np.array([host_normal(secret, 2, 30) for secret in SECRETS])
    assert_same(run(jnp.asarray(SECRETS)), expected)


def test_a_draw_that_is_shared_between_devices_is_not_shared_between_steps():
    """The last draw is kept for other devices; it must not be mistaken for another."""
    secret = jnp.asarray(SECRETS[0])
    first = np.array(secure_normal(secret, 0, 40))
    for other in (
        secure_normal(secret, 1, 40),
        secure_normal(jnp.asarray(SECRETS[1]), 0, 40),
        secure_normal(secret, 0, 41)[:40] + 1,
    ):
        assert differ(other, first)
    assert_same(secure_normal(secret, 0, 40), first)
    assert_same(secure_normal(secret, jnp.int32(0), 40), first)


def test_secure_noise_is_not_that_of_threefry():
    secret = jnp.asarray(SECRETS[0])
    draws = [draw(secret, 0, SIZE) for draw in (secure_normal, keys.secret_normal)]
    assert abs(np.corrcoef(draws)[0, 1]) < 5.5 / SIZE**0.5


@pytest.mark.parametrize("size", [0, 1])
def test_small_sizes(size):
    assert secure_normal(jnp.asarray(SECRETS[0]), 0, size).shape == (size,)
