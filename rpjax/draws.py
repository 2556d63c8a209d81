"""Keys and standard normals: jax's numbers, drawn so that they cost little.

jax hands the threefry hash to the compiler as one opaque operation. Spelled out as
arithmetic it melts into whatever uses the draw: bit for bit the same numbers, at a
fraction of the time and of the compilation (`benchmarks/records/generators_cpu.json`).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
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
    fits = 1 < size < 2**32 and jax.config.jax_threefry_partitionable
    if not (_is_threefry(key) and fits):
        return jax.random.normal(key, shape, jnp.float32)
    words = jax.random.key_data(key)
    counters = lax.iota(jnp.uint32, size).reshape(shape)
    if not apart:
        return _normals(words, counters)
    # XLA does not fuse a concatenation into what uses it
    halves = jnp.split(counters, [shape[0] // 2])
    return jnp.concatenate([_normals(words, half) for half in halves])


def fold_in(key: PRNGKey, data: int | np.integer | Array) -> PRNGKey:
    """``jax.random.fold_in(key, data)``, whatever the key's generator."""
    if not _is_threefry(key):
        return jax.random.fold_in(key, data)
    return _folded(key, np.uint32(data) if isinstance(data, int) else data)


@partial(jax.jit, inline=True)  # one program where it is called by itself
def _folded(key: PRNGKey, data: Array) -> PRNGKey:
    number = jnp.asarray(data).astype(jnp.uint32)
    words = threefry(jax.random.key_data(key), jnp.zeros_like(number), number)
    return jax.random.wrap_key_data(jnp.stack(words), impl="threefry2x32")


def _is_threefry(key: PRNGKey) -> bool:
    return str(jax.random.key_impl(key)) in ("fry", "threefry2x32")


def _normals(words: UInt32[Array, " 2"], counters: UInt32[Array, "..."]) -> Array:
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
