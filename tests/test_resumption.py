"""A training is compiled once, goes on where it was, and refuses what cannot be."""

import shutil

import jax
import jax.monitoring
import numpy as np
import optax
import pytest
from support import Dense, assert_same
from trainings import HIDDEN, PLAIN, PRIVATE

from rpjax.errors import InputError
from rpjax.learners import ensemble, supervised
from rpjax.perturbations import Additive
from rpjax.training import fit

pytest_plugins = ["trainings"]

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
        {"steps": 1, "lists": np.array([0, -2, 3, 4])},
        "lists must hold positions",
    ),
    "hole": ({"steps": 1, "lists": np.array([0, -1, 3, 4])}, "-1 before a position"),
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
