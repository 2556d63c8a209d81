"""A sweep is independent jobs; what is merged says what is there and what is not."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from sample_sweep import finish, results, written
from tiny_experiment import rpjax

from benchmarks.sweeps.small_mnist import blocks
from rpjax.errors import InputError, Preempted
from rpjax.experiments import merging, read_config, sweep
from rpjax.experiments.values import as_dict, differences

ROOT = Path(__file__).parents[1]
TINY = {
    "data": {"train_records": 128},
    "training": {"epochs": 1, "batch_size": 64},
    "train_on": "all",
}
GRID = {
    "seed": [0, 1, 2],
    "noise.gamma": [0.25, 0.5],
    "methods": ["strategy1", "ensemble"],
}


@pytest.fixture
def file(tmp_path):
    """(changes) -> the file of a sweep."""

    def written(**changes):
        path = tmp_path / "sweep.yaml"
        values = {"config": TINY, "grid": GRID} | changes
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return written


def refused(said):
    assert said.code == 2, said
    (line,) = said.err.splitlines()
    return line.removeprefix("rpjax: error: ")


# ---------------------------------------------------------------------------- the jobs


def test_a_job_is_a_point_of_the_grid(file, tmp_path):
    out = tmp_path / "out"
    said = rpjax("sweep", file(), "--out", out)
    assert (said.code, said.out) == (0, f"12 jobs: rpjax job {out} 0 to 11\n")
    names = sorted(path.name for path in (out / "jobs").iterdir())
    assert names == [f"{n:04d}.yaml" for n in range(12)]
    first, second = (read_config(out / "jobs" / name) for name in names[:2])
    assert (first.seed, first.noise.gamma, first.methods) == (0, 0.25, ("strategy1",))
    assert first.data.train_records == 128
    assert differences(as_dict(first), as_dict(second)) == ["methods"]
    last = read_config(out / "jobs" / names[-1])
    assert (last.seed, last.noise.gamma, last.methods) == (2, 0.5, ("ensemble",))
    before = (out / "sweep.yaml").read_bytes()
    assert rpjax("sweep", file(), "--out", out).code == 0, "the same sweep again"
    assert (out / "sweep.yaml").read_bytes() == before


def test_fields_of_one_key_change_together(tmp_path):
    grid = {
        "dp.batch_size, dp.learning_rate": [[32, 0.5], [64, 1.0]],
        "dp.epsilon": [1.0, float("inf")],
    }
    out = tmp_path / "out"
    asked = written(out, grid)
    assert sweep.opened(out).settings() == asked.settings()
    found = [read_config(out / "jobs" / f"{n:04d}.yaml").dp for n in range(4)]
    assert [(dp.batch_size, dp.learning_rate, dp.epsilon) for dp in found] == [
        *((32, 0.5, 1.0), (32, 0.5, float("inf"))),
        *((64, 1.0, 1.0), (64, 1.0, float("inf"))),
    ]


def test_the_examples_are_sweeps_and_the_page_shows_one():
    folder = ROOT / "benchmarks" / "sweeps"
    counts = {
        path.name: len(sweep.read_sweep(path).settings())
        for path in folder.glob("*.yaml")
    }
    assert counts == {"scale.yaml": 54, "epsilon.yaml": 60}
    page = (ROOT / "docs" / "sweeps.md").read_text("utf-8")
    shown = page.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(shown) == yaml.safe_load((folder / "scale.yaml").read_text())


def test_small_mnist_has_the_means_of_blocks_within_a_margin():
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[0, :2, :2] = 200  # the first block, but for its margin
    images[1, 2:6, 26:28] = 7  # half of one at the right edge, rounded to even
    found = blocks(images)
    assert found.shape == (2, 8, 8)
    assert found[0, 0, 0] == 50
    assert found[1, 1, 7] == 4
    assert (found > 0).sum() == 2


CHANGED = {
    "grid.seed": {"grid": {**GRID, "seed": [0]}},
    "grid.noise.floor": {"grid": {**GRID, "noise.floor": [0.1]}},
    "config.training.epochs": {"config": {**TINY, "training": {"epochs": 2}}},
}


@pytest.mark.parametrize(("name", "changes"), CHANGED.items(), ids=CHANGED)
def test_a_changed_sweep_on_the_same_folder_is_refused_by_the_field(
    file, tmp_path, name, changes
):
    out = tmp_path / "out"
    assert rpjax("sweep", file(), "--out", out).code == 0
    before = (out / "sweep.yaml").read_bytes()
    changes = {**changes}
    if name.startswith("config"):
        changes["config"]["training"] |= {"batch_size": 64}
    message = refused(rpjax("sweep", file(**changes), "--out", out))
    assert message.startswith(f"{name} differs from the sweep in {out}")
    assert (out / "sweep.yaml").read_bytes() == before


WRONG = {
    "config.seeds is not a field": {"grid": {"seeds": [1]}},
    "config.noise.gama is not a field": {"grid": {"noise.gama": [1.0]}},
    "config.noise.gamma is 'x'": {"grid": {"noise.gamma": ["x"]}},
    "config.methods[0] is 'sgd'": {"grid": {"methods": ["sgd"]}},
    "grid.seed is 3; it must be a list": {"grid": {"seed": 3}},
    "grid.seed is []; it must be a list": {"grid": {"seed": []}},
    "grid.seed holds a value twice": {"grid": {"seed": [1, 1]}},
    "grid has 40000 points": {
        "grid": {"seed": list(range(200)), "noise.gamma": list(range(200))}
    },
    "grid is missing": {"grid": {}},
    "config.trainings is not a field": {"config": {"trainings": {}}},
    "grid.seed, noise.gamma holds [1]; each of its values must be a list of 2": {
        "grid": {"seed, noise.gamma": [[0, 0.5], [1]]}
    },
    "grid names seed twice": {"grid": {"seed": [1], "noise.gamma, seed": [[0.5, 1]]}},
    "dp.warmup is nan": {"grid": {"dp.warmup": [float("nan")]}},
    "transfer.frozen_groups is 2 without a transfer.start": {
        "grid": {"transfer.frozen_groups": [0, 2]}
    },
}


@pytest.mark.parametrize(("message", "changes"), WRONG.items(), ids=WRONG)
def test_a_sweep_that_cannot_be_is_one_line_and_leaves_no_folder(
    file, tmp_path, message, changes
):
    said = refused(rpjax("sweep", file(**changes), "--out", tmp_path / "out"))
    assert said.startswith(message)
    assert not (tmp_path / "out").exists()


def test_folders_and_numbers_that_are_none_are_refused(file, tmp_path, monkeypatch):
    for name in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "out"
    for words in (["job", tmp_path, 0], ["merge", tmp_path]):
        assert "holds no sweep" in refused(rpjax(*words))
    assert "there is no such file" in refused(rpjax("sweep", tmp_path / "no.yaml"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    message = refused(rpjax("sweep", file(), "--out", tmp_path / "other"))
    assert "holds something else" in message
    assert rpjax("sweep", file(), "--out", out).code == 0
    assert refused(rpjax("job", out, 12)).startswith("job is 12; the sweep in")
    message = refused(rpjax("job", out))
    assert message.startswith("number is not given, and neither is SLURM_ARRAY_TASK_ID")


@pytest.mark.slow
def test_a_job_runs_by_its_launcher_s_number_goes_on_and_notes_its_failure(
    file, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    grid = {"seed": [4], "training.learning_rate": [0.1, 1e30], "methods": ["plain"]}
    assert rpjax("sweep", file(grid=grid), "--out", out).code == 0
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert rpjax("job", out).code == 0
    method = out / "runs" / "0000" / "methods" / "plain.json"
    before = method.stat().st_mtime_ns
    assert rpjax("job", out, 0).code == 0, "goes on, which is to do nothing again"
    assert method.stat().st_mtime_ns == before
    assert rpjax("job", out, 1).code == 2
    merged = merging.merge(out)
    assert [job["state"] for job in merged["jobs"]] == ["finished", "failed"]
    assert "learning_rate is too large" in merged["jobs"][1]["reason"]
    found = json.loads((out / "runs" / "0000" / "results.json").read_text())
    accuracy = found["methods"][0]["utility"]["test_accuracy"]["value"]
    assert merged["summary"][0]["metrics"]["test_accuracy"]["values"] == [accuracy]
    assert found["config"]["seed"] == 4


def test_a_job_that_breaks_does_not_end_the_sweep(file, tmp_path, monkeypatch):
    """A net too large for the memory is no input error; SIGTERM ends all the same."""
    out = tmp_path / "out"
    grid = {"seed": [0, 1, 2], "methods": ["plain"]}
    assert rpjax("sweep", file(grid=grid), "--out", out).code == 0

    def trained(config, folder, **options):
        if config.seed == 0:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        if config.seed == stopped:
            raise Preempted("stopped")
        finish(out, config.seed, results("plain", 0.5))
        return json.loads((folder / "results.json").read_text())

    monkeypatch.setattr(sweep, "compare", trained)
    stopped = None
    said = rpjax("sweep", file(grid=grid), "--out", out, "--run")
    assert said.code == 1
    merged = json.loads((out / "sweep.json").read_text())
    states = [job["state"] for job in merged["jobs"]]
    assert states == ["failed", "finished", "finished"]
    assert "RuntimeError: RESOURCE_EXHAUSTED" in merged["jobs"][0]["reason"]
    (out / "runs" / "0001" / "results.json").unlink()
    (out / "runs" / "0001").rmdir()
    stopped = 1
    assert rpjax("sweep", file(grid=grid), "--out", out, "--run").code == 75


def spent(row):
    return row["privacy"]["epsilon"], row["privacy"]["noise_multiplier"]


@pytest.mark.slow
def test_a_sweep_run_here_goes_on_and_ends_in_its_page(file, tmp_path):
    """One job done before, one that fails, and one without noise: epsilon infinite."""
    out = tmp_path / "out"
    private = {"batch_size": 64, "steps": 2, "engine": "bookkeeping"}
    config = {
        "data": {"train_records": 64},
        "model": {"channels": 4, "convolution": "im2col"},
        "dp": private,
        "methods": ["dpsgd"],
        "train_on": "all",
    }
    grid = {"dp.epsilon": [3.0, float("inf"), 8.0], "dp.learning_rate": [0.5]}
    path = file(config=config, grid=grid)
    written_first = rpjax("sweep", path, "--out", out)
    assert written_first.code == 0
    before = results("dpsgd", 0.5, None, 3.0, 1.5)
    finish(out, 0, before)
    (out / "runs" / "0002").mkdir()
    (out / "runs" / "0002" / "thesis.tex").write_text("mine")
    said = rpjax("sweep", path, "--out", out, "--run")
    assert said.code == 1, "a job failed"
    assert "1 of 3 jobs are finished." in said.out
    assert "job 1: dp.epsilon inf, dp.learning_rate 0.5: test accuracy" in said.out
    assert "(1/2, some " in said.out
    assert "job 2: dp.epsilon 8.0, dp.learning_rate 0.5: failed: out is " in said.out
    merged = json.loads((out / "sweep.json").read_text())
    states = [job["state"] for job in merged["jobs"]]
    assert states == ["finished", "finished", "failed"]
    first, second = merged["summary"]
    assert first["metrics"]["test_accuracy"]["values"] == [0.5], "left as it was"
    assert spent(first) == (3.0, 1.5)
    assert second["settings"]["dp.epsilon"] == "inf"
    assert spent(second) == (None, 0.0)
    found = json.loads((out / "runs" / "0001" / "results.json").read_text())
    assert found["methods"][0]["label"] == "DP-SGD (ε = ∞, no noise)"
    assert found["config"]["dp"]["epsilon"] == "inf"
    assert (out / "sweep.html").is_file()


# ------------------------------------------------------------------------ what is found


@pytest.fixture
def swept(file, tmp_path):
    """Nine jobs of twelve finished, one failed, one begun, one missing."""
    out = tmp_path / "out"
    assert rpjax("sweep", file(), "--out", out).code == 0
    points = sweep.opened(out).settings()
    rng = np.random.default_rng(0)
    for number, point in enumerate(points[:9]):
        gamma, name = point["noise.gamma"], point["methods"]
        base = 0.9 - gamma / 4 + 0.05 * (name == "ensemble")
        accuracy = base + 0.01 * rng.normal()
        found = results(name, accuracy, 0.7 - gamma / 4 + 0.01 * rng.normal())
        finish(out, number, found)
    (out / "failed").mkdir()
    (out / "failed" / "0009.txt").write_text("InputError: too large\n")
    (out / "runs" / "0010").mkdir()
    return out


def test_merge_says_means_intervals_and_what_is_missing(swept, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = rpjax("merge", swept)
    assert said.code == 0, said.err
    merged = json.loads((swept / "sweep.json").read_text())
    states = [job["state"] for job in merged["jobs"]]
    assert states == ["finished"] * 9 + ["failed", "unfinished", "missing"]
    for text in (
        "9 of 12 jobs are finished.",
        "failed: 9",
        "9: InputError: too large",
        "unfinished: 10",
        "missing: 11",
    ):
        assert text in said.out
    row = merged["summary"][0]
    assert row["settings"] == {"noise.gamma": 0.25, "methods": "strategy1"}
    own = [merged["jobs"][n]["methods"][0]["metrics"] for n in (0, 4, 8)]
    values = np.array([metrics["test_accuracy"] for metrics in own])
    found = row["metrics"]["test_accuracy"]
    assert found["values"] == values.tolist()
    assert found["mean"] == pytest.approx(values.mean())
    assert found["deviation"] == pytest.approx(values.std(ddof=1))
    # Student's t with two degrees of freedom: 4.303
    half = 4.302652 * values.std(ddof=1) / np.sqrt(3)
    assert found["high"] - found["mean"] == pytest.approx(half)
    assert f"{100 * values.mean():.1f} % ± {100 * values.std(ddof=1):.1f}" in said.out
    pages = {"sweep.yaml", "sweep.json", "sweep.html", "sweep.md"}
    assert {f.name for f in swept.glob("sweep.*")} == pages


def test_a_sweep_without_any_finished_job_has_a_table_and_no_figure(file, tmp_path):
    out = tmp_path / "out"
    assert rpjax("sweep", file(), "--out", out).code == 0
    said = rpjax("merge", out)
    assert said.code == 0
    assert "0 of 12 jobs are finished." in said.out
    assert not (out / "sweep.html").exists()
    assert rpjax("report", out).code == 0


def test_a_manifest_is_what_was_asked(file, tmp_path):
    asked = sweep.read_sweep(file())
    sweep.write(asked, tmp_path / "out")
    assert sweep.opened(tmp_path / "out") == asked
    with pytest.raises(InputError, match="must be a mapping of config and grid"):
        sweep.read_sweep(file(more={}))


def test_an_interval_ends_where_the_metric_does():
    """Two seeds tell next to nothing of a mean."""
    found = merging.spread([0.2, 0.4], 0.0, 1.0)
    assert (found["low"], found["high"]) == (0.0, 1.0)
    assert merging.spread([0.2, 0.4])["low"] < -0.9
