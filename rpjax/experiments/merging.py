"""What a sweep's jobs found, put together: sweep.json.

The interval of a mean over seeds covers what the seeds change: initial weights, order,
noise. It covers neither the choice of the test records nor that of the best setting.
"""

import datetime
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scipy import stats

from rpjax.experiments.sweep import (
    Settings,
    Sweep,
    failure_file,
    fields,
    finished,
    opened,
    run_folder,
)
from rpjax.experiments.values import as_dict
from rpjax.files import write_json

SCHEMA = "rpjax.sweep/2"
RANGES = {
    "test_accuracy": (0.0, 1.0),
    "balanced_accuracy": (0.0, 1.0),
    "generalization_gap": (-1.0, 1.0),
    "attack_auc": (0.0, 1.0),
}
NOT_COVERED = (
    "the choice among settings: each guarantee is that of one training on its own; who "
    "publishes the best of several, chosen by private records, spends more"
)


def merge(out: Path) -> dict[str, Any]:
    """Put the jobs together: what each found, what is missing, and means over seeds.

    Written to sweep.json, and returned.
    """
    sweep = opened(out)
    points = sweep.settings()
    results = [_results(out, number) for number in range(len(points))]
    jobs = [
        _collected(out, number, settings, found)
        for number, (settings, found) in enumerate(zip(points, results, strict=True))
    ]
    done = [found for found in results if found is not None]
    merged = {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": as_dict(sweep.config),
        "axes": _axes(sweep),
        "data": done[0]["data"] if done else None,
        "devices": _distinct(found["device"] for found in done),
        "versions": _distinct(found["versions"] for found in done),
        "wall_seconds": sum(found["wall_seconds"] for found in done),
        "not_covered": NOT_COVERED,
        "jobs": [_in_short(job) for job in jobs],
        "summary": summarised(jobs),
    }
    write_json(out / "sweep.json", merged)
    return merged


def _in_short(job: dict[str, Any]) -> dict[str, Any]:
    """A job without its assumptions, which stand in its row of the summary."""
    if "methods" not in job:
        return job
    methods = []
    for method in job["methods"]:
        said = {k: v for k, v in method["privacy"].items() if k != "assumptions"}
        methods.append(method | {"privacy": said})
    return job | {"methods": methods}


def _axes(sweep: Sweep) -> list[dict[str, Any]]:
    """The grid's keys: the fields of each, and the values that they take together."""
    return [
        {
            "name": key,
            "fields": fields(key),
            "options": [value if len(fields(key)) > 1 else [value] for value in values],
        }
        for key, values in sweep.grid.items()
    ]


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order: one device, or several where jobs ran on several."""
    return [json.loads(text) for text in dict.fromkeys(map(json.dumps, values))]


def _results(out: Path, number: int) -> dict[str, Any] | None:
    if not finished(out, number):
        return None
    file = run_folder(out, number) / "results.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def _collected(
    out: Path, number: int, settings: Settings, results: dict[str, Any] | None
) -> dict[str, Any]:
    job: dict[str, Any] = {"number": number, "settings": settings}
    note = failure_file(out, number)
    if results is not None:
        methods = [_measured(method) for method in results["methods"]]
        return job | {
            "state": "finished",
            "config_hash": results["config_hash"],
            "methods": methods,
        }
    if note.is_file():
        return job | {"state": "failed", "reason": note.read_text("utf-8").strip()}
    begun = run_folder(out, number).is_dir()
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
    return {
        "name": method["name"],
        "label": method["label"],
        "metrics": metrics,
        "privacy": _privacy(method),
    }


def _privacy(method: dict[str, Any]) -> dict[str, Any]:
    """The guarantee in short, and what it came from."""
    proved, training = method["guarantee"], method["training"]
    said = ("kind", "epsilon", "delta", "mu", "adjacency", "accountant", "mechanism")
    return {name: proved[name] for name in said} | {
        "assumptions": proved["assumptions"],
        "noise_multiplier": training["noise_multiplier"],
        "batch_size": training["batch_size"],
        "steps": training["steps"],
    }


def summarised(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each method and setting: the metrics over the seeds that are finished.

    `privacy` is that of the seed with the largest epsilon, none proved being largest.
    Rows stand in the order of the grid, whichever jobs are there.
    """
    order: dict[str, int] = {}
    for job in jobs:
        order.setdefault(json.dumps(_without_seed(job)), len(order))
    groups: dict[tuple[int, str], dict[str, Any]] = {}
    for job in jobs:
        for method in job.get("methods", ()):
            own = _without_seed(job)
            place = order[json.dumps(own)]
            own["methods"] = method["name"]
            row = groups.setdefault(
                (place, method["name"]),
                {
                    "method": method["name"],
                    "settings": own,
                    "values": {},
                    "privacy": method["privacy"],
                },
            )
            row["privacy"] = max(row["privacy"], method["privacy"], key=_spent)
            for name, value in method["metrics"].items():
                if value is not None:
                    row["values"].setdefault(name, []).append(value)
    return [
        {
            "method": row["method"],
            "settings": row["settings"],
            "privacy": row["privacy"],
            "metrics": {
                name: spread(values, *RANGES[name])
                for name, values in row["values"].items()
            },
        }
        for _, row in sorted(groups.items(), key=lambda group: group[0][0])
    ]


def _without_seed(job: dict[str, Any]) -> Settings:
    return {k: v for k, v in job["settings"].items() if k != "seed"}


def _spent(privacy: dict[str, Any]) -> float:
    epsilon = privacy["epsilon"]
    return math.inf if epsilon is None else float(epsilon)


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
