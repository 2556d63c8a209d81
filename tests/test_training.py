"""The loop and what it leaves: repeatable, resumable, compiled once, accounted for."""

import math
import shutil
from dataclasses import replace

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from support import Dense, assert_close, assert_same, batch_of, differ, records, start

from rpjax import keys
from rpjax.errors import InputError
from rpjax.experiments.compare import training_facts
from rpjax.intervals import clopper_pearson
from rpjax.learners import Inputs, dpsgd, ensemble, side_by_side, supervised
from rpjax.perturbations import Additive, Multiplicative
from rpjax.privacy import dpsgd as accounting
from rpjax.privacy import gdp, residual
from rpjax.training import Budget, Query, answers, fit, reporter
from rpjax.training import run as run_module
from rpjax.training.budget import Meter
from rpjax.training.loop import sampler_for
from rpjax.training.progress import Lines

TX = optax.sgd(0.2, momentum=0.9)
PLAIN = supervised(Dense(Additive(0.5)), TX)
HIDDEN = supervised(Dense(Additive(0.5)), TX, Inputs(noise=0.3))
PRIVATE = dpsgd(Dense(), TX, clip_norm=0.5, noise_multiplier=1.0, batch_size=4)


@pytest.fixture(scope="module")
def run(small):
    """Two and a half epochs of four steps."""
    return fit(HIDDEN, small, batch_size=4, steps=10, seed=3, noise_seed="fixed")


@pytest.fixture(scope="module")
def private_run(small):
    return fit(PRIVATE, small, batch_size=4, steps=40, seed=3, noise_seed="fixed")


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


# ------------------------------------------------------------------------ compilation


@pytest.fixture
def compilations():
    """Counts every program that is traced and lowered while the test runs."""
    count = {"lowered": 0}

    def note(event, duration, **_):
        count["lowered"] += event == "/jax/core/compile/jaxpr_to_mlir_module_duration"

    jax.monitoring.register_event_duration_secs_listener(note)
    yield count
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize(
    "make", [lambda: PLAIN, lambda: PRIVATE], ids=["shuffled", "poisson"]
)
def test_nothing_is_compiled_after_the_first_call(small, compilations, make):
    seen = []

    class Counting:
        def advance(self, done, total, examples, info):
            seen.append(compilations["lowered"])

    fit(make(), small, batch_size=4, steps=100, report=Counting())
    assert len(seen) > 5
    assert seen[-1] == seen[0]
    jax.jit(lambda x: x + 3.25)(1.0)  # the counter counts
    assert compilations["lowered"] > seen[-1]


def test_a_step_is_traced_once_however_long_the_training(small):
    traces = []
    for steps in (4, 40):
        count = []

        def step(*args, count=count, **options):
            count.append(1)
            return PLAIN.step(*args, **options)

        fit(PLAIN._replace(step=step), small, batch_size=4, steps=steps)
        traces.append(len(count))
    assert traces[0] == traces[1]


# ----------------------------------------------------------------------------- budget


@pytest.fixture(scope="module")
def stopped(small, private_run):
    """Asked for 100 steps, with a budget that just allows 40."""
    budget = Budget(private_run.guarantee(1e-3).epsilon + 1e-6, delta=1e-3)
    report = Told()
    run = fit(
        *(PRIVATE, small),
        **{"batch_size": 4, "steps": 100, "seed": 3, "noise_seed": "fixed"},
        **{"budget": budget, "report": report},
    )
    return run, report


class Told:
    """A reporter that remembers."""

    def __init__(self):
        self.advances, self.lines = [], []

    def advance(self, done, total, examples, info):
        self.advances.append((done, total, info))

    def say(self, line):
        self.lines.append(line)


