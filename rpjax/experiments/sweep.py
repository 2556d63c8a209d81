"""A sweep: one experiment over a grid of settings, as independent jobs.

A file names the grid; `write` turns it into one configuration for each point, `run_job`
runs one of them, in any order and on any machine that sees the folder, and `merge` puts
together what is finished. Who starts the jobs is a launcher's business: a job is its
number, as a Slurm array index or a Kubernetes completion index gives it.
"""

import itertools
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from scipy import stats

from rpjax.errors import InputError, Preempted
from rpjax.experiments.compare import compare
from rpjax.experiments.config import (
    ExperimentConfig,
    as_dict,
    differences,
    from_yaml,
    to_yaml,
)
from rpjax.experiments.runs import read_config
from rpjax.files import write_json, write_text

SCHEMA = "rpjax.sweep/1"
MANIFEST = "sweep.yaml"
MOST_JOBS = 10_000
RANGES = {
    "test_accuracy": (0.0, 1.0),
    "balanced_accuracy": (0.0, 1.0),
    "generalization_gap": (-1.0, 1.0),
    "attack_auc": (0.0, 1.0),
}
Settings = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """config: what all jobs share; grid: the values of each dotted field."""

    config: ExperimentConfig
    grid: dict[str, list[Any]]

    def settings(self) -> list[Settings]:
        """Each job's own values; the last field of the grid varies fastest."""
        points = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, point, strict=True)) for point in points]

    def job(self, settings: Settings) -> ExperimentConfig:
        """The configuration of one job."""
        nested: dict[str, Any] = {}
        for name, value in settings.items():
            *groups, field = name.split(".")
            inner = nested
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[field] = [value] if name == "methods" else value
        config: ExperimentConfig = from_yaml(json.dumps(nested), self.config)
        return config

    def manifest(self) -> dict[str, Any]:
        """What the folder remembers of it."""
        return {"config": as_dict(self.config), "grid": self.grid}


def read_sweep(file: Path) -> Sweep:
    """The sweep in a YAML file: a mapping `config`, and a mapping `grid` of lists.

    Raises:
        InputError: no such file, an unknown field, or a value that cannot be.
    """
    if not file.is_file():
        raise InputError(f"sweep is {file}; there is no such file")
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"sweep is {file}; it is not YAML") from error
    if not isinstance(values, dict) or not values.keys() <= {"config", "grid"}:
        raise InputError(f"sweep is {file}; it must be a mapping of config and grid")
    config = from_yaml(json.dumps(values.get("config") or {}, default=str))
    grid = values.get("grid")
    if not isinstance(grid, dict) or not grid:
        raise InputError("grid is missing; name fields, each with a list of values")
    for name, options in grid.items():
        if not isinstance(options, list) or not options:
            raise InputError(f"grid.{name} is {options!r}; it must be a list of values")
        if len({json.dumps(option) for option in options}) < len(options):
            raise InputError(f"grid.{name} holds a value twice; name each once")
    count = math.prod(map(len, grid.values()))
    if count > MOST_JOBS:
        raise InputError(f"grid has {count} points; a sweep has at most {MOST_JOBS}")
    sweep = Sweep(config, {str(name): options for name, options in grid.items()})
    for settings in sweep.settings():
        sweep.job(settings)  # refuses what cannot be
    return sweep


