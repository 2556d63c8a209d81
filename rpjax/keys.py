"""Keys: a run is a function of one seed.

A run has one root key. What the randomness is *for* is split off by name (`domain`),
the step by its counter, the record by its id (`per_record`) and the member by its
number (`member`), so no key is ever handed on from step to step: a resumed run, another
batch composition or another number of devices draws exactly the same numbers.

What a guarantee rests on, noise and who is sampled, does not hang on the root key: it
comes from 256 bits of its own (`fresh_secret`), drawn from the operating system unless
a run is to be repeated.
"""

import hashlib
import secrets
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from rpjax.annotations import MemberKeys, PRNGKey, RecordIds, RecordKeys, RootKey
from rpjax.draws import fold_in, standard_normal

DOMAINS = (
    "init",
    "member",
    "order",
    "sampling",
    "augmentation",
    "input_noise",
    "residual_noise",
    "label_noise",
    "secret",
    "query",
    "shadows",
    "attack",
)


def root(seed: int) -> PRNGKey:
    """The root key of a run."""
    return jax.random.key(seed)


def roots(seeds: int | Sequence[int]) -> RootKey:
    """The root key of a run; with several seeds, that of each run beside the others."""
    if isinstance(seeds, int | np.integer):
        return root(int(seeds))
    return jnp.stack([root(int(seed)) for seed in seeds])


def domain(key: PRNGKey, name: str) -> PRNGKey:
    """The key of one use of randomness, independent of every other use of `key`."""
    if name not in DOMAINS:
        raise ValueError(f"unknown key domain {name!r}; known: {', '.join(DOMAINS)}")
    digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
    return fold_in(key, int.from_bytes(digest, "big"))


def at_step(key: PRNGKey, step: int | Array) -> PRNGKey:
    """The key of one step, from the step's number."""
    return fold_in(key, step)


def per_record(key: PRNGKey, ids: RecordIds) -> RecordKeys:
    """One key a record, from the record's id: whatever else is in its batch."""
    return jax.vmap(lambda i: fold_in(key, i))(ids)


def per_block(keys: RecordKeys, index: int) -> RecordKeys:
    """The keys of one residual block, from the block's index and never its name."""
    return jax.vmap(lambda k: fold_in(k, index))(keys)


def view(key: PRNGKey, index: int | Array) -> PRNGKey:
    """The key of one of several views of a record."""
    return fold_in(key, index)


def member(key: PRNGKey, index: int | Array) -> PRNGKey:
    """The root key of one member."""
    return fold_in(domain(key, "member"), index)


def own(key: RootKey, numbers: Int[Array, " m"]) -> MemberKeys:
    """Each member's root key: its own where `key` holds one a member, or from `key`."""
    if key.ndim:
        return key
    return jax.vmap(lambda i: member(key, i))(numbers)


def members(key: RootKey, shape: tuple[int, ...]) -> Array:
    """Root keys for a nest of member axes; ``members(key, ())`` is `key` itself."""
    if not shape:
        return key
    outer = own(key, jnp.arange(shape[0]))
    return jax.vmap(lambda k: members(k, shape[1:]))(outer)


def fresh_secret() -> UInt32[np.ndarray, " 8"]:
    """256 secret bits from the operating system's generator."""
    return np.frombuffer(secrets.token_bytes(32), np.uint32)


def fixed_secret(key: PRNGKey) -> UInt32[Array, " 8"]:
    """256 bits that follow from the root key: for reproduction, protects nobody."""
    return jax.random.bits(domain(key, "secret"), (8,), jnp.uint32)


def from_secret(secret: UInt32[Array, " 8"]) -> PRNGKey:
    """A key into which all of `secret` is folded; as threefry's it has 64 bits."""
    key = jax.random.wrap_key_data(secret[:2], impl="threefry2x32")
    for word in secret[2:]:
        key = fold_in(key, word)
    return key


def secret_normal(
    secret: UInt32[Array, " 8"], step: int | Array, size: int
) -> Float[Array, " size"]:
    """Standard normals for the noise of one step, from all 256 bits of `secret`.

    Four independent 64-bit threefry keys each give `size` normals; their sum over two
    is standard normal again. To predict it an adversary needs all four keys, and a sum
    of four floating-point Gaussians hides the low-order bits that a single one would
    show (Holohan and Braghin, arXiv 2107.10138). `jax.random` is no cryptographic
    generator.
    """
    words = secret.reshape(4, 2)
    keys = jax.vmap(lambda w: jax.random.wrap_key_data(w, impl="threefry2x32"))(words)
    draws = jax.vmap(lambda k: standard_normal(at_step(k, step), (size,)))(keys)
    return draws.sum(0) / 2
