"""Standard normals: the numbers of `jax.random.normal`, drawn so that they cost little.

jax hands the threefry hash to the compiler as one opaque operation. Spelled out as
arithmetic it melts into whatever uses the draw: bit for bit the same numbers, in less
than half the time and an eighth of the compilation (`benchmarks/records/draws_cpu.json`).
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt32

from rpjax.annotations import PRNGKey

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def standard_normal(
    key: PRNGKey, shape: tuple[int, ...], *, apart: bool = False
) -> Float[Array, "..."]:
    """``jax.random.normal(key, shape)`` in float32, whatever the key's generator.

    apart: for a draw that is used twice, such as once more by a gradient: it becomes an
        array of its own, where a compiler would else draw it again for every use.
    """
    size = math.prod(shape)
    ours = str(jax.random.key_impl(key)) in ("fry", "threefry2x32")
    if not (ours and jax.config.jax_threefry_partitionable and 1 < size < 2**32):
        return jax.random.normal(key, shape, jnp.float32)
    words = jax.random.key_data(key)
    if not apart:
        return _normals(words, lax.iota(jnp.uint32, size)).reshape(shape)
    # XLA does not fuse a concatenation into what uses it
    counters = lax.iota(jnp.uint32, size)
    halves = [_normals(words, part) for part in jnp.split(counters, [size // 2])]
    return jnp.concatenate(halves).reshape(shape)


def _normals(words: UInt32[Array, " 2"], counters: UInt32[Array, " n"]) -> Array:
    high, low = threefry(words, jnp.zeros_like(counters), counters)
    # 23 bits as a number in [1, 2), then in (-1, 1)
    bits = ((high ^ low) >> 9) | jnp.uint32(0x3F800000)
    uniform = lax.bitcast_convert_type(bits, jnp.float32) - 1.0
    least = jnp.nextafter(jnp.float32(-1), jnp.float32(0))
    uniform = jnp.maximum(least, uniform * (1 - least) + least)
    return jnp.float32(math.sqrt(2)) * lax.erf_inv(uniform)


def threefry(
    key: UInt32[Array, " 2"], high: UInt32[Array, "..."], low: UInt32[Array, "..."]
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Threefry-2x32 with 20 rounds of the counters (high, low).

    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    high, low = high + schedule[0], low + schedule[1]
    for four in range(5):
        for distance in ROTATIONS[four % 2]:
            high = high + low
            low = (low << distance) | (low >> (32 - distance))
            low = low ^ high
        high = high + schedule[(four + 1) % 3]
        low = low + schedule[(four + 2) % 3] + jnp.uint32(four + 1)
    return high, low