def test_a_training_stops_before_the_step_that_would_exceed_its_budget(
    stopped, private_run
):
    run, report = stopped
    assert run.stopped_at_budget
    assert run.state.step == run.steps == 40
    limit = run.budget.epsilon
    assert run.guarantee(1e-3).epsilon <= limit
    assert replace(run, steps=41).guarantee(1e-3).epsilon > limit
    (line,) = report.lines
    assert line.startswith("stopped after step 40 of 100: ε = ")
    assert line.endswith(f" at δ = 0.001, and one more exceeds {limit:g}")
    # and is otherwise the training of so many steps
    assert_same(run.state, private_run.state)
    assert not private_run.stopped_at_budget
    assert "epsilon" not in private_run.history
    assert training_facts(run)["budget"] == {"epsilon": limit, "delta": 1e-3}
    assert training_facts(run)["stopped_at_budget"]


def test_progress_and_history_show_what_is_spent(stopped):
    run, report = stopped
    spent = [info["epsilon"] for _, _, info in report.advances]
    assert spent == sorted(spent)
    assert report.advances[-1][:2] == (run.steps, run.steps)
    exact = [
        run_module.guarantee(
            *(run.learner, run.sampler, int(step), run.shape),
            delta=1e-3,
            noise_seed="fixed",
        ).epsilon
        for step in run.history["step"]
    ]
    shown = run.history["epsilon"]
    assert shown[-1] == exact[-1] == spent[-1]
    for bound, true in zip(shown, exact, strict=True):
        assert bound == true, "of few blocks each one is exact"


def test_a_budget_that_is_large_enough_is_no_limit():
    meter = Meter(Budget(12.0), lambda steps: 0.3 * steps, asked=40)
    assert (meter.steps, meter.verdict()) == (40, None)
    meter = Meter(Budget(12.0), lambda steps: 0.3 * steps, asked=41)
    assert meter.steps == 40
    assert meter.verdict().startswith("stopped after step 40 of 41: ε = 12 ")


def test_a_long_training_asks_its_accountant_a_few_times_for_each_doubling():
    asked = []
    meter = Meter(Budget(1e9), lambda n: asked.append(n) or n, 50_001, block=32)
    steps = np.arange(1, 50_002, 7)
    spent = np.array([meter.so_far(int(n)) for n in steps])
    # 1563 blocks: below 32 each one, and six doublings
    assert len(asked) <= 32 + 6 * 16
    assert (spent >= steps).all()
    assert (spent <= (steps + 31) * 17 / 16).all()
    ends = [32 * n for n in range(1, 33)]
    assert [meter.so_far(end) for end in ends] == ends
    assert meter.so_far(50_001) == 50_001


def test_a_resumed_training_counts_its_budget_from_the_first_step(
    small, tmp_path, stopped
):
    whole, _ = stopped
    options = {"batch_size": 4, "seed": 3, "noise_seed": "fixed"}
    options["checkpoints"] = tmp_path
    fit(PRIVATE, small, steps=32, **options)  # without a budget
    run = fit(PRIVATE, small, steps=100, budget=whole.budget, **options)
    assert run.steps == whole.steps == 40
    assert_same(run.state, whole.state)
    assert run.history == whole.history
    tight = Budget(5.0, 1e-3)
    with pytest.raises(InputError, match=r"^budget is ε = 5 at .*has taken 40"):
        fit(PRIVATE, small, steps=100, budget=tight, **options)


def test_a_budget_holds_for_input_noise_too(small):
    """Six steps of four an epoch, mu = 12 sqrt(E) / 30."""
    learner = supervised(Dense(), TX, Inputs(noise=30.0))
    run = fit(learner, small, batch_size=4, steps=100, budget=Budget(3.0))
    epochs = math.floor((gdp.mu_from(3.0, 1e-5) * 30 / 12) ** 2)
    assert run.steps == 4 * epochs
    assert run.guarantee().epsilon <= 3.0


def test_a_member_more_leaves_fewer_steps_to_a_budget(small):
    """Found without a step of training."""
    steps = []
    for members in (1, 2):
        learner = ensemble(PRIVATE, members) if members > 1 else PRIVATE
        sampler = sampler_for(learner, 16, 4)
        spent = run_module.spending(learner, sampler, (6, 6, 1), 1e-3)
        steps.append(Meter(Budget(10.0, 1e-3), spent, 100).steps)
    assert steps[1] == steps[0] // 2


