"""Our spelling of threefry gives jax's numbers, to the bit."""

import math
import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from rpjax import keys
from rpjax.draws import standard_normal, threefry

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


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_generators_are_left_to_jax(impl):
    found = standard_normal(jax.random.key(1, impl=impl), (6,))
    expected = jax.random.normal(jax.random.key(1, impl=impl), (6,))
    np.testing.assert_array_equal(found, expected)


def test_the_hash_is_jaxs_threefry():
    key, counters = jnp.array([7, 9], jnp.uint32), jnp.arange(6, dtype=jnp.uint32)
    expected = jax.extend.random.threefry_2x32(key, counters)
    found = threefry(key, counters[:3], counters[3:])
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_a_draw_set_apart_is_not_drawn_again_by_the_gradient(optimised):
    """Counted in shifts of the hash, of which a number takes twenty."""
    numbers, many = (16, 16), keys.per_record(keys.root(0), jnp.arange(8))

    def draws(apart):
        def loss(x, many):
            n = jax.vmap(lambda k: standard_normal(k, numbers, apart=apart))(many)
            return jnp.sum(jnp.sin(jnp.cumsum(x * n, 1)))

        x = jnp.ones((8, *numbers))
        text = jax.jit(jax.grad(loss)).lower(x, many).compile().as_text()
        shapes = re.findall(r"u32\[([\d,]+)\]\S* shift-left\(", text)
        return sum(math.prod(map(int, s.split(","))) for s in shapes) / (20 * x.size)

    assert draws(apart=True) < 1.1  # and the hashes that make the keys
    assert draws(apart=False) > 1.9, "the compiler has learnt it: drop `apart`"
