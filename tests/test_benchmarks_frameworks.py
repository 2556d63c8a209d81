"""Whole trainings in several frameworks: what is asked of each, and what is refused."""

import dataclasses

import numpy as np
import pytest

from benchmarks import commands
from benchmarks.benchmark import silent
from benchmarks.dpsgd import environments
from benchmarks.dpsgd.contenders import Contender
from benchmarks.frameworks import child, comparison, race, with_rpjax
from benchmarks.frameworks.comparison import Frameworks
from benchmarks.frameworks.course import Course, Trainer
from benchmarks.frameworks.entrants import ENTRANTS, FRAMEWORKS, RPJAX
from benchmarks.record import command

OTHER = ENTRANTS[1]


def here(function, *args, environment=None):
    """What `fresh` gives, without a process: this one computes on a CPU anyway."""
    return function(*args)


@pytest.fixture(scope="module", autouse=True)
def one_process():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "fresh", here)
        patch.setattr(comparison, "on_cpu", lambda: True)
        yield


@pytest.fixture(scope="module")
def course(tmp_path_factory, one_process):
    """What the quick comparison trains, of digits and the smallest net."""
    settings = comparison._quicker(Frameworks(threads=1, epochs=3))
    folder = tmp_path_factory.mktemp("frameworks")
    ((one, facts),) = comparison._courses(settings, folder, False, silent)
    assert facts["data"] == "digits"
    return one


# ------------------------------------------------------------- what is the same for all


def test_batches_are_poisson_samples_and_padding_holds_no_record(course):
    """Their sizes have a binomial's mean and variance, which shuffled ones have not."""
    long = dataclasses.replace(course, epoch_steps=2_000)
    batches, rate = long.epoch(1), long.sampling_probability
    sizes = np.array([len(batch) for batch in batches])
    assert sizes.mean() == pytest.approx(64 * rate, rel=0.03)
    assert sizes.var() == pytest.approx(64 * rate * (1 - rate), rel=0.15)
    where, valid = long.padded(batches[0])
    assert len(where) == len(valid) == long.slots > sizes.max()
    np.testing.assert_array_equal(where[valid], batches[0])
    for batch, again in zip(batches, long.epoch(1), strict=True):
        np.testing.assert_array_equal(batch, again)
    assert not np.array_equal(np.concatenate(batches), np.concatenate(long.epoch(2)))
    with pytest.raises(RuntimeError, match="in 8 slots"):
        dataclasses.replace(long, slots=8).padded(np.arange(9))


def test_one_accountant_says_what_is_spent_and_when_all_would_be():
    settings = Frameworks(batch_size=16)
    whole = comparison._schedule(settings, 64)
    assert whole["epochs"] == whole["steps_to_target"] // 4 >= 1
    assert whole["epsilon"] <= 10
    more = comparison._schedule(
        dataclasses.replace(settings, epochs=whole["epochs"] + 1), 64
    )
    assert more["epsilon"] > 10
    assert more["steps_to_target"] == whole["steps_to_target"]


def test_figures_are_those_of_all_records_whatever_the_chunk(monkeypatch):
    """One size is asked for alone, and its rest counts for nothing."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(10, 3)), rng.integers(0, 3, 10)
    asked = []
    monkeypatch.setattr(child, "CHUNK", 4)
    found = child.answers(lambda chunk: asked.append(len(chunk)) or chunk, images)
    np.testing.assert_array_equal(found, images)
    assert asked == [4, 4, 4]
    each = -np.log(np.exp(images)[np.arange(10), labels] / np.exp(images).sum(1))
    assert child.loss(images, labels) == pytest.approx(each.mean())
    assert child.accuracy(images, images.argmax(1)) == 1


def test_the_first_step_is_apart_and_no_step_is_taken_twice(course):
    taken = []

    class Counts:
        @staticmethod
        def begin(course):
            logits = lambda images: np.zeros((len(images), 10))
            return Trainer(lambda batches: taken.append(len(batches)), logits, {})

    pupil = child.Pupil(Counts, course)
    assert taken == [1]
    assert pupil.before["train_loss"] == pytest.approx(np.log(10))
    for number in (1, 2):
        assert pupil.epoch(number)["seconds"] > 0
    assert taken == [1, 3, 4]


def test_rpjax_trains_from_the_parameters_that_all_begin_with(course):
    """Its logits before a step are the net's; after some, its parameters have moved."""
    trainer = with_rpjax.begin(course)
    images = course.images()[0][: child.CHUNK]
    before = trainer.logits(images)
    again = with_rpjax.in_jax.logits_of(course)(course.tree("parameters"), images)
    np.testing.assert_allclose(before, again, rtol=1e-6)
    trainer.steps([np.arange(1)] * 3)
    trainer.steps([np.arange(1)] * 9)
    assert np.abs(trainer.logits(images) - before).max() > 1e-3
    own, _ = with_rpjax.epsilon(course, course.steps)
    assert 0 < own < 20


# ----------------------------------------------------------------------------- in turns


