"""A sweep: one experiment over a grid of settings, as independent jobs.

A file names the grid; `write` turns it into one configuration for each point, and
`run_job` runs one of them, in any order and on any machine that sees the folder, or
`run_all` those that are left, one after another. Who starts the jobs is a launcher's
business: a job is its number, as a Slurm array index or a Kubernetes completion index
gives it. `rpjax.experiments.merging` puts together what is finished.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rpjax.errors import InputError, Preempted
from rpjax.experiments.checks import check
from rpjax.experiments.compare import compare, summary
from rpjax.experiments.config import ExperimentConfig
from rpjax.experiments.runs import read_config
from rpjax.experiments.values import (
    as_dict,
    differences,
    from_yaml,
    plain_values,
    to_yaml,
)
from rpjax.files import write_text

MANIFEST = "sweep.yaml"
MOST_JOBS = 10_000
Settings = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """config: what all jobs share; grid: the values of each dotted field.

    A key of the grid may name several fields, with commas between them, that change
    together: {"dp.batch_size, dp.learning_rate": [[64, 0.5], [256, 2.0]]}.
    """

    config: ExperimentConfig
    grid: dict[str, list[Any]]

    def settings(self) -> list[Settings]:
        """Each job's own values, by field; the last key of the grid varies fastest."""
        points = itertools.product(*self.grid.values())
        return [dict(self._fields(point)) for point in points]

    def _fields(self, point: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
        for key, value in zip(self.grid, point, strict=True):
            names = fields(key)
            values = value if len(names) > 1 else [value]
            yield from zip(names, values, strict=True)

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


def fields(key: str) -> list[str]:
    """The fields that a key of the grid names.

    >>> fields("dp.batch_size, dp.learning_rate")
    ['dp.batch_size', 'dp.learning_rate']
    """
    return [name.strip() for name in key.split(",")]


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
    grid = {str(key): plain_values(options) for key, options in grid.items()}
    for key, options in grid.items():
        _check_options(key, options)
    names = [name for key in grid for name in fields(key)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"grid names {name} twice; name each field once")
    count = math.prod(map(len, grid.values()))
    if count > MOST_JOBS:
        raise InputError(f"grid has {count} points; a sweep has at most {MOST_JOBS}")
    sweep = Sweep(config, grid)
    for settings in sweep.settings():
        check(sweep.job(settings))
    return sweep


def _check_options(key: str, options: Any) -> None:
    if not isinstance(options, list) or not options:
        raise InputError(f"grid.{key} is {options!r}; it must be a list of values")
    if len({json.dumps(option) for option in options}) < len(options):
        raise InputError(f"grid.{key} holds a value twice; name each once")
    count = len(fields(key))
    for option in options:
        if count > 1 and not (isinstance(option, list) and len(option) == count):
            raise InputError(
                f"grid.{key} holds {option!r}; each of its values must be a list of "
                f"{count}, one for each field"
            )


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
        write_text(job_file(out, number), to_yaml(sweep.job(settings)))
    text = yaml.safe_dump(sweep.manifest(), sort_keys=False, allow_unicode=True)
    write_text(manifest, text)
    return len(jobs)


def _refuse_change(before: Any, sweep: Sweep, out: Path) -> None:
    changed = differences(before, sweep.manifest())
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
    note = failure_file(out, number)
    note.unlink(missing_ok=True)
    folder = run_folder(out, number)
    try:
        config = read_config(job_file(out, number))
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


def run_all(out: Path, console: Console) -> list[int]:
    """Run what is left of a sweep here, one job after another; the jobs that failed.

    Finished jobs stay as they are, begun ones are gone on with, and those that failed
    before are tried again. A job that fails does not end the sweep.
    """
    jobs = opened(out).settings()
    left = [n for n in range(len(jobs)) if not finished(out, n)]
    console.print(f"{len(jobs) - len(left)} of {len(jobs)} jobs are finished.")
    # a terminal's bars come and go; lines of every job would bury the sweep's own
    inner = console if console.is_terminal else Console(quiet=True)
    failed, began = [], time.monotonic()
    for done, number in enumerate(left, 1):
        own = ", ".join(f"{name} {value}" for name, value in jobs[number].items())
        try:
            parts = run_job(out, number, inner)["methods"]
            found = "; ".join(map(summary, parts))
        except Preempted:
            raise
        except Exception as error:  # a cell too large for the memory, say
            failed.append(number)
            found = f"failed: {error}"
        seconds = (time.monotonic() - began) / done * (len(left) - done)
        rest = f"some {math.ceil(seconds / 60)} min left" if done < len(left) else "end"
        line = f"job {number}: {own}: {found} ({done}/{len(left)}, {rest})"
        console.print(line, highlight=False, soft_wrap=True)
    return failed


def finished(out: Path, number: int) -> bool:
    """Whether a job's results are there."""
    return (run_folder(out, number) / "results.json").is_file()


def job_file(out: Path, number: int) -> Path:
    """Its configuration."""
    return out / "jobs" / f"{number:04d}.yaml"


def run_folder(out: Path, number: int) -> Path:
    """Where it runs, and its results.json."""
    return out / "runs" / f"{number:04d}"


def failure_file(out: Path, number: int) -> Path:
    """Why it failed, if it did."""
    return out / "failed" / f"{number:04d}.txt"
