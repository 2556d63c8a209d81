"""Poisson batches for loops of one's own: what they draw, how they are padded."""

import jax
import numpy as np
import optax
import pytest
from support import Dense, assert_binomial, assert_same

from rpjax import keys
from rpjax.batches import PoissonBatches, is_padding_example, padded
from rpjax.data.sampling import poisson
from rpjax.errors import InputError
from rpjax.learners import dpsgd
from rpjax.privacy import dpsgd as accounting

SECRET = np.arange(8, dtype=np.uint32) * np.uint32(0x9E3779B9)


@pytest.fixture(scope="module")
def batches():
    return PoissonBatches(records=24, batch_size=6, steps=70, capacity=12)


def drawn(batches, rng=SECRET, start=0):
    return np.array(list(batches.batch_iterator(batches.records, rng, start)))


def test_a_batch_has_one_shape_distinct_records_and_its_padding_last(batches):
    found = drawn(batches)
    assert found.shape == (70, 12)
    for indices in found:
        empty = is_padding_example(indices)
        assert (np.diff(empty.astype(int)) >= 0).all(), "padding between records"
        real = indices[~empty]
        assert len(set(real)) == len(real)
        assert (indices[empty] == -1).all()
        assert ((real >= 0) & (real < 24)).all()
    assert {0, 23} < set(found.ravel())  # the first and the last record too


def test_the_batches_are_those_that_training_draws_from_the_same_bits(batches):
    """What `rpjax.fit` feeds its steps: sampler and key are the ones it uses."""
    from rpjax.training.programs import plan_keys

    sampler = poisson(24, 6, 12)
    key = plan_keys(sampler, (), keys.root(0), SECRET)
    plans = [jax.jit(sampler.draw)(key, number) for number in range(3)]
    positions, valid = (np.concatenate(leaves) for leaves in zip(*plans, strict=True))
    assert_same(drawn(batches), np.where(valid, positions, -1)[:70])


@pytest.mark.parametrize("start", [1, 31, 32, 33, 69, 70])
def test_a_resumed_loop_draws_what_an_unbroken_one_does(batches, start):
    rest = list(batches.batch_iterator(24, SECRET, start))
    assert len(rest) == 70 - start
    assert_same(np.array(rest).reshape(-1, 12), drawn(batches)[start:])


def test_each_record_enters_at_its_rate_through_the_whole_protocol():
    found = drawn(PoissonBatches(records=20, batch_size=6, steps=3_000, capacity=20))
    counts = np.bincount(found[found >= 0], minlength=20)
    for record in counts:  # 20 tests at 1e-7
        assert_binomial(record, 3_000, 0.3, 1e-7)


def test_seeds_and_generators_repeat_a_run_and_nothing_else_does(batches):
    for make in (lambda: 5, lambda: np.int64(5), lambda: np.random.default_rng(5)):
        assert_same(drawn(batches, make()), drawn(batches, make()))
    assert (drawn(batches, 5) != drawn(batches, 6)).any()
    assert (drawn(batches, None) != drawn(batches, None)).any()


def test_left_open_the_slots_are_those_that_training_uses():
    from rpjax.training.loop import sampler_for

    made = dpsgd(
        Dense(), optax.sgd(1.0), clip_norm=1.0, noise_multiplier=1.0, batch_size=100
    )
    left = PoissonBatches(records=5_000, batch_size=100, steps=1)
    assert left.slots == sampler_for(made, 5_000, 100).capacity
    assert drawn(left).shape == (1, left.slots)


def test_the_event_has_the_epsilon_of_the_same_run_here():
    """By dp-accounting's own accountants, with batches that are cut and without."""
    from dp_accounting import NeighboringRelation, pld, rdp

    zero_out = NeighboringRelation.REPLACE_SPECIAL
    cut = PoissonBatches(records=1_000, batch_size=100, steps=50, capacity=104)
    options = {"steps": 50, "delta": 1e-5, "adjacency": "zero_out"}
    epsilon = lambda **more: accounting.epsilon(2.0, 0.1, **options, **more)
    expected = epsilon(truncation=cut.truncation)
    theirs = pld.PLDAccountant(zero_out, 1e-3).compose(cut.event(2.0))
    assert theirs.get_epsilon(1e-5) == pytest.approx(expected, rel=0.01)
    assert expected > 1.02 * epsilon(), "cutting costs nothing here: no test"
    whole = PoissonBatches(records=1_000, batch_size=100, steps=50)
    theirs = rdp.RdpAccountant().compose(whole.event(2.0))
    assert theirs.get_epsilon(1e-5) == pytest.approx(epsilon(accountant="rdp"))
    # as many slots as records: nothing to cut
    full = PoissonBatches(records=1_000, batch_size=100, steps=50, capacity=1_000)
    assert full.event(2.0) == whole.event(2.0)


def test_a_step_compiles_once_for_whatever_poisson_draws(batches):
    traces = 0

    @jax.jit
    def step(indices, padding):
        nonlocal traces
        traces += 1
        return (indices * ~padding).sum()

    sizes = set()
    for indices in batches.batch_iterator(24, SECRET):
        step(indices, is_padding_example(indices))
        sizes.add(int((~is_padding_example(indices)).sum()))
    assert len(sizes) > 5
    assert traces == 1


def test_a_batch_of_another_sampler_is_padded_but_never_cut():
    assert_same(padded(np.array([4, 2], np.int8), 4), np.array([4, 2, -1, -1]))
    assert_same(padded(np.array([], np.int64), 2), np.array([-1, -1]))
    with pytest.raises(InputError, match="capacity is 1, but the batch has 2 records"):
        padded(np.array([4, 2]), 1)


def test_bad_input_is_one_clear_line(batches, unchecked):
    for message, act in {
        "num_examples is 25; these": lambda: batches.batch_iterator(25),
        "steps is 0; it must": lambda: PoissonBatches(24, 6, 0),
        "capacity is 3; it must": lambda: PoissonBatches(24, 6, 1, 3),
        "batch_size is 30; it must": lambda: PoissonBatches(24, 30, 1, 40),
        "rng has shape": lambda: batches.batch_iterator(24, SECRET[:4]),
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            act()
        assert "\n" not in str(caught.value)