def test_budgets_that_cannot_be_kept_are_refused(small):
    options = {"batch_size": 4, "steps": 10}
    with pytest.raises(InputError, match=r"^budget is ε = 0.01 .*single step spends"):
        fit(PRIVATE, small, **options, budget=Budget(0.01))
    with pytest.raises(InputError, match=r"^budget needs a training that guarantees"):
        fit(PLAIN, small, **options, budget=Budget(8.0))
    with pytest.raises(InputError, match=r"^budget.epsilon is 0"):
        Budget(0.0)
    with pytest.raises(InputError, match=r"^budget.delta is 1"):
        Budget(1.0, 1.0)


# ------------------------------------------------------------------------- resumption


@pytest.mark.parametrize(
    ("learner", "whole", "half"),
    [(HIDDEN, 10, 4), (HIDDEN, 10, 6), (PRIVATE, 40, 34), (ensemble(PLAIN, 2), 8, 4)],
    ids=["at an epoch's end", "amid an epoch", "DP-SGD", "ensemble"],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    small, tmp_path, learner, whole, half
):
    options = {"batch_size": 4, "seed": 3, "noise_seed": "fixed"}
    uninterrupted = fit(learner, small, steps=whole, **options)
    fit(learner, small, steps=half, checkpoints=tmp_path / "a", **options)
    resumed = fit(learner, small, steps=whole, checkpoints=tmp_path / "a", **options)
    assert_same(resumed.state, uninterrupted.state)
    assert resumed.steps == whole
    if half % uninterrupted.sampler.block == 0:
        assert resumed.history == uninterrupted.history


def test_a_killed_run_resumes_from_its_last_checkpoint(small, tmp_path, monkeypatch):
    from rpjax.training.checkpoints import Checkpoints

    monkeypatch.setattr(Checkpoints, "due", lambda self: True)

    class Killed(Exception):
        pass

    class Killer:
        def advance(self, done, total, examples, info):
            if done > 8:
                raise Killed

    options = {"batch_size": 4, "steps": 16, "checkpoints": tmp_path}
    with pytest.raises(Killed):
        fit(PLAIN, small, report=Killer(), **options)
    done = []

    class Watcher:
        def advance(self, now, total, examples, info):
            done.append(now)

    resumed = fit(PLAIN, small, report=Watcher(), **options)
    assert done[0] > 4, "nothing was saved"
    assert_same(resumed.state, fit(PLAIN, small, batch_size=4, steps=16).state)


def test_a_secret_survives_resumption(small, tmp_path):
    options = {"batch_size": 4, "checkpoints": tmp_path}
    first = fit(HIDDEN, small, steps=4, **options)
    assert_same(first.state.secret, fit(HIDDEN, small, steps=8, **options).state.secret)


def test_a_finished_run_is_picked_up_without_a_step(small, tmp_path):
    options = {"batch_size": 4, "steps": 4, "checkpoints": tmp_path}
    first, again = fit(HIDDEN, small, **options), fit(HIDDEN, small, **options)
    assert_same(first.state, again.state)
    assert first.history == again.history
    assert again.cost.train_seconds == 0


def test_a_checkpoint_with_more_steps_than_asked_for_is_refused(small, tmp_path):
    """Its weights have seen more than the guarantee of so few steps would say."""
    fit(PLAIN, small, batch_size=4, steps=6, checkpoints=tmp_path)
    message = r"steps is 4; the checkpoint in .* has taken 6"
    with pytest.raises(InputError, match=message):
        fit(PLAIN, small, batch_size=4, steps=4, checkpoints=tmp_path)


