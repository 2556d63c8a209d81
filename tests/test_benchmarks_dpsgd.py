"""The comparison of DP-SGD with other libraries: what is checked, timed and refused."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import commands
from benchmarks.benchmark import silent
from benchmarks.dpsgd import environments, expected, trial, with_optax
from benchmarks.dpsgd.child import ROOT, Child
from benchmarks.dpsgd.contenders import LIBRARIES, PLAIN, Contender, contenders
from benchmarks.dpsgd.largest import MOST, largest
from benchmarks.dpsgd.task import Task, apart

CHECKED = expected.CHECKED


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The task of which the clipped sum is known, of the smallest net."""
    data = tmp_path_factory.mktemp("dpsgd") / "data.npz"
    facts, tolerance = expected.write(data, "tiny", (8, 8, 1), CHECKED, 0)
    assert 1e-5 <= tolerance < 1e-3
    return Task(
        **facts,
        **{"way": "xla", "model": "tiny", "dtype": "float32", "data": str(data)},
        **{"batch_size": CHECKED, "records": CHECKED, "noise_multiplier": 0.0},
        **{"threads": 1, "steps": 1, "seed": 0, "accelerator": False},
    )


# ------------------------------------------------------------- what is the same for all


def test_the_expected_sum_clips_each_gradient_over_all_its_leaves():
    gradients = [{"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])} for _ in range(3)]
    gradients[0] = {name: 2 * leaf for name, leaf in gradients[0].items()}  # norm 10
    gradients[2] = {name: leaf / 5 for name, leaf in gradients[2].items()}  # norm 1
    assert expected.norms(gradients) == [10, 5, 1]
    total = expected.clipped_sum(gradients, 5.0)
    np.testing.assert_allclose(total["a"], [3 + 3 + 0.6, 0])
    np.testing.assert_allclose(total["b"], [[4 + 4 + 0.8]])


def test_a_sum_is_compared_over_all_leaves_and_no_leaf_may_be_missing():
    own = {"a": np.array([3.0]), "b": np.array([4.0])}
    assert apart(own, own) == 0
    assert apart(own | {"b": np.array([5.0])}, own) == pytest.approx(1 / 5)
    with pytest.raises(ValueError, match="different parameters"):
        apart({"a": own["a"]}, own)


def test_a_sum_that_is_clipped_a_little_less_is_seen(checked):
    """The right one is compared in the record of a tiny run."""
    looser = dataclasses.replace(checked, clip_norm=1.01 * checked.clip_norm)
    assert 1e-3 < with_optax.clipped_sum_differs_by(looser) < 1e-1


def test_images_are_repeated_where_more_are_asked_for_and_batches_are_whole(checked):
    more = dataclasses.replace(checked, records=2 * CHECKED + 3, batch_size=8)
    images, labels = more.images()
    assert len(images) == len(labels) == 35
    np.testing.assert_array_equal(images[0], images[CHECKED])
    batches = more.batches()
    assert [len(batch) for batch in batches] == [8] * 4
    assert len(np.unique(np.concatenate(batches))) == 32


# ----------------------------------------------------------------------------- in turns


class Pretender:
    """A contender whose answers are known; the library decides what goes wrong."""

    def __init__(self, one, asked):
        self.one, self.asked = one, asked

    def __enter__(self):
        self.asked.append(("begins", self.one.library))
        return self

    def __exit__(self, *_):
        self.asked.append(("ends", self.one.library))

    def __call__(self, request, task=None, **words):
        if request == "seconds":
            self.asked.append(("times", self.one.library))
            return words["steps"] * {"rpjax": 1.0, "slow": 3.0}.get(self.one.library, 2)
        if request == "start":
            if self.one.library == "broken":
                raise RuntimeError("ImportError: no such thing")
            return {"most": 1, "memory_bytes": 10, "peak_bytes_in_use": None}
        if request == "fits":
            if task.batch_size > 40:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return True
        assert request == "clipped_sum_differs_by"
        return float("nan") if self.one.library == "wrong" else 1e-7


@pytest.fixture
def pretended(monkeypatch, checked):
    """A trial of pretenders, and what they were asked."""
    asked = []
    monkeypatch.setattr(trial, "_child", lambda trial, one, *_: Pretender(one, asked))
    return trial.Trial({}, checked, checked, 1e-5, 2, 0.0), asked


def others(*libraries):
    return [Contender(library, "way", "with_optax") for library in libraries]


def test_who_is_wrong_or_broken_is_a_row_with_a_reason_and_is_not_timed(pretended):
    rows = trial.rows(pretended[0], others("slow", "wrong", "broken"), True, silent)
    named = {one.library: row for one, row in rows.items()}
    assert next(iter(rows)) == PLAIN
    assert named["rpjax"]["relative"] == 1
    assert named["slow"]["relative"] == 3
    assert named["slow"]["examples_per_second"] == pytest.approx(CHECKED / 3)
    assert named["slow"]["reason"] is None
    assert named["slow"]["relative_memory_bytes"] == 1
    assert "wrong by nan of its norm" in named["wrong"]["reason"]
    assert named["broken"]["reason"] == "ImportError: no such thing"
    assert "seconds" not in named["wrong"] | named["broken"]


def test_all_take_turns_together_or_one_at_a_time_beside_the_plain_step(pretended):
    one_trial, asked = pretended
    trial.rows(one_trial, others("slow", "other"), True, silent)
    turns = [library for what, library in asked if what == "times"][-6:]
    assert turns == ["rpjax", "slow", "other", "other", "slow", "rpjax"]
    asked.clear()
    rows = trial.rows(one_trial, others("slow", "other"), False, silent)
    lives = [words for words in asked if words[0] != "times"]
    assert lives == [
        ("begins", "rpjax"),
        *(("begins", "slow"), ("ends", "slow")),
        *(("begins", "other"), ("ends", "other")),
        ("ends", "rpjax"),
    ]
    assert [row["n"] for row in rows.values()] == [4, 2, 2]


def test_without_a_plain_step_nothing_is_relative(pretended, monkeypatch):
    monkeypatch.setattr(trial, "PLAIN", PLAIN._replace(library="broken"))
    with pytest.raises(trial.InputError, match="plain step cannot be timed: ImportE"):
        trial.rows(pretended[0], [], True, silent)


def test_the_largest_batch_fits_and_an_eighth_more_does_not(pretended):
    small = pretended[0]._replace(
        task=dataclasses.replace(pretended[0].task, batch_size=8)
    )
    assert trial.largest_batch(small, others("slow")[0]) == 40
    for room in (0, 1, 3, 100, 128, 129, 5000, MOST, 2 * MOST):
        found = largest(lambda size, room=room: size <= room, 128) or 0
        assert found <= room
        assert found + max(2, found / 7) > min(room, MOST)


def test_another_error_than_of_memory_is_not_taken_for_a_batch_too_large(
    pretended, monkeypatch
):
    def fails(self, request, task=None):
        raise RuntimeError("TypeError: no")

    monkeypatch.setattr(Pretender, "__call__", fails)
    with pytest.raises(RuntimeError, match="TypeError: no"):
        trial.largest_batch(pretended[0], others("slow")[0])


# ----------------------------------------------------------- processes and environments


def test_what_a_library_prints_is_no_answer():
    code = (
        "from benchmarks.dpsgd import child\n"
        "child.answered = lambda *_: print('printed') or 7\n"
        "child.main('any', 1)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input='{"request": "any"}\n',
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ended.stdout == '{"result": 7}\n'
    assert "printed" in ended.stderr


def test_a_contender_that_fails_or_ends_is_told_of(tmp_path, checked):
    with Child(sys.executable, "nothing_of_this_name", 1) as child:
        with pytest.raises(RuntimeError, match=r"ModuleNotFoundError: .*of_this_name"):
            child("start", checked)
        with pytest.raises(RuntimeError, match="ModuleNotFoundError"):  # it lives on
            child("start", checked)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho some words\necho the last word >&2\nexit 3\n")
    python.chmod(0o755)
    with (
        Child(python, "with_optax", 1) as child,
        pytest.raises(RuntimeError, match="ended with 3: the last word"),
    ):
        child("start", checked)


def test_peers_are_found_or_a_line_says_why_not(tmp_path, monkeypatch):
    heard = []
    peers = {
        "here": environments.Peer("json", ()),
        "absent": environments.Peer("no_such_module", ()),
        "failing": environments.Peer("no_such_module", ("./no/such/folder",)),
    }
    monkeypatch.setattr(environments, "peers", lambda accelerator: peers)
    arguments = (peers, tmp_path)
    found = environments.pythons(*arguments, False, False, silent)
    assert found["here"] == Path(sys.executable)
    assert found["absent"] == found["failing"]
    assert "--prepare makes an environment" in str(found["absent"])

    def install(command, **_):
        """pip's words, and an interpreter where venv is asked for one."""
        heard.append(command[2])
        if command[2] == "venv":
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        failed = command[-1] == "./no/such/folder"
        words = "WARNING: x\n  fatal: unable  to\nERROR: it\n" if failed else ""
        return environments.subprocess.CompletedProcess(command, int(failed), "", words)

    monkeypatch.setattr(environments.subprocess, "run", install)
    found = environments.pythons(*arguments, True, False, silent)
    assert found["absent"] == tmp_path / "absent" / "bin" / "python"
    assert found["failing"] == "cannot be installed here: fatal: unable to"
    heard.clear()
    assert environments.pythons(*arguments, True, False, silent) == found
    assert not heard  # what was tried once is not tried again


def test_every_peer_has_an_environment_and_every_library_can_be_named():
    known = environments.peers(False)
    asked = contenders(["auto"], LIBRARIES)
    assert {one.peer for one in asked} == {None, *known}
    assert contenders(["auto"], []) == [Contender("rpjax", "auto", "with_rpjax")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--libraries", "objax"), "libraries names 'objax'; known: jax-privacy, "),
        (("--batch-size", "64", "--records", "8"), "batch_size is 64; it must be at m"),
        (("--model", "resnet50"), "model is 'resnet50'; the copies in PyTorch and Ker"),
    ],
)
def test_bad_input_is_refused_in_a_line(words, message, capsys):
    assert commands.main(["dpsgd", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
