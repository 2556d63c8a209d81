"""What is in a sweep.json, as all its views ask for it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rpjax.errors import InputError
from rpjax.report import formats

Sweep = dict[str, Any]
SCHEMA = "rpjax.sweep/2"
METRICS = {
    "test_accuracy": "Test accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "generalization_gap": "Generalisation gap",
    "attack_auc": "Attack AUC",
}
INFINITE = "inf"


class Axis(NamedTuple):
    """A key of the grid: its fields, and the values that they take together."""

    name: str
    fields: tuple[str, ...]
    options: tuple[tuple[Any, ...], ...]

    def of(self, row: dict[str, Any]) -> int:
        """Which option a row of the summary has."""
        own = tuple(row["settings"][name] for name in self.fields)
        return self.options.index(own)

    def labels(self) -> list[str]:
        """The options in words."""
        return [", ".join(map(label, option)) for option in self.options]

    @property
    def numbers(self) -> list[float] | None:
        """What the first field holds, if these are different numbers, or infinity."""
        first = [option[0] for option in self.options]
        if any(isinstance(value, bool) for value in first):
            return None
        if not all(isinstance(v, int | float) or v == INFINITE for v in first):
            return None
        values = [float(value) for value in first]
        return values if len(set(values)) == len(values) else None


def load(file: str | Path) -> Sweep:
    """The content of a sweep.json.

    Raises:
        InputError: no such file, or not of this schema.
    """
    try:
        values = json.loads(Path(file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise InputError(
            f"{file}: schema is {found!r}; expected {SCHEMA!r}: rpjax merge writes it"
        )
    return values


def label(value: Any) -> str:
    """A value of a grid in words.

    >>> [label(v) for v in (None, "inf", 0.5, 65536, "runs/public")]
    ['none', '∞', '0.5', '65536', 'runs/public']
    """
    if value is None:
        return "none"
    if value == INFINITE:
        return "∞"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def varied(sweep: Sweep) -> list[Axis]:
    """The axes along which something changes, seeds and methods apart."""
    found = [
        Axis(axis["name"], tuple(axis["fields"]), tuple(map(tuple, axis["options"])))
        for axis in sweep["axes"]
    ]
    return [
        axis
        for axis in found
        if len(axis.options) > 1 and axis.fields not in (("seed",), ("methods",))
    ]


def methods(sweep: Sweep) -> list[str]:
    """The names of the methods, in their order."""
    return list(dict.fromkeys(row["method"] for row in sweep["summary"]))


def shown(sweep: Sweep) -> list[str]:
    """The metrics that any job has."""
    there = {name for row in sweep["summary"] for name in row["metrics"]}
    return [name for name in METRICS if name in there]


def states(sweep: Sweep) -> Iterator[str]:
    """How many jobs are finished, and which are not."""
    jobs = sweep["jobs"]
    done = sum(job["state"] == "finished" for job in jobs)
    yield f"{done} of {len(jobs)} jobs are finished."
    for state in ("missing", "unfinished", "failed"):
        found = [job for job in jobs if job["state"] == state]
        if found:
            yield f"{state}: {', '.join(str(job['number']) for job in found)}"
        for job in found:
            if "reason" in job:
                yield f"  {job['number']}: {job['reason']}"


def proofs(sweep: Sweep) -> Iterator[str]:
    """What the epsilons of the table are, and what they are not."""
    proved = [row["privacy"] for row in sweep["summary"]]
    kinds = dict.fromkeys(
        (each["delta"], each["adjacency"], each["accountant"])
        for each in proved
        if each["epsilon"] is not None
    )
    for delta, adjacency, accountant in kinds:
        yield (
            f"ε: upper bound at δ = {formats.small(delta)}, {adjacency} "
            f"({accountant}); its assumptions stand in each job's results.json."
        )
    if any(each["epsilon"] is None for each in proved):
        yield "none: nothing is proved; each job's results.json says why."
    if kinds:
        yield f"Not covered: {sweep['not_covered']}."


def places(numbers: list[float]) -> list[float]:
    """Where numbers stand on an axis; in steps of their ratio if they span an octave.

    Infinity stands a step beyond the largest, off the scale.

    >>> places([1.0, 2.0, 3.0]), places([1.0, 4.0, 16.0, float("inf")])
    ([1.0, 2.0, 3.0], [0.0, 2.0, 4.0, 6.0])
    """
    finite = [value for value in numbers if math.isfinite(value)]
    wide = finite and min(finite) > 0 and max(finite) >= 8 * min(finite)
    scale = math.log2 if wide else float
    found = {value: scale(value) for value in finite}
    if len(finite) < len(numbers):
        at = sorted(found.values())
        step = (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else 1.0
        found[math.inf] = (at[-1] if at else 0.0) + step
    return [found[value] for value in numbers]