def test_a_checkpoint_of_another_learner_is_refused_in_one_line(small, tmp_path):
    fit(PLAIN, small, batch_size=4, steps=2, checkpoints=tmp_path)
    other = supervised(Dense(Additive(0.5)), optax.adam(0.1))
    with pytest.raises(InputError, match="the checkpoint of step 2 in") as error:
        fit(other, small, batch_size=4, steps=4, checkpoints=tmp_path)
    assert "\n" not in str(error.value)


def test_a_damaged_checkpoint_is_refused_in_one_line(small, tmp_path):
    fit(PLAIN, small, batch_size=4, steps=2, checkpoints=tmp_path)
    shutil.rmtree(tmp_path / "2" / "state")
    with pytest.raises(InputError, match="remove that step's folder") as error:
        fit(PLAIN, small, batch_size=4, steps=4, checkpoints=tmp_path)
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------- refusals


REFUSALS = {
    "batch too large": ({"batch_size": 17, "steps": 1}, "batch_size is 17"),
    "batch empty": ({"batch_size": 0, "steps": 1}, "batch_size is 0"),
    "both": (
        {"steps": 1, "epochs": 1.0},
        "steps is 1 and epochs 1.0; give exactly one",
    ),
    "neither": ({}, "steps is None and epochs None; give exactly one"),
    "no steps": ({"steps": 0}, "steps is 0; it must be >= 1"),
    "no epochs": ({"epochs": 0.0}, "epochs is 0.0; it must be > 0"),
    "negative": (
        {"steps": 1, "lists": np.array([0, -1, 3, 4])},
        "lists must hold positions",
    ),
    "beyond": (
        {"steps": 1, "lists": np.array([0, 16, 3, 4])},
        "lists must hold positions",
    ),
    "empty": ({"steps": 1, "lists": np.array([], int)}, "lists must hold positions"),
    "twice": ({"steps": 1, "lists": np.array([0, 1, 1, 4])}, "a position twice"),
    "members": ({"steps": 1, "lists": np.zeros((2, 4), int)}, "lists has shape"),
    "devices": ({"steps": 1, "devices": 9}, "devices is 9; there are 8"),
    "no device": ({"steps": 1, "devices": 0}, "devices is 0; there are 8"),
    "uneven": ({"steps": 1, "devices": 3}, "devices is 3, which does not divide"),
}


@pytest.mark.parametrize(("options", "message"), REFUSALS.values(), ids=REFUSALS)
def test_impossible_settings_are_refused_in_one_line_before_compiling(
    small, compilations, options, message
):
    with pytest.raises(InputError, match=message) as error:
        fit(PLAIN, small, **{"batch_size": 4, **options})
    assert "\n" not in str(error.value)
    assert compilations["lowered"] == 0


def test_dpsgd_refuses_another_batch_size_than_it_divides_by(small):
    with pytest.raises(
        InputError, match="batch_size is 8; the DP-SGD learner divides by 4"
    ):
        fit(PRIVATE, small, batch_size=8, steps=1)
    with pytest.raises(InputError, match="batch_size is 4; it must lie between"):
        fit(PRIVATE, small.take([0, 1]), batch_size=4, steps=1)


# --------------------------------------------------------------------------- guarantee


@pytest.fixture
def asked(monkeypatch):
    """What the accountants are given."""
    calls = []
    for name in ("dpsgd_guarantee", "feature_guarantee"):
        real = getattr(run_module, name)

        def noted(*, name=name, real=real, **options):
            calls.append((name, options))
            return real(**options)

        monkeypatch.setattr(run_module, name, noted)
    return calls


def test_the_guarantee_of_dpsgd_is_its_accountants(private_run, asked):
    private_run.guarantee(delta=1e-3)
    ((name, options),) = asked
    assert name == "dpsgd_guarantee"
    assert options == {
        "noise_multiplier": 1.0,
        "sampling_probability": 0.25,
        "steps": 40,
        "delta": 1e-3,
        "records": 16,
        "capacity": private_run.sampler.capacity,
        "members": 1,
        "sampling": "poisson",
        "clipping": "flat",
        "noise_source": "threefry",
        "trained": None,
        "batch_norm": False,
        "releases_clean_statistics": False,
        "models": 1,
        "noise_seed": "fixed",
        "noise_reused": False,
    }


