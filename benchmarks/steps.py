"""A training step of each method, relative to plain training.

Steps are timed through the compiled program that `fit` runs, all methods in turns.
Memory is what the compiler plans for that program; on an accelerator also the peak that
the device saw, each method in a process of its own, since a peak cannot be reset.
"""

from dataclasses import dataclass
from typing import Any

import jax
from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, look
from benchmarks.processes import fresh, on_cpu
from benchmarks.timing import in_turns, ratio, steps_of, summary
from benchmarks.workloads import (
    LABELS,
    SHAPES,
    Dtype,
    Method,
    Size,
    learner,
    random_pixels,
    trained,
)
from rpjax.report import formats
from rpjax.report.drawing import Theme
from rpjax.training import Run


@dataclass(frozen=True)
class Steps:
    """Time and memory of a training step by method, on random pixels."""

    sizes: tuple[Size, ...] = ("digits", "cifar10")
    """Whose images are imitated: 8x8x1, 28x28x1 or 32x32x3."""
    methods: tuple[Method, ...] = ("plain", "strategy1", "strategy2", "dpsgd")
    """What is compared; the first is the measure of the others."""
    model: str = "resnet8"
    batch_size: int = 128
    """Records in a step; expected ones for DP-SGD, whose slots are more."""
    dtype: Dtype = "float32"
    """Of the activations."""
    records: int = 2048
    """Records on the device."""
    rounds: int = 7
    """How often each is timed."""
    turn_seconds: float = 0.5
    """About how long each time, in one program of many steps."""
    seed: int = 0


def measure(settings: Steps, watch: Watch) -> list[Row]:
    # first the processes of their own, while this one has no accelerator's memory
    peaks = {size: _peaks(settings, size, watch) for size in settings.sizes}
    return [
        row
        for size in settings.sizes
        for row in _of_size(settings, size, peaks[size], watch)
    ]


def _of_size(
    settings: Steps, size: str, peaks: dict[str, int | None], watch: Watch
) -> list[Row]:
    runs: dict[str, Run] = {}
    for method in settings.methods:
        watch(f"compiling {LABELS[method]}, {size}")
        runs[method] = one_step(settings, size, method)
    timed = {
        method: steps_of(run.stopwatch, run.sampler.block, settings.turn_seconds)
        for method, run in runs.items()
    }
    times = in_turns(
        {method: steps.clock for method, steps in timed.items()},
        settings.rounds,
        watch,
    )
    base = settings.methods[0]
    return [
        {
            "size": size,
            "method": method,
            **summary(times[method]),
            "relative": ratio(times[method], times[base]),
            "steps_per_turn": timed[method].count,
            "slots": run.sampler.capacity,
            "computed": None if run.choice is None else str(run.choice),
            "compile_seconds": run.cost.compile_seconds,
            "memory_bytes": run.cost.memory_bytes,
            "relative_memory": _over(
                run.cost.memory_bytes, runs[base].cost.memory_bytes
            ),
            "peak_bytes_in_use": peaks[method],
            "relative_peak": _over(peaks[method], peaks[base]),
        }
        for method, run in runs.items()
    ]


def one_step(settings: Steps, size: str, method: str) -> Run:
    """A run whose stopwatch and cost are asked."""
    return trained(
        learner(method, settings.model, settings.batch_size, dtype=settings.dtype),
        random_pixels(settings.records, SHAPES[size], settings.seed),
        settings.batch_size,
        settings.seed,
    )


def _peaks(settings: Steps, size: str, watch: Watch) -> dict[str, int | None]:
    """What the device saw at most, where it keeps count."""
    if on_cpu():
        return dict.fromkeys(settings.methods)
    found = {}
    for method in settings.methods:
        watch(f"peak memory of {LABELS[method]}, {size}")
        found[method] = fresh(_peak, settings, size, method)
    return found


def _peak(settings: Steps, size: str, method: str) -> int | None:
    one_step(settings, size, method)
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")


def _over(value: int | None, base: int | None) -> float | None:
    return value / base if value and base else None


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    rows = record["rows"]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["size"], []).append(row)
    styles = look(list(dict.fromkeys(row["method"] for row in rows)))
    peak = all(row["relative_peak"] for row in rows)
    memory = "relative_peak" if peak else "relative_memory"
    panels = (
        Panel(
            "time of a step",
            lambda row: row["relative"],
            lambda row: f"{cells.times(row['relative'])}  {_short(row)}",
            rule=1.0,
        ),
        Panel(
            "memory",
            lambda row: row[memory],
            lambda row: cells.times(row[memory]),
            rule=1.0,
        ),
    )
    return bars(
        groups,
        lambda row: LABELS[row["method"]],
        panels,
        lambda row: styles[row["method"]],
        theme,
    )


def _short(row: Row) -> str:
    return cells.precise(row["seconds"])


BENCHMARK = Benchmark(
    Steps,
    measure,
    (
        ("Images", lambda row: row["size"]),
        ("Method", lambda row: LABELS[row["method"]]),
        ("Step: median [least, most]", cells.median),
        ("Relative", lambda row: cells.times(row["relative"])),
        ("Slots", lambda row: str(row["slots"])),
        ("Program's memory", lambda row: formats.size(row["memory_bytes"])),
        ("Relative", lambda row: cells.times(row["relative_memory"])),
        ("Peak on the device", lambda row: formats.size(row["peak_bytes_in_use"])),
        ("Compiled in", lambda row: formats.seconds(row["compile_seconds"])),
    ),
    figure,
)