def write(sweep: Sweep, out: Path) -> int:
    """Write the jobs' configurations into `out`; how many there are.

    A folder that holds another sweep is refused, and the field that differs named.
    """
    manifest = out / MANIFEST
    if manifest.is_file():
        _refuse_change(yaml.safe_load(manifest.read_text("utf-8")), sweep, out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out is {out}, which holds something else; name a new folder")
    (out / "jobs").mkdir(parents=True, exist_ok=True)
    jobs = sweep.settings()
    for number, settings in enumerate(jobs):
        write_text(_job_file(out, number), to_yaml(sweep.job(settings)))
    text = yaml.safe_dump(sweep.manifest(), sort_keys=False, allow_unicode=True)
    write_text(manifest, text)
    return len(jobs)


def _refuse_change(before: Any, sweep: Sweep, out: Path) -> None:
    changed = differences(before, json.loads(json.dumps(sweep.manifest())))
    if changed:
        raise InputError(
            f"{changed[0]} differs from the sweep in {out}; keep it, or name a new "
            "folder"
        )


def opened(out: Path) -> Sweep:
    """The sweep that a folder holds."""
    file = out / MANIFEST
    if not file.is_file():
        raise InputError(f"{out} holds no sweep (no {MANIFEST})")
    values = yaml.safe_load(file.read_text("utf-8"))
    return Sweep(from_yaml(json.dumps(values["config"])), values["grid"])


def run_job(
    out: Path, number: int, console: Console, then: Callable[..., None] | None = None
) -> dict[str, Any]:
    """Run one job, or go on with it; its results.

    then: what to do with the results and their folder.
    """
    count = len(opened(out).settings())
    if not 0 <= number < count:
        raise InputError(f"job is {number}; the sweep in {out} has 0 to {count - 1}")
    note = _failure_file(out, number)
    note.unlink(missing_ok=True)
    folder = _run_folder(out, number)
    try:
        config = read_config(_job_file(out, number))
        results = compare(config, folder, resume=True, console=console)
        if then is not None:
            then(results, folder)
    except (Preempted, KeyboardInterrupt):
        raise
    except Exception as error:
        note.parent.mkdir(exist_ok=True)
        write_text(note, " ".join(f"{type(error).__name__}: {error}".split()) + "\n")
        raise
    return results


def merge(out: Path) -> dict[str, Any]:
    """Put the jobs together: what each found, what is missing, and means over seeds.

    Written to sweep.json, and returned.
    """
    sweep = opened(out)
    jobs = [
        _collected(out, number, settings)
        for number, settings in enumerate(sweep.settings())
    ]
    merged = {
        "schema": SCHEMA,
        "grid": sweep.grid,
        "jobs": jobs,
        "summary": summarised(jobs),
    }
    write_json(out / "sweep.json", merged)
    return merged


def _collected(out: Path, number: int, settings: Settings) -> dict[str, Any]:
    job: dict[str, Any] = {"number": number, "settings": settings}
    file, note = _run_folder(out, number) / "results.json", _failure_file(out, number)
    if file.is_file():
        results = json.loads(file.read_text("utf-8"))
        methods = [_measured(method) for method in results["methods"]]
        return job | {
            "state": "finished",
            "config_hash": results["config_hash"],
            "methods": methods,
        }
    if note.is_file():
        return job | {"state": "failed", "reason": note.read_text("utf-8").strip()}
    begun = _run_folder(out, number).is_dir()
    return job | {"state": "unfinished" if begun else "missing"}


def _measured(method: dict[str, Any]) -> dict[str, Any]:
    utility = method["utility"]
    exposure: list[Any] = next(
        (e["attacks"] for e in method["exposure"] if e["attacks"]), []
    )
    aucs = [attack["auc"]["value"] for attack in exposure]
    balanced = (utility.get("classes") or {}).get("balanced_accuracy")
    metrics = {
        "test_accuracy": utility["test_accuracy"]["value"],
        "balanced_accuracy": None if balanced is None else balanced["value"],
        "generalization_gap": utility["generalization_gap"]["value"],
        "attack_auc": max(aucs) if aucs else None,
    }
    return {"name": method["name"], "label": method["label"], "metrics": metrics}


def summarised(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each method and setting: the metrics over the seeds that are finished."""
    groups: dict[str, dict[str, Any]] = {}
    for job in jobs:
        for method in job.get("methods", ()):
            own = {k: v for k, v in job["settings"].items() if k != "seed"}
            own["methods"] = method["name"]
            row = groups.setdefault(
                json.dumps(own, sort_keys=True),
                {"method": method["name"], "settings": own, "values": {}},
            )
            for name, value in method["metrics"].items():
                if value is not None:
                    row["values"].setdefault(name, []).append(value)
    return [
        {
            "method": row["method"],
            "settings": row["settings"],
            "metrics": {
                name: spread(values, *RANGES[name])
                for name, values in row["values"].items()
            },
        }
        for row in groups.values()
    ]


def spread(
    values: list[float], least: float = -math.inf, most: float = math.inf
) -> dict[str, Any]:
    """Mean, standard deviation, and Student's 95 % interval of the mean.

    The interval takes the seeds' results for independent and normal, and ends where the
    metric does, at `least` and `most`; it is None for a single one.

    >>> spread([0.5])["low"] is None
    True
    >>> {k: round(v, 3) for k, v in spread([1.0, 2.0, 3.0]).items() if k != "values"}
    {'n': 3, 'mean': 2.0, 'deviation': 1.0, 'low': -0.484, 'high': 4.484}
    """
    n, mean = len(values), statistics.fmean(values)
    found: dict[str, Any] = {"n": n, "mean": mean, "deviation": None}
    found |= {"low": None, "high": None, "values": values}
    if n > 1:
        deviation = statistics.stdev(values)
        half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
        low, high = max(mean - half, least), min(mean + half, most)
        found |= {"deviation": deviation, "low": low, "high": high}
    return found


def _job_file(out: Path, number: int) -> Path:
    return out / "jobs" / f"{number:04d}.yaml"


def _run_folder(out: Path, number: int) -> Path:
    return out / "runs" / f"{number:04d}"


def _failure_file(out: Path, number: int) -> Path:
    return out / "failed" / f"{number:04d}.txt"