def test_dpsgd_in_shuffled_epochs_is_accounted_for_as_what_it_is(small, asked):
    """And by what the sampler did, not by what the learner says of itself."""
    facts = replace(
        PRIVATE.mechanism,
        **{"sampling": "shuffled", "clipping": "automatic", "trained": "the head"},
        noise_source="secure",
    )
    learner = PRIVATE._replace(mechanism=facts, using=None)
    run = fit(learner, small, batch_size=4, steps=6, noise_seed="fixed")
    assert run.sampler.kind == "shuffled"
    proved = run.guarantee()
    ((_, options),) = asked
    words = ("sampling", "clipping", "noise_source", "trained", "capacity")
    assert [options[name] for name in words] == [
        *("shuffled", "automatic", "secure", "the head", 4)
    ]
    # six steps of four an epoch: a record enters two at most
    assert proved.mu == pytest.approx(math.sqrt(2) / 1.0)


def test_the_guarantee_of_dpsgd_is_finite_and_near_that_without_overflow(private_run):
    found = private_run.guarantee(delta=1e-3)
    plain = accounting.epsilon(1.0, 0.25, 40, 1e-3)
    assert found.kind == "dp"
    assert plain <= found.epsilon <= 1.01 * plain


def test_the_guarantee_of_input_noise_counts_epochs_and_takes_the_pixels_range(
    run, asked
):
    guarantee = run.guarantee()
    ((name, options),) = asked
    assert name == "feature_guarantee"
    assert options == {
        "input_noise": 0.3,
        "delta": 1e-5,
        "participations": 3,
        "bound": None,
        "diameter": pytest.approx(2 * 6.0),  # 36 pixels in [-1, 1]
        "bound_enforced": True,
        "constants_public": True,
        "releases_clean_statistics": False,
        "draw": "step",
        "members": 1,
        "noise_per_member": "own",
        "augmentation": "none",
        "batch_norm": False,
        "batch_statistics": "training",
        "residual_bound": None,
        "label_epsilon": None,
        "classes": None,
        "models": 1,
        "noise_seed": "fixed",
        "noise_reused": False,
        "strategy": "additive",
        "gamma": 0.5,
    }
    assert guarantee.kind == "gdp"
    assert guarantee.mu == pytest.approx(12.0 * 3**0.5 / 0.3)


def test_the_guarantee_of_clipped_inputs_kept_noise_and_members(small, asked):
    model = Dense(Multiplicative(0.5, 0.2))
    inputs = Inputs(noise=4.0, bound=1.5)
    learner = ensemble(supervised(model, TX, inputs, draw="record"), 2)
    guarantee = fit(learner, small, batch_size=4, steps=5).guarantee()
    ((_, options),) = asked
    assert (options["bound"], options["diameter"], options["draw"]) == (
        1.5,
        None,
        "record",
    )
    assert (options["members"], options["noise_seed"]) == (2, "secret")
    found = (options["strategy"], options["gamma"], options["floor"])
    assert found == ("multiplicative", 0.5, 0.2)
    expected = residual.mu(4.0, bound=1.5, participations=2, draw="record", members=2)
    assert guarantee.mu == pytest.approx(expected)


def test_members_of_a_joint_ensemble_share_one_noisy_copy(small):
    learner = supervised(Dense(Additive(0.5)), TX, Inputs(noise=4.0, bound=1.5))
    single, joint, own = (
        fit(each, small, batch_size=4, steps=4).guarantee().mu
        for each in (learner, ensemble(learner, 4, joint=True), ensemble(learner, 4))
    )
    assert joint == pytest.approx(single)
    assert own == pytest.approx(2 * single)


def test_residual_noise_alone_proves_nothing(small):
    assert fit(PLAIN, small, batch_size=4, steps=1).guarantee().kind == "none"


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
