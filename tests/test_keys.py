"""A run is a function of one seed, and no two uses of it share numbers."""

import itertools
import secrets

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import (
    assert_normal,
    assert_same,
    assert_uncorrelated,
    differ,
    normal_pvalue,
)

from rpjax import keys

SIZE = 4_096
GOLDEN = {"init": [3546728950, 1024077598], "order": [2040444171, 2304104517]}
IDS = np.array([3, 1, 1_000_000], np.int32)  # jnp's would fix the devices


def normals(key):
    return jax.random.normal(key, (SIZE,))


def secret_of(seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2**32, 8, np.uint32))


def uses(root):
    """Keys of one root that must all be independent."""
    records = keys.per_record(root, jnp.asarray(IDS))
    blocks = [keys.per_block(records, i) for i in range(2)]
    return {
        "root": root,
        **{name: keys.domain(root, name) for name in keys.DOMAINS},
        **{f"step {i}": keys.at_step(keys.domain(root, "order"), i) for i in range(2)},
        **{f"member {i}": keys.member(root, i) for i in range(2)},
        **{f"record {i}": records[i] for i in range(3)},
        **{f"block {i}, record {j}": blocks[i][j] for i in range(2) for j in range(2)},
    }


def test_no_two_domains_steps_members_records_or_blocks_share_numbers():
    # 23 keys, 253 pairs: all pass at their 4 sigma with probability 0.98
    draws = {name: np.asarray(normals(key)) for name, key in uses(keys.root(0)).items()}
    for one, other in itertools.combinations(draws.values(), 2):
        assert_uncorrelated(one, other)


def test_another_seed_changes_every_key():
    for one, other in zip(
        uses(keys.root(0)).values(), uses(keys.root(1)).values(), strict=True
    ):
        assert differ(one, other)


def test_the_same_seed_gives_the_same_keys_in_every_version():
    """Golden words: changing them changes every run that somebody has reported."""
    found = {
        n: jax.random.key_data(keys.domain(keys.root(0), n)) for n in ("init", "order")
    }
    assert {n: v.tolist() for n, v in found.items()} == GOLDEN


def test_an_unknown_domain_is_an_error():
    with pytest.raises(ValueError, match="unknown key domain 'inti'"):
        keys.domain(keys.root(0), "inti")


def test_a_records_key_follows_from_its_id_and_not_from_its_batch():
    together = keys.per_record(keys.root(0), jnp.asarray(IDS))
    for position, record in enumerate(jnp.asarray(IDS)):
        alone = keys.per_record(keys.root(0), record[None])
        assert_same(alone[0], together[position])
        assert_same(alone[0], jax.random.fold_in(keys.root(0), record))


def test_a_blocks_keys_follow_from_its_index():
    records = keys.per_record(keys.root(0), jnp.asarray(IDS))
    for index in range(3):
        expected = [jax.random.fold_in(k, index) for k in records]
        for found, key in zip(keys.per_block(records, index), expected, strict=True):
            assert_same(found, key)


def test_nested_members_are_members_of_members():
    root = keys.root(0)
    nested = keys.members(root, (2, 3))
    assert nested.shape == (2, 3)
    for i, j in itertools.product(range(2), range(3)):
        assert_same(nested[i, j], keys.member(keys.member(root, i), j))
    assert_same(keys.members(root, ()), root)


def test_fresh_secrets_are_32_bytes_of_the_operating_system(monkeypatch):
    assert differ(keys.fresh_secret(), keys.fresh_secret())
    monkeypatch.setattr(secrets, "token_bytes", lambda count: bytes(range(count)))
    assert keys.fresh_secret().tobytes() == bytes(range(32))


def test_a_fixed_secret_follows_from_the_root_key():
    assert_same(keys.fixed_secret(keys.root(0)), keys.fixed_secret(keys.root(0)))
    assert differ(keys.fixed_secret(keys.root(0)), keys.fixed_secret(keys.root(1)))


@pytest.mark.parametrize("word", range(8))
def test_every_word_of_a_secret_counts(word):
    secret = secret_of()
    other = secret.at[word].set(secret[word] ^ 1)
    assert differ(keys.from_secret(secret), keys.from_secret(other))
    # each of the four keys contributes a quarter of the variance
    one, two = (np.asarray(keys.secret_normal(s, 0, 20_000)) for s in (secret, other))
    assert np.corrcoef(one, two)[0, 1] == pytest.approx(0.75, abs=0.02)


def test_secret_noise_is_standard_normal():
    assert_normal(keys.secret_normal(secret_of(), 5, 20_000), 1.0)


def test_secret_noise_is_fresh_at_each_step():
    draws = [keys.secret_normal(secret_of(), step, SIZE) for step in range(3)]
    for one, other in itertools.combinations(draws, 2):
        assert_uncorrelated(one, other)
    assert_same(draws[1], keys.secret_normal(secret_of(), jnp.int32(1), SIZE))


def test_the_statistical_assertions_can_fail():
    rng = np.random.default_rng(0)
    z = rng.normal(size=20_000)
    assert normal_pvalue(z, 1.0) > 1e-4
    uniform = rng.uniform(-(3**0.5), 3**0.5, 20_000)  # the right variance
    assert normal_pvalue(uniform, 1.0) < 1e-6
    with pytest.raises(AssertionError):
        assert_uncorrelated(z, z + 5 * rng.normal(size=20_000))
