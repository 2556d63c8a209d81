"""What a run states of itself, and a training that stops at its budget."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support import Dense, assert_same
from trainings import PLAIN, PRIVATE, TX

from rpjax.errors import InputError
from rpjax.experiments.measures import training_facts
from rpjax.learners import Inputs, ensemble, supervised
from rpjax.perturbations import Additive, Multiplicative
from rpjax.privacy import dpsgd as accounting
from rpjax.privacy import gdp, residual
from rpjax.training import Budget, fit
from rpjax.training import run as run_module
from rpjax.training.budget import Meter
from rpjax.training.loop import sampler_for

pytest_plugins = ["trainings"]

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
        "released_counts": False,
        "pretrained": None,
        "public_counts": False,
        "releases": (),
    }


def test_dpsgd_in_shuffled_epochs_is_accounted_for_as_what_it_is(small, asked):
    """And by what the sampler did, not by what the learner says of itself."""
    facts = replace(
        PRIVATE.mechanism,
        **{
            "sampling": "shuffled",
            "clipping": "automatic",
            "trained": ("block3", "head"),
        },
        noise_source="secure",
    )
    learner = PRIVATE._replace(mechanism=facts, using=None)
    run = fit(learner, small, batch_size=4, steps=6, noise_seed="fixed")
    assert run.sampler.kind == "shuffled"
    proved = run.guarantee()
    ((_, options),) = asked
    words = ("sampling", "clipping", "noise_source", "trained", "capacity")
    assert [options[name] for name in words] == [
        *("shuffled", "automatic", "secure", "block3, head", 4)
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
        "trained": None,
        "pretrained": None,
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
