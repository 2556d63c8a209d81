"""The loop and what it leaves: repeatable, evaluated, accounted for."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from support import Dense, assert_close, assert_same, batch_of, differ, records, start
from trainings import HIDDEN, PLAIN, PRIVATE, TX

from rpjax import keys
from rpjax.errors import InputError
from rpjax.intervals import clopper_pearson
from rpjax.learners import dpsgd, side_by_side, supervised
from rpjax.privacy import dpsgd as accounting
from rpjax.training import Query, answers, fit, reporter
from rpjax.training.progress import Lines

pytest_plugins = ["trainings"]

# --------------------------------------------------------------------------- the loop


def test_fit_is_a_python_loop_over_the_samplers_batches(small, run):
    root = keys.root(3)
    state, step = start(HIDDEN, small, root), jax.jit(HIDDEN.step)
    for number in range(10):
        plan, valid = run.sampler.draw(root, jnp.int32(number // 4))
        batch = batch_of(small, plan[number % 4], valid[number % 4])
        state, _ = step(root, state, batch)
    assert_close(run.state, state, rtol=1e-4, atol=1e-4)
    assert run.state.step == run.steps == 10


def test_the_same_seed_gives_the_same_parameters_bit_for_bit_and_another_seed_others(
    small, run
):
    again, other = (
        fit(HIDDEN, small, batch_size=4, steps=10, seed=s, noise_seed="fixed")
        for s in (3, 4)
    )
    assert_same(run.state, again.state)
    assert run.history == again.history
    assert differ(run.state.params, other.state.params)


def test_history_has_one_entry_per_block_with_its_means(small, run):
    assert run.history["step"] == [4, 8, 10]
    assert run.history["epoch"] == [1.0, 2.0, 2.5]
    assert {len(column) for column in run.history.values()} == {3}
    first = fit(HIDDEN, small, batch_size=4, steps=1, seed=3, noise_seed="fixed")
    losses = run.history["loss"]
    assert losses[0] != first.history["loss"][0]  # a mean, not the first step
    assert all(np.isfinite(losses))


def test_training_learns(small):
    learner = supervised(Dense(), optax.adam(0.03))
    run = fit(learner, small, batch_size=16, epochs=60)
    assert run.history["loss"][-1] < 0.3 * run.history["loss"][0]
    assert run.evaluate(small).value > 0.8


@pytest.mark.parametrize(
    "make", [lambda: HIDDEN, lambda: PRIVATE], ids=["input noise", "DP-SGD"]
)
def test_secret_noise_differs_between_runs_of_one_seed_and_fixed_noise_does_not(
    small, make
):
    options = {"batch_size": 4, "steps": 2, "seed": 3}
    secrets = [fit(make(), small, **options) for _ in range(2)]
    fixed = [fit(make(), small, noise_seed="fixed", **options) for _ in range(2)]
    assert differ(secrets[0].state.params, secrets[1].state.params)
    assert differ(secrets[0].state.secret, secrets[1].state.secret)
    assert_same(fixed[0].state, fixed[1].state)
    assert_same(fixed[0].state.secret, keys.fixed_secret(keys.root(3)))


def test_who_is_sampled_hangs_on_the_secret_and_not_on_the_seed(small):
    """Else everyone who reads the seed would know who was in which batch."""
    quiet = dpsgd(Dense(), TX, clip_norm=1e3, noise_multiplier=0.0, batch_size=4)
    options = {"batch_size": 4, "steps": 4, "seed": 3}
    one, other = (fit(quiet, small, **options) for _ in range(2))
    assert differ(one.state.params, other.state.params)
    one, other = (fit(quiet, small, noise_seed="fixed", **options) for _ in range(2))
    assert_same(one.state.params, other.state.params)


def test_who_is_sampled_by_dpsgd_is_as_secret_as_its_noise(small):
    """Without noise two runs of one seed can differ by their batches alone."""
    quiet = dpsgd(Dense(), TX, clip_norm=0.5, noise_multiplier=0.0, batch_size=4)
    one, other = (fit(quiet, small, batch_size=4, steps=3) for _ in range(2))
    assert differ(one.state.params, other.state.params)
    fixed = [
        fit(quiet, small, batch_size=4, steps=3, seed=s, noise_seed="fixed")
        for s in (0, 0)
    ]
    assert_same(*(run.state for run in fixed))


def test_members_of_a_private_ensemble_sample_independently(small):
    """Both start with the same weights and no noise: only their batches differ."""
    quiet = dpsgd(Dense(), TX, clip_norm=0.5, noise_multiplier=0.0, batch_size=4)
    twins = quiet._replace(init=lambda key, images: quiet.init(keys.root(0), images))
    run = fit(side_by_side(twins, 2), small, batch_size=4, steps=3)
    first, second = (
        jax.tree.map(lambda a, i=i: a[i], run.state.params) for i in range(2)
    )
    assert differ(first, second)


def test_noise_that_no_guarantee_rests_on_follows_the_seed(small):
    one, other = (fit(PLAIN, small, batch_size=4, steps=2) for _ in range(2))
    assert_same(one.state, other.state)


def test_each_member_has_a_secret_of_its_own(small):
    run = fit(side_by_side(HIDDEN, 3), small, batch_size=4, steps=1)
    secrets = np.asarray(run.state.secret)
    assert secrets.shape == (3, 8)
    assert len({s.tobytes() for s in secrets}) == 3


def test_members_train_on_their_own_lists_alone(small):
    """Records outside a member's list are replaced, and the member stays the same."""
    lists = np.array([[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]])
    changed = records(16, seed=9)
    images, labels = small.images.copy(), small.labels.copy()
    images[1::2], labels[1::2] = changed.images[1::2], changed.labels[1::2]
    mixed = type(small)(images, labels, small.ids)
    one, other = (
        fit(side_by_side(PLAIN, 2), data, batch_size=3, steps=4, lists=lists)
        for data in (small, mixed)
    )
    first, second = (
        [jax.tree.map(lambda a, i=i: a[i], run.state.params) for run in (one, other)]
        for i in range(2)
    )
    assert_same(*first)
    assert differ(*second)
    assert one.records == 6
    assert one.sampler.block == 2


