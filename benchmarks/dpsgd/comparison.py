"""rpjax's plain step, its engines, and other libraries: one batch, side by side.

Every contender is a process of its own with as many threads, trains the same net from
the same bytes, and takes turns with the others; all slots of its batches are valid.
Before anybody is timed, its sum of clipped gradients is compared with that of a loop
over single records.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.dpsgd import environments, expected
from benchmarks.dpsgd.contenders import LIBRARIES, contenders
from benchmarks.dpsgd.task import Task
from benchmarks.dpsgd.trial import Trial, largest_batch, rows
from benchmarks.drawing import Panel, bars, look
from benchmarks.processes import cores, fresh, on_cpu
from benchmarks.workloads import SHAPES, Dtype, Size, net
from rpjax.errors import InputError
from rpjax.report import formats
from rpjax.report.drawing import Theme

Engine = Literal["auto", "bookkeeping", "two_pass", "vmap"]
CLIP_NORM = NOISE_MULTIPLIER = 1.0


@dataclass(frozen=True)
class DPSGD:
    """A step of DP-SGD by engine and in other libraries, beside a plain step."""

    model: str = "resnet8"
    """resnetN, wrn-N-K or tiny."""
    size: Size = "cifar10"
    """Whose images are imitated: 8x8x1, 28x28x1 or 32x32x3."""
    batch_size: int = 128
    dtype: Dtype = "float32"
    """Of the activations; autocast in PyTorch, mixed precision in Keras."""
    engines: tuple[Engine, ...] = ("auto", "bookkeeping", "two_pass", "vmap")
    """Of rpjax; "auto" is what it chooses."""
    libraries: tuple[str, ...] = LIBRARIES
    """The others; one that is not installed is a row that says so."""
    environments: Path = Path(".venv-peers")
    """Folder of the others' virtual environments; without one, this Python is tried."""
    prepare: bool = False
    """First make the environments that are missing: minutes, and gigabytes."""
    largest: bool = False
    """On an accelerator, also look for the largest batch that fits; takes long."""
    records: int = 2048
    threads: int = 0
    """Of each; 0 is all cores."""
    rounds: int = 7
    """How often each is timed."""
    turn_seconds: float = 1.0
    """About how long each time."""
    steps: int = 100_000
    """Of a training: so long a one repays rpjax's measuring how to compute."""
    seed: int = 0


def measure(settings: DPSGD, watch: Watch) -> list[Row]:
    check(settings)
    accelerator = not on_cpu()
    others = contenders(settings.engines, settings.libraries)
    with tempfile.TemporaryDirectory() as folder:
        trial = prepared(settings, Path(folder) / "data.npz", accelerator, watch)
        found = rows(trial, others, not accelerator, watch)
        if settings.largest and accelerator:
            for one in [one for one, row in found.items() if row["reason"] is None]:
                watch(f"looking for the largest batch of {one}")
                found[one]["largest_batch"] = largest_batch(trial, one)
    return [
        {"library": one.library, "way": one.way, **row} for one, row in found.items()
    ]


def check(settings: DPSGD) -> None:
    if settings.batch_size > settings.records:
        raise InputError(
            f"batch_size is {settings.batch_size}; it must be at most records = "
            f"{settings.records}"
        )
    for library in settings.libraries:
        if library not in LIBRARIES:
            known = ", ".join(LIBRARIES)
            raise InputError(f"libraries names {library!r}; known: {known}")
    if net(settings.model).bottleneck:
        raise InputError(
            f"model is {settings.model!r}; the copies in PyTorch and Keras have basic "
            "blocks alone, as of resnet8 to resnet34 and wrn-N-K"
        )


def prepared(settings: DPSGD, data: Path, accelerator: bool, watch: Watch) -> Trial:
    """Environments, data, and what the contenders are told to do with them."""
    others = contenders(settings.engines, settings.libraries)
    pythons = environments.pythons(
        dict.fromkeys(one.peer for one in others if one.peer),
        settings.environments,
        settings.prepare,
        accelerator,
        watch,
    )
    watch("summing the clipped gradients of single records")
    facts, tolerance = fresh(
        expected.write,
        *(data, settings.model, SHAPES[settings.size]),
        *(settings.records, settings.seed),
        environment={"JAX_PLATFORMS": "cpu"},
    )
    common = {
        "way": "plain",
        "model": settings.model,
        "threads": settings.threads or cores(),
        "steps": settings.steps,
        "seed": settings.seed,
        "data": str(data),
        **facts,
    }
    task = {
        "batch_size": settings.batch_size,
        "records": settings.records,
        "dtype": settings.dtype,
        "noise_multiplier": NOISE_MULTIPLIER,
        "accelerator": accelerator,
    }
    checked = {
        "batch_size": expected.CHECKED,
        "records": expected.CHECKED,
        "dtype": "float32",
        "noise_multiplier": 0.0,
        "accelerator": False,
    }
    return Trial(
        pythons,
        Task(**{**common, **task, "clip_norm": CLIP_NORM}),
        Task(**common, **checked),
        tolerance,
        settings.rounds,
        settings.turn_seconds,
    )


# ----------------------------------------------------------------------- how it looks


SEEN = ("peak_bytes_in_use", "memory_bytes", "peak_rss_growth_bytes")


def step(row: Row) -> str:
    return cells.median(row) if row["reason"] is None else row["reason"]


def examples(row: Row) -> str:
    value = row.get("examples_per_second")
    return formats.NONE if value is None else f"{value:.3g}"


def memory(row: Row) -> str:
    """What the device saw, or the compiler plans, or by how much the process grew."""
    grown = not any(map(row.get, SEEN[:2])) and row.get(SEEN[2])
    return f"{formats.size(bytes_of(row))}{' (RSS)' if grown else ''}"


def relative_memory(row: Row) -> str:
    seen = row.get("relative_peak_bytes_in_use") or row.get("relative_memory_bytes")
    return cells.times(seen)


def bytes_of(row: Row) -> int | None:
    return next((row[name] for name in SEEN if row.get(name)), None)


def largest(row: Row) -> str:
    if row["reason"] is not None:
        return formats.NONE
    return str(row.get("largest_batch") or "not measured")


def relative_time(row: Row) -> str:
    return f"{cells.times(row['relative'])}  {cells.precise(row['seconds'])}"


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    timed = [row for row in record["rows"] if row["reason"] is None]
    styles = look(list(dict.fromkeys(row["library"] for row in timed)))
    settings = record["settings"]
    panels = (
        Panel(
            f"{settings['model']}, batch {settings['batch_size']}: a step's time",
            lambda row: row["relative"],
            relative_time,
            rule=1.0,
        ),
        Panel(
            "memory",
            bytes_of,
            memory,
            tick=formats.size,
        ),
    )
    return bars(
        {"": timed},
        lambda row: f"{row['library']}: {row['way']}",
        panels,
        lambda row: styles[row["library"]],
        theme,
    )


BENCHMARK = Benchmark(
    DPSGD,
    measure,
    (
        ("Library", lambda row: row["library"]),
        ("Way", lambda row: row["way"]),
        ("Step: median [least, most]", step),
        ("Relative", lambda row: cells.times(row.get("relative"))),
        ("Examples/s", examples),
        ("First step", lambda row: formats.seconds(row.get("first_step_seconds"))),
        ("Memory", memory),
        ("Relative", relative_memory),
        ("Largest batch", largest),
    ),
    figure,
)
