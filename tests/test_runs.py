"""A run's folder: nothing is half there, nothing of anyone else's is touched."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tiny_experiment import FLAGS, experiment, rpjax

from rpjax.errors import InputError
from rpjax.experiments import ExperimentConfig, RunFolder
from rpjax.files import write_json, write_text
from rpjax.training.checkpoints import Checkpoints

pytest_plugins = ["tiny_experiment"]

CONFIG = ExperimentConfig()
PART = {"name": "plain", "value": 0.5}


@pytest.fixture
def folder(tmp_path):
    """A folder in which one method is through."""
    folder = RunFolder.start(tmp_path / "out", CONFIG)
    folder.finish("plain", PART, {"scores": np.arange(3.0)})
    return folder


def files(path):
    """Every file below a folder, with its content."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


# --------------------------------------------------------------- whose folder it is


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_new_or_empty_folder_is_taken(tmp_path, options):
    (tmp_path / "empty").mkdir()
    for name in ("new", "deeper/new", "empty"):
        folder = RunFolder.start(tmp_path / name, CONFIG, **options)
        assert folder.config() == CONFIG
        assert folder.finished("plain") is None


def test_another_run_s_folder_is_refused_unless_told_otherwise(folder):
    before = files(folder.path)
    with pytest.raises(InputError, match=r"another run.*--resume.*--overwrite"):
        RunFolder.start(folder.path, CONFIG)
    assert files(folder.path) == before


def test_resuming_keeps_what_is_there(folder):
    before = files(folder.path)
    again = RunFolder.start(folder.path, CONFIG, resume=True)
    assert files(folder.path) == before
    assert again.finished("plain") == PART


def test_overwriting_starts_from_nothing(folder):
    again = RunFolder.start(folder.path, CONFIG, overwrite=True)
    assert again.finished("plain") is None
    assert set(files(folder.path)) == {"config.yaml"}


def test_resuming_under_another_configuration_is_refused_and_names_the_field(folder):
    before = files(folder.path)
    training = dataclasses.replace(CONFIG.training, momentum=0.5)
    other = dataclasses.replace(CONFIG, training=training)
    with pytest.raises(InputError, match=r"^training\.momentum differs from the run"):
        RunFolder.start(folder.path, other, resume=True)
    assert files(folder.path) == before


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="choose one"):
        RunFolder.start(tmp_path / "out", CONFIG, resume=True, overwrite=True)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="is a file"):
            RunFolder.start(tmp_path / "out", CONFIG, **options)
    assert (tmp_path / "out").read_text() == "mine"


FOREIGN = {
    "no configuration": {"thesis.tex": "mine"},
    "somebody's configuration": {"config.yaml": "lr: 3\n", "checkpoints/a": "mine"},
    "an empty configuration": {"config.yaml": "", "methods/plain.json": "mine"},
    "fields of the same names": {"config.yaml": "seed: 3\n", "results.json": "mine"},
    "a configuration that is a folder": {"config.yaml/a": "mine"},
    "one that is no text": {"config.yaml": "\x00\x01", "figures/roc.png": "mine"},
}


@pytest.mark.parametrize("contents", FOREIGN.values(), ids=list(FOREIGN))
@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_something_else_is_refused_whatever_is_asked(
    tmp_path, contents, options
):
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = files(tmp_path)
    with pytest.raises(InputError, match="files of something else; name a new folder"):
        RunFolder.start(tmp_path, CONFIG, **options)
    assert files(tmp_path) == before


MINE = [
    *("notes.txt", "figures/mine.png", "figures/roc.png/mine", "methods/mine.json"),
    *("methods/plain.json.backup", "checkpoints/mine/a", "checkpoints/notes.txt"),
]


def test_overwriting_leaves_files_that_a_run_did_not_write(folder):
    written = ("figures/cost.svg", "report.html", "report.md", "results.json")
    for name in (*written, "guarantee.json"):
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_text("a report")
    for name in ("strategy1/3/state", "dpsgd-12-shadows/9/state"):
        (folder.path / "checkpoints" / name).parent.mkdir(parents=True)
        (folder.path / "checkpoints" / name).write_text("a checkpoint")
    mine = [name for name in MINE if not name.startswith("figures/roc")]
    for name in mine:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_text("mine")
    RunFolder.start(folder.path, CONFIG, overwrite=True)
    assert set(files(folder.path)) == {"config.yaml", *mine}


