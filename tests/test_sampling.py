"""Which records a step sees: rates, independence, truncation, whose turn it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support import assert_binomial, assert_same, differ

from rpjax import keys
from rpjax.data.sampling import poisson, shuffled
from rpjax.errors import InputError


def drawn(sampler, blocks, seed=0):
    """Positions and valid of some blocks, one after another."""
    draw = jax.jit(sampler.draw)
    found = [draw(keys.root(seed), jnp.int32(i)) for i in range(blocks)]
    return (np.concatenate(leaves) for leaves in zip(*found, strict=True))


def inclusion(sampler, blocks, seed=0):
    """Whether each record is in each step, (steps, records)."""
    positions, valid = drawn(sampler, blocks, seed)
    taken = np.zeros((len(positions), sampler.records), int)
    for row, where, real in zip(taken, positions, valid, strict=True):
        np.add.at(row, where[real], 1)
    assert taken.max() <= 1, "a record twice in one step"
    return taken.astype(bool)


@pytest.fixture(scope="module")
def coins():
    """4 096 steps of 20 records at probability 0.3, never truncated."""
    return inclusion(poisson(20, 6, 20, block=512), 8)


def test_each_record_enters_a_poisson_batch_with_its_probability(coins):
    for record in coins.T:  # 20 tests at 1e-4: error rate 0.002
        assert_binomial(record.sum(), len(record), 0.3)
    # power: ten per cent more would be seen in all of them together
    total = scipy.stats.binomtest(int(coins.sum()), coins.size, 0.33)
    assert total.pvalue < 1e-6


def test_a_poisson_batchs_size_is_binomial(coins):
    sizes = np.bincount(coins.sum(1), minlength=21)
    expected = scipy.stats.binom(20, 0.3).pmf(np.arange(21)) * len(coins)
    inner = slice(2, 12)  # the rest has few expected
    observed = [*sizes[inner], sizes.sum() - sizes[inner].sum()]
    wanted = [*expected[inner], expected.sum() - expected[inner].sum()]
    assert scipy.stats.chisquare(observed, wanted).pvalue > 1e-4


def test_poisson_coins_are_independent_between_steps_and_records(coins):
    n = len(coins) - 1
    within = np.corrcoef(coins.T) - np.eye(20)
    lagged = np.corrcoef(coins[:-1].T, coins[1:].T)[:20, 20:]
    # 590 correlations, each beyond 4.5 sigma with probability 7e-6
    assert np.abs(within).max() < 4.5 / n**0.5
    assert np.abs(lagged).max() < 4.5 / n**0.5


def test_a_poisson_batch_that_overflows_keeps_a_uniformly_random_part():
    taken = inclusion(poisson(12, 6, 6, block=512), 8)
    full = taken.sum(1) == 6
    assert full.mean() > 0.5
    for record in taken[full].T:  # by symmetry 6 of 12; error rate 12e-4
        assert_binomial(record.sum(), full.sum(), 0.5)


def test_poisson_slots_beyond_the_drawn_ones_are_invalid_and_at_full_rate_none_is():
    positions, valid = drawn(poisson(10, 10, 10, block=4), 1)
    assert valid.all()
    np.testing.assert_array_equal(np.sort(positions), np.tile(np.arange(10), (4, 1)))
    _, valid = drawn(poisson(1_000, 1, 8, block=64), 1)
    assert 0 < valid.sum() < 200


def test_every_record_comes_at_most_once_an_epoch_and_in_another_order_each_time():
    sampler = shuffled(11, 3)
    assert (sampler.block, sampler.capacity) == (3, 3)
    positions, valid = drawn(sampler, 20)
    assert valid.all()
    epochs = positions.reshape(20, 9)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 9
    assert len({epoch.tobytes() for epoch in epochs}) == 20
    assert set(epochs.ravel().tolist()) == set(range(11))


def test_a_shuffled_order_is_uniform():
    order = np.asarray(
        jax.vmap(lambda e: shuffled(4, 1).draw(keys.root(0), e)[0])(jnp.arange(2_400))
    )
    ranks = order.reshape(-1, 4) @ 4 ** np.arange(4)
    counts = np.unique(ranks, return_counts=True)[1]
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    "sampler", [shuffled(16, 4), poisson(16, 4, 16)], ids=lambda s: s.kind
)
def test_a_block_follows_from_the_key_and_its_number_alone(sampler):
    one, again = (sampler.draw(keys.root(0), jnp.int32(1)) for _ in range(2))
    assert_same(one, again)
    assert differ(one[0], sampler.draw(keys.root(0), jnp.int32(2))[0])
    assert differ(one[0], sampler.draw(keys.root(1), jnp.int32(1))[0])


def test_a_step_of_a_poisson_run_does_not_depend_on_the_size_of_blocks():
    by_four, by_eight = (
        np.concatenate(list(drawn(poisson(16, 4, 16, block), blocks)), axis=1)
        for block, blocks in ((4, 4), (8, 2))
    )
    np.testing.assert_array_equal(by_four, by_eight)


def test_participations_are_counted_by_epochs_begun():
    sampler = shuffled(11, 3)  # three steps an epoch
    assert [sampler.participations(s) for s in (1, 3, 4, 9, 10)] == [1, 1, 2, 3, 4]
    assert poisson(11, 3, 11).participations(10) is None
    positions, _ = drawn(sampler, 4)
    most = max(np.bincount(positions[:10].ravel()))
    assert most <= sampler.participations(10)


@pytest.mark.parametrize("size", [0, 17])
def test_a_batch_that_is_no_part_of_the_records_is_refused(size):
    for make in (lambda: shuffled(16, size), lambda: poisson(16, size, 16)):
        with pytest.raises(
            InputError, match=f"batch_size is {size}; it must lie between"
        ):
            make()


def test_a_capacity_below_the_expected_batch_is_refused():
    with pytest.raises(InputError, match="capacity is 3; it must be >= batch_size = 4"):
        poisson(16, 4, 3)


def test_slots_beyond_the_number_of_records_stay_empty():
    positions, valid = drawn(poisson(5, 4, 12, block=64), 4)
    assert not valid[:, 5:].any()
    assert valid[:, :5].mean() == pytest.approx(0.8, abs=0.06)  # 5 sigma of 1280 coins
    assert positions.max() == 4
