"""Our spelling of threefry gives jax's numbers, to the bit."""

import math
import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from rpjax import keys
from rpjax.draws import fold_in, standard_normal, threefry
from rpjax.perturbations import Multiplicative

SHAPES = [(), (1,), (2,), (7,), (4, 3), (5, 4, 3), (2, 0)]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_normals_are_jaxs_bit_for_bit(shape, apart):
    found = standard_normal(keys.root(3), shape, apart=apart)
    np.testing.assert_array_equal(found, jax.random.normal(keys.root(3), shape))
    assert found.dtype == jnp.float32


@pytest.mark.parametrize("apart", [False, True])
def test_a_batch_of_keys_gives_each_keys_own_numbers_in_a_compiled_program(apart):
    many = keys.per_record(keys.root(0), jnp.arange(9))
    draw = jax.jit(jax.vmap(lambda k: standard_normal(k, (3, 5), apart=apart)))
    expected = np.stack([jax.random.normal(k, (3, 5)) for k in many])
    # a compiler may fuse multiplications and additions
    np.testing.assert_allclose(draw(many), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("data", [0, 1, 77, 2**31 - 1, np.int32(-3), np.uint32(5)])
def test_keys_fold_as_jaxs_do(data):
    for fold in (fold_in, jax.jit(fold_in)):
        found = jax.random.key_data(fold(keys.root(3), data))
        expected = jax.random.key_data(jax.random.fold_in(keys.root(3), data))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_generators_are_left_to_jax(impl):
    found = standard_normal(jax.random.key(1, impl=impl), (6,))
    expected = jax.random.normal(jax.random.key(1, impl=impl), (6,))
    np.testing.assert_array_equal(found, expected)
    folded = (f(jax.random.key(1, impl=impl), 4) for f in (fold_in, jax.random.fold_in))
    np.testing.assert_array_equal(*map(jax.random.key_data, folded))


def test_the_hash_is_jaxs_threefry():
    key, counters = jnp.array([7, 9], jnp.uint32), jnp.arange(6, dtype=jnp.uint32)
    expected = jax.extend.random.threefry_2x32(key, counters)
    found = threefry(key, counters[:3], counters[3:])
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_the_gradient_of_strategy_two_does_not_draw_its_noise_again(optimised):
    """Counted in shifts of the hash, of which a number takes twenty."""
    many = keys.per_record(keys.root(0), jnp.arange(8))
    x, weights = jnp.ones((8, 16, 16, 4)), jnp.arange(8.0).reshape(8, 1, 1, 1)

    def draws(noise):
        def loss(x, f, many):
            y = x + f + jax.vmap(noise)(many, x)
            return jnp.sum(y * y * weights)

        gradient = jax.jit(jax.grad(loss, (0, 1)))
        text = gradient.lower(x, x, many).compile().as_text()
        shapes = re.findall(r"u32\[([\d,]+)\]\S* shift-left\(", text)
        return sum(math.prod(map(int, s.split(","))) for s in shapes) / (20 * x.size)

    def careless(key, x):
        return 0.5 * x * standard_normal(key, x.shape)

    # some hashes more make the keys
    assert draws(Multiplicative(0.5).noise) < 1.1
    assert draws(careless) > 1.9, "the compiler has learnt it: drop `apart`"