def test_an_interrupted_overwrite_leaves_a_folder_that_can_be_overwritten(
    folder, monkeypatch
):
    def interrupted(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rpjax.experiments.runs.write_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            RunFolder.start(folder.path, CONFIG, overwrite=True)
    assert RunFolder.start(folder.path, CONFIG, overwrite=True).config() == CONFIG


def test_a_folder_without_a_run_has_no_configuration(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        RunFolder(tmp_path).config()


# ------------------------------------------------------------------- nothing half there


def test_a_part_comes_back_as_it_was_kept(folder):
    assert folder.finished("plain") == PART
    assert folder.finished("dpsgd") is None
    with np.load(folder.path / "methods" / "plain.npz") as arrays:
        np.testing.assert_array_equal(arrays["scores"], [0, 1, 2])
    assert not [name for name in files(folder.path) if ".tmp" in name]


@pytest.mark.parametrize("write", [write_json, write_text])
def test_a_write_that_fails_leaves_the_file_before_whole(tmp_path, write, monkeypatch):
    file = tmp_path / "results.json"
    write_json(file, {"old": 1})

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write(file, "new")
    assert json.loads(file.read_text()) == {"old": 1}


def test_a_part_is_there_only_once_its_arrays_are(tmp_path, monkeypatch):
    folder = RunFolder.start(tmp_path / "out", CONFIG)

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        folder.finish("plain", PART, {})
    assert folder.finished("plain") is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have_are_not_written(tmp_path, number):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "results.json", {"auc": [number]})
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------- interrupted


def test_an_interruption_says_how_to_go_on_and_leaves_no_results(interrupted):
    assert interrupted.said.code == 130
    assert interrupted.said.err.strip() == "rpjax: interrupted; go on with --resume"
    assert interrupted.left == {"config.yaml", "methods", "checkpoints"}


def test_finished_methods_are_not_trained_again(compared, interrupted):
    """What the first method left before the interruption is in the results after it."""
    methods = interrupted.resumed.folder / "methods"
    kept = json.loads((methods / "plain.json").read_text())
    assert interrupted.resumed.method("plain")["training"] == kept["training"]
    assert not [f for f in files(interrupted.resumed.folder) if ".tmp" in f]


def test_an_interrupted_and_resumed_comparison_equals_one_without_a_break(
    compared, interrupted
):
    for name in ("utility", "guarantee", "exposure"):
        for one, other in zip(
            compared.results["methods"],
            interrupted.resumed.results["methods"],
            strict=True,
        ):
            assert one[name] == other[name], (one["name"], name)


def test_resuming_a_comparison_under_other_flags_changes_nothing(compared):
    before = files(compared.folder)
    changed = rpjax(
        "compare", *FLAGS, "--gamma", 0.7, "--out", compared.folder, "--resume"
    )
    assert changed.code == 2
    assert changed.err.startswith("rpjax: error: noise.gamma differs from the run in")
    assert files(compared.folder) == before


TRAIN = [
    *("train", "--method", "strategy1", "--noise-seed", "fixed", "--train-records"),
    *("64", "--batch-size", "32", "--epochs", "40"),
]
# one checkpoint an epoch, where users have one a minute
OFTEN = """
import sys
from rpjax.cli import main
from rpjax.training.checkpoints import Checkpoints
Checkpoints.due = lambda self: True
sys.exit(main(sys.argv[1:]))
"""


def same_flags():
    """The environment that gives another process this one's compiler and devices."""
    names = ["jax_num_cpu_devices", "jax_disable_most_optimizations"]
    names += ["jax_compilation_cache_dir"]
    given = {name: jax.config.values[name] for name in names}
    return os.environ | {k.upper(): str(v) for k, v in given.items() if v is not None}


def killed_in_the_middle(out):
    """Start training in another process, and kill it after some checkpoints."""
    command = [sys.executable, "-c", OFTEN, *TRAIN, "--out", str(out)]
    process = subprocess.Popen(
        command, env=same_flags(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    steps, saved = out / "checkpoints" / "strategy1", set()
    deadline = time.monotonic() + 300
    while len(saved) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        if steps.is_dir():
            saved |= {p.name for p in steps.iterdir() if p.name.isdigit()}
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == -signal.SIGKILL, error.decode()[-2000:]
    return max(map(int, saved))


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    """kill -9 somewhere in the middle, whatever was being written at that moment."""
    whole, broken, restored = tmp_path / "whole", tmp_path / "broken", []
    restore = Checkpoints.restore

    def noted(self, like, steps):
        found = restore(self, like, steps)
        restored.append(int(found.state.step))
        return found

    saved = killed_in_the_middle(broken)
    assert saved < 80
    assert not (broken / "results.json").exists()
    assert rpjax(*TRAIN, "--out", broken).code == 2, "only with --resume"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "restore", noted)
        resumed = rpjax(*TRAIN, "--out", broken, "--resume")
    assert resumed.code == 0, resumed.err
    assert saved <= restored.pop() < 80, "it did not start again"
    assert rpjax(*TRAIN, "--out", whole).code == 0
    (one,), (other,) = (experiment(f).results["methods"] for f in (whole, broken))
    assert other["training"]["history"] == one["training"]["history"]
    assert other["utility"] == one["utility"]
    assert other["training"]["steps"] == 80


def test_a_list_of_numbers_takes_one_line_of_json(tmp_path):
    value = {"a": [0.5, -1e-7, 3], "b": [[1, 2], []], "c": ["x", None], "d": "[1,\n2]"}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == value
    assert '"a": [ 0.5, -1e-07, 3 ]' in text