def test_a_member_with_its_list_is_fit_on_those_records(small):
    lists = np.array([[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]])
    bank = fit(side_by_side(PLAIN, 2), small, batch_size=3, steps=5, lists=lists)
    own = small.take(lists[1])
    root = keys.member(keys.root(0), 1)
    state, step = start(PLAIN, own, root), jax.jit(PLAIN.step)
    for number in range(5):
        plan, _ = bank.sampler.draw(root, jnp.int32(number // 2))
        state, _ = step(root, state, batch_of(own, plan[number % 2]))
    assert_close(jax.tree.map(lambda a: a[1], bank.state), state)


def test_one_list_serves_all_members_and_equals_the_records_taken(small):
    where = np.array([3, 1, 4, 15, 9, 2])
    options = {"batch_size": 3, "steps": 3}
    listed = fit(side_by_side(PLAIN, 2), small, lists=where, **options)
    taken = fit(side_by_side(PLAIN, 2), small.take(where), **options)
    assert_close(listed.state.params, taken.state.params)


def test_poisson_batches_have_room_and_empty_slots_do_not_train(small, private_run):
    sampler = private_run.sampler
    assert (sampler.kind, sampler.records, sampler.batch_size) == ("poisson", 16, 4)
    overflow = accounting.overflow_probability(17, 4 / 16, sampler.capacity)
    assert overflow <= 1e-15
    root = keys.root(3)
    state, step = start(PRIVATE, small, root), jax.jit(PRIVATE.step)
    coins = keys.from_secret(state.secret)
    for number in range(40):
        if number % 32 == 0:
            plan, valid = jax.jit(sampler.draw)(coins, jnp.int32(number // 32))
        state, _ = step(
            root, state, batch_of(small, plan[number % 32], valid[number % 32])
        )
    assert_close(private_run.state, state, atol=1e-4)


# -------------------------------------------------------------------------- evaluation


def test_answers_are_log_probabilities_and_do_not_depend_on_batch_or_companions(
    small, run
):
    every = answers(HIDDEN, run.state, small, seed=1)
    np.testing.assert_allclose(scipy.special.logsumexp(every, -1), 0, atol=1e-5)
    for size in (5, 16):
        assert_close(answers(HIDDEN, run.state, small, seed=1, batch_size=size), every)
    part = answers(HIDDEN, run.state, small.take([7, 2]), seed=1)
    assert_close(part, every[[7, 2]])
    assert differ(every, answers(HIDDEN, run.state, small, seed=2))


def test_answers_are_equal_bit_for_bit_in_batches_of_one_shape(small, run):
    every = answers(HIDDEN, run.state, small, batch_size=4)
    part = answers(HIDDEN, run.state, small.take([7, 2, 11, 0, 9]), batch_size=4)
    assert_same(part, every[[7, 2, 11, 0, 9]])


def test_several_draws_average_probabilities(small, run):
    """Of the first draws one by one: draw d of n is draw d of one."""
    logits = [
        np.asarray(
            HIDDEN.predict(
                keys.at_step(keys.domain(keys.root(1), "query"), d),
                run.state,
                jnp.asarray(small.images),
                jnp.asarray(small.ids),
            )
        )
        for d in range(3)
    ]
    assert differ(logits[0], logits[1])
    expected = np.log(scipy.special.softmax(logits, -1).mean(0))
    found = answers(HIDDEN, run.state, small, Query(draws=3), seed=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_without_noise_answers_are_those_of_the_unperturbed_net(small, run):
    quiet = supervised(Dense(), TX)
    off = answers(HIDDEN, run.state, small, Query(noise=False))
    assert_same(off, answers(quiet, run.state, small))
    assert differ(off, answers(HIDDEN, run.state, small))
    assert_same(off, answers(HIDDEN, run.state, small, Query(noise=False, draws=5)))


def test_evaluation_counts_the_correct_answers(small, run):
    hits = int((run.answers(small).argmax(-1) == small.labels).sum())
    assert run.evaluate(small) == clopper_pearson(hits, 16)
    assert_same(run.answers(small), answers(HIDDEN, run.state, small, seed=3))


def test_a_bank_is_evaluated_over_all_its_models(small):
    run = fit(side_by_side(PLAIN, 3), small, batch_size=4, steps=2)
    found = run.answers(small)
    assert found.shape == (3, 16, 3)
    hits = int((found.argmax(-1) == small.labels).sum())
    assert run.evaluate(small) == clopper_pearson(hits, 48)


def test_queries_say_what_they_are():
    assert [Query().threat, Query(draws=4).threat, Query(noise=False).threat] == [
        "T1",
        "T2",
        "T4",
    ]
    assert "one noisy answer" in Query().described(True)
    assert "no forward noise" in Query().described(False)
    assert "4 noisy answers" in Query(draws=4).described(True)
    assert "switched off" in Query(noise=False).described(True)
    with pytest.raises(InputError, match="draws is 0; it must be >= 1"):
        Query(draws=0)


# ---------------------------------------------------------------------- cost, progress


def test_the_cost_of_a_run_is_counted(run):
    assert run.cost.train_seconds > 0
    assert 0 < run.cost.step_seconds <= run.cost.train_seconds
    assert run.cost.compile_seconds > 0
    assert run.cost.memory_bytes is None or run.cost.memory_bytes > 16 * 36
    assert run.epochs == 2.5


def test_a_stopwatch_leaves_the_run_as_it_was(run):
    before = jax.tree.map(np.array, run.state)
    assert run.stopwatch(3) > 0
    assert_same(run.state, before)


def test_progress_counts_every_example_once(small):
    seen = []

    class Noting:
        def advance(self, done, total, examples, info):
            seen.append((done, total, examples))
            assert {"loss", "accuracy"} <= info.keys()

    fit(side_by_side(PLAIN, 2), small, batch_size=4, steps=6, report=Noting())
    dones = [done for done, _, _ in seen]
    assert dones == sorted(dones)
    assert dones[-1] == 6
    assert {total for _, total, _ in seen} == {6}
    assert sum(examples for *_, examples in seen) == 6 * 2 * 4


def test_lines_are_printed_when_it_is_time_and_at_the_end(capsys):
    info = {"loss": 0.5, "accuracy": 0.25}
    quiet, chatty = Lines("quiet", every=1e9), Lines("chatty", every=0.0)
    for lines in (quiet, chatty):
        lines.advance(1, 2, 8, info)
        lines.advance(2, 2, 8, info)
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out] == ["quiet", "chatty", "chatty"]
    assert "step 2/2, loss 0.500, accuracy 25.0%" in out[0]


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(capsys):
    from rich.console import Console

    with reporter("train", Console(force_terminal=True)) as bar:
        bar.advance(1, 2, 8, {"loss": 0.5, "accuracy": 0.25})
    with reporter("train", Console(force_terminal=False)) as lines:
        assert isinstance(lines, Lines)
    assert not isinstance(bar, Lines)
    assert "loss 0.500" in capsys.readouterr().out


# ----------------------------------------------------------- one record, one identity


def test_an_answer_is_bit_equal_alone_and_among_others(small):
    """Batches are padded to one shape, so the compiled arithmetic is the same."""
    run = fit(PLAIN, small, batch_size=4, steps=1)
    together = run.answers(small)
    for position in (0, 7, 15):
        alone = run.answers(small.take([position]))
        np.testing.assert_array_equal(alone[0], together[position])


def test_an_id_that_occurs_twice_is_refused(small):
    twice = small.take([0, 1, 1, 2])
    with pytest.raises(InputError, match="id twice"):
        fit(PLAIN, twice, batch_size=2, steps=1)


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 5), ("noise_seed", "fixed"), ("batch_size", 8)]
)
def test_a_training_goes_on_with_its_own_settings_alone(small, tmp_path, name, value):
    options = {"batch_size": 4, "seed": 3, "noise_seed": "secret"}
    fit(PLAIN, small, steps=4, checkpoints=tmp_path, **options)
    with pytest.raises(InputError, match=f"^{name} is {value!r}"):
        fit(PLAIN, small, steps=8, checkpoints=tmp_path, **options | {name: value})
