"""Seconds an epoch: one net, an ensemble, and a bank of shadow models.

Without --epochs an epoch is timed as steps of the compiled training program, a whole
one where it fits into a turn, and extrapolated from fewer where it does not. With it,
so many epochs are trained by `fit` and the whole call is timed.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, look
from benchmarks.processes import on_cpu
from benchmarks.timing import in_turns, ratio, steps_of, summary
from benchmarks.workloads import (
    SHAPES,
    Dtype,
    Method,
    Size,
    halves,
    learner,
    random_pixels,
    trained,
)
from rpjax.data import Records, load
from rpjax.learners import side_by_side
from rpjax.report.drawing import Theme
from rpjax.training import Run, fit


@dataclass(frozen=True)
class Epoch:
    """Seconds an epoch of CIFAR-10's size, for one net and for several members."""

    members: tuple[int, ...] = ()
    """How many; left out: 1 on a CPU, else 1 and 16."""
    lists: Literal["all", "halves"] = "all"
    """Each member sees all records, or its own random half, as shadow models do."""
    epochs: float = 0.0
    """Train so many by `fit`, and time the whole call; 0 times steps in turns."""
    data: str | None = None
    """A data set of rpjax; left out: random pixels, whose steps take as long."""
    data_dir: Path | None = None
    size: Size = "cifar10"
    """Whose images are imitated, without `data`."""
    records: int = 50_000
    """How many, without `data`."""
    method: Method = "plain"
    model: str = "resnet8"
    batch_size: int = 128
    dtype: Dtype = "float32"
    """Of the activations."""
    augment: bool = True
    """Random crops and flips, as CIFAR-10 is trained."""
    rounds: int = 5
    """How often each is timed."""
    turn_seconds: float = 5.0
    """About how long each time, or a whole epoch."""
    seed: int = 0


def measure(settings: Epoch, watch: Watch) -> list[Row]:
    counts = settings.members or ((1,) if on_cpu() else (1, 16))
    data = records_of(settings)
    if settings.epochs:
        return [_whole(settings, data, count, watch) for count in counts]
    return _in_turns(settings, data, counts, watch)


def records_of(settings: Epoch) -> Records:
    """The named data set's training records, or as many random ones."""
    if settings.data is not None:
        return load(settings.data, settings.data_dir).train
    return random_pixels(settings.records, SHAPES[settings.size], settings.seed)


def _in_turns(
    settings: Epoch, data: Records, counts: tuple[int, ...], watch: Watch
) -> list[Row]:
    runs: dict[int, Run] = {}
    for count in counts:
        watch(f"compiling {count} members")
        one, lists = _many(settings, data, count)
        runs[count] = trained(
            one, data, settings.batch_size, settings.seed, lists=lists
        )
    timed = {
        count: steps_of(run.stopwatch, run.sampler.block, settings.turn_seconds)
        for count, run in runs.items()
    }
    times = in_turns(
        {count: steps.clock for count, steps in timed.items()}, settings.rounds, watch
    )
    rows = []
    for count, run in runs.items():
        per_epoch = steps_per_epoch(run)
        epochs = [per_epoch * each for each in times[count]]
        rows.append(
            {
                **_facts(settings, count, run),
                **summary(epochs),
                "relative": ratio(times[count], times[counts[0]]),
                "extrapolated_from_steps": (
                    None if timed[count].count == per_epoch else timed[count].count
                ),
                "compile_seconds": run.cost.compile_seconds,
                "wall_seconds": None,
            }
        )
    return rows


def _whole(settings: Epoch, data: Records, count: int, watch: Watch) -> Row:
    watch(f"training {count} members for {settings.epochs:g} epochs")
    one, lists = _many(settings, data, count)
    began = time.perf_counter()
    run = fit(
        one,
        data,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        noise_seed="fixed",
        lists=lists,
        report=_Reporter(watch, f"{count} members"),
    )
    wall = time.perf_counter() - began
    each = run.cost.train_seconds / (run.steps / steps_per_epoch(run))
    return {
        **_facts(settings, count, run),
        "seconds": each,
        "spread": [each, each],
        "n": 1,
        "relative": None,
        "extrapolated_from_steps": None,
        "compile_seconds": run.cost.compile_seconds,
        "wall_seconds": wall,
    }


class _Reporter:
    """What `fit` tells, as a watch hears it."""

    def __init__(self, watch: Watch, name: str) -> None:
        self.watch, self.name, self.tenth = watch, name, -1

    def advance(self, done: int, total: int, examples: int, info: Any) -> None:
        if (tenth := 10 * done // total) != self.tenth:
            self.tenth = tenth
            self.watch(f"{self.name}: step {done} of {total}")


def _many(settings: Epoch, data: Records, count: int) -> tuple[Any, Any]:
    """The learner of so many members, and whose records they see."""
    one = learner(
        settings.method,
        settings.model,
        settings.batch_size,
        augment=settings.augment,
        dtype=settings.dtype,
    )
    half = settings.lists == "halves"
    lists = halves(count, len(data), settings.seed) if half else None
    if count == 1:
        return one, None if lists is None else lists[0]
    return side_by_side(one, count), lists


def steps_per_epoch(run: Run) -> int:
    """Steps in which every record is seen once; on average, under Poisson sampling."""
    if run.sampler.kind == "shuffled":
        return run.sampler.block
    return round(run.records / run.sampler.batch_size)


def _facts(settings: Epoch, count: int, run: Run) -> Row:
    return {
        "members": count,
        "records_per_member": run.records,
        "steps_per_epoch": steps_per_epoch(run),
        "epochs": settings.epochs or None,
    }


def _name(row: Row) -> str:
    return "one net" if row["members"] == 1 else f"{row['members']} members"


def _remark(row: Row) -> str:
    if row["wall_seconds"] is not None:
        return f"{row['epochs']:g} epochs took {cells.precise(row['wall_seconds'])}"
    steps = row["extrapolated_from_steps"]
    return "whole" if steps is None else f"from {steps} of {row['steps_per_epoch']}"


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    rows = record["rows"]
    styles = look([_name(row) for row in rows])
    panel = Panel(
        f"seconds an epoch of {rows[0]['records_per_member']:,} records",
        lambda row: row["seconds"],
        lambda row: cells.precise(row["seconds"]),
        lambda row: row["spread"],
        tick=lambda x: f"{x:g} s",
    )
    return bars({"": rows}, _name, (panel,), lambda row: styles[_name(row)], theme)


BENCHMARK = Benchmark(
    Epoch,
    measure,
    (
        ("What", _name),
        ("Records each", lambda row: f"{row['records_per_member']:,}"),
        ("Epoch: median [least, most]", cells.median),
        ("Relative to the first", lambda row: cells.times(row["relative"])),
        ("Steps", _remark),
        ("Compiled in", lambda row: cells.precise(row["compile_seconds"])),
    ),
    figure,
)