class Pretender:
    """A framework's process whose answers are known."""

    def __init__(self, one, asked, fails):
        self.one, self.asked, self.fails = one, asked, fails

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.asked.append(("ends", self.one.library))

    def __call__(self, request, task=None, **words):
        if self.fails.get(self.one.library) == request:
            raise RuntimeError("ValueError: no more")
        if request == "begin":
            loss = {"elsewhere": 2.4}.get(self.one.library, 2.3)
            figures = {"train_loss": loss, "test_accuracy": 0.1}
            return {"first_step_seconds": 6.0, "versions": {}, **figures}
        if request == "epsilon":
            return 9.0, "PLD"
        self.asked.append((words["number"], self.one.library))
        seconds = {"rpjax": 1.0}.get(self.one.library, 2.0)
        return {"seconds": seconds, "train_loss": 2.0, "test_accuracy": 0.2}


@pytest.fixture
def pretended(monkeypatch, course):
    asked, fails = [], {}
    monkeypatch.setattr(
        race, "child_of", lambda pythons, one, *_, **__: Pretender(one, asked, fails)
    )
    return race.Race("digits, tiny", {}, course), asked, fails


def test_epochs_are_taken_in_turns_or_one_framework_after_the_other(pretended):
    run, asked, _ = pretended
    rows = race.rows(run, [RPJAX, OTHER], True, silent)
    a, b = RPJAX.library, OTHER.library
    assert asked[:6] == [(1, a), (1, b), (2, b), (2, a), (3, a), (3, b)]
    assert rows[RPJAX]["relative"] == 1
    assert rows[OTHER]["relative"] == 2
    assert rows[OTHER]["train_loss_by_epoch"] == [2.3, 2.0, 2.0, 2.0]
    assert rows[OTHER]["total_seconds"] == 12
    assert rows[OTHER]["first_step_share"] == 0.5
    asked.clear()
    rows = race.rows(run, [RPJAX, OTHER], False, silent)
    assert [library for _, library in asked] == [a] * 4 + [b] * 4
    assert rows[OTHER]["relative"] == 2


def test_who_fails_or_trains_another_net_is_a_row_with_a_reason(pretended):
    run, _, fails = pretended
    fails |= {"begins": "begin", "stops": "epoch"}
    others = [Contender(name, "way", "x") for name in ("begins", "stops", "elsewhere")]
    rows = race.rows(run, [RPJAX, *others], True, silent)
    assert rows[RPJAX]["reason"] is None
    reasons = [rows[one]["reason"] for one in others]
    assert reasons[:2] == ["ValueError: no more"] * 2
    assert reasons[2] == "its loss before the first step is 2.4, and rpjax's 2.3"
    assert not any("seconds" in rows[one] for one in others)


def test_what_is_left_is_told_from_the_second_epoch_on(pretended):
    heard = []
    race.rows(pretended[0], [RPJAX], True, heard.append)
    assert heard[0] == "digits, tiny: compiling rpjax, auto"
    assert heard[1] == "digits, tiny: epoch 1 of 3, rpjax, auto"
    assert "epoch 2 of 3 (" in heard[2]
    assert " left), rpjax" in heard[2]


# ------------------------------------------------------------------ commands, and words


def test_a_framework_that_is_not_installed_is_a_row_with_what_pip_said(tmp_path):
    (tmp_path / "objax").mkdir()
    (tmp_path / "objax" / "failure.txt").write_text("cannot be installed here: no")
    settings = Frameworks(
        quick=True, libraries=("Objax",), environments=tmp_path, epochs=1
    )
    rows = comparison.measure(settings, silent)
    assert [row["reason"][:25] for row in rows] == [
        "cannot be installed here:",
        "not installed here; --pre",
    ]
    assert rows[0]["asked_for"] == ["objax==1.8.0", "six", "jax==0.5.3"]
    assert comparison.outcome(rows[0]) == rows[0]["reason"]


def test_every_framework_of_the_comparison_has_an_environment():
    assert {one.peer for one in ENTRANTS if one.peer} <= set(environments.peers(False))
    assert FRAMEWORKS[0] == "rpjax"
    assert len(FRAMEWORKS) == 5


def test_the_longer_name_is_the_same_command(capsys):
    assert commands.main(["compare-frameworks", "--libraries", "x"]) == 2
    assert "libraries names 'x'; known: rpjax" in capsys.readouterr().err
    words = ["compare-frameworks", "--quick"]
    assert command("frameworks", words) == "python -m benchmarks frameworks --quick"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("resnet50",)}, "models names 'resnet50'; the copies in"),
        ({"epochs": 0}, "epochs is 0; it must be >= 1, or left out"),
        (
            {"data": ("digits",), "records": 64, "batch_size": 64},
            "batch_size is 64; it must be 1 to 32, half of the 64 training records",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_compiled(
    options, message, tmp_path
):
    settings = Frameworks(environments=tmp_path, libraries=("Objax",), **options)
    with pytest.raises(comparison.InputError, match=message):
        comparison.measure(settings, silent)


def test_a_course_survives_its_way_to_the_other_process(course):
    sent = dataclasses.asdict(course)
    assert Course(**sent) == course
