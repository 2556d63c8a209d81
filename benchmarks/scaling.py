"""One program over 1 to 8 devices: each device's work, and what they tell each other.

Counted in the compiled training program on fake CPU devices, so that it takes no
machine with eight: FLOPs of one device by the compiler's own count, and every exchange
in the program's text with its bytes. On several real devices steps are timed too.
"""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import legend_below, lines
from benchmarks.hlo import collectives
from benchmarks.processes import fresh, on_cpu
from benchmarks.timing import in_turns, ratio, steps_of, summary
from benchmarks.workloads import (
    SHAPES,
    Dtype,
    Size,
    halves,
    learner,
    random_pixels,
    trained,
    training_program,
)
from rpjax.learners import Learner, ensemble, side_by_side
from rpjax.models.conv import Convolution
from rpjax.report import formats
from rpjax.report.drawing import Theme, blank
from rpjax.training.devices import layout
from rpjax.training.loop import sampler_for, split_slots

WHAT = {
    "plain": "plain",
    "strategy1": "Strategy I",
    "dpsgd": "DP-SGD",
    "ensemble": "ensemble",
    "bank": "bank of shadow models",
}


@dataclass(frozen=True)
class Scaling:
    """FLOPs and collectives of a training step on each of several devices."""

    devices: tuple[int, ...] = (1, 2, 4, 8)
    what: tuple[str, ...] = tuple(WHAT)
    """Of plain, strategy1, dpsgd, ensemble and bank."""
    model: str = "resnet8"
    size: Size = "cifar10"
    """Whose images are imitated: 8x8x1, 28x28x1 or 32x32x3."""
    batch_size: int = 128
    members: int = 8
    """Of the ensemble and of the bank."""
    convolution: Convolution = "xla"
    """As accelerators compile it; the fake devices are a CPU's."""
    dtype: Dtype = "float32"
    """Of the activations."""
    records: int = 1024
    """Records on each device."""
    rounds: int = 7
    """How often steps are timed, on real devices."""
    turn_seconds: float = 0.5
    """About how long each time."""
    seed: int = 0


def measure(settings: Scaling, watch: Watch) -> list[Row]:
    flags = os.environ.get("XLA_FLAGS", "")
    fake = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(max(settings.devices)),
        # machine code is the slow part, and nothing counts it
        "XLA_FLAGS": f"{flags} --xla_backend_optimization_level=0",
    }
    rows = []
    for what in settings.what:
        watch(f"compiling {WHAT[what]} for {settings.devices} devices")
        rows += fresh(counted, settings, what, environment=fake)
    if on_cpu():
        return rows
    return _with_times(settings, rows, watch)


def counted(settings: Scaling, what: str) -> list[Row]:
    """One row for each number of devices."""
    rows: list[Row] = []
    data = random_pixels(settings.records, SHAPES[settings.size], settings.seed)
    for devices in settings.devices:
        # all slots at once: of a loop over some, the compiler counts one turn
        one = _learner(settings, what, microbatch=settings.records)
        program, _ = training_program(one, data, settings.batch_size, devices)
        found = collectives(program.as_text())
        sampler = sampler_for(one, len(data), settings.batch_size)
        where = layout(devices, one.members, split_slots(sampler))
        flops = program.cost_analysis()["flops"]
        first = rows[0] if rows else {"flops": flops, "devices": devices}
        rows.append(
            {
                "what": what,
                "devices": devices,
                "along_members": where.members,
                "along_data": where.data,
                "flops": flops,
                "ideal_share": first["flops"] * first["devices"] / (devices * flops),
                "collectives": dict(Counter(each.kind for each in found)),
                "collective_bytes": sum(each.size for each in found),
                "seconds": None,
            }
        )
    return rows


def _learner(settings: Scaling, what: str, microbatch: int | None = None) -> Learner:
    one = learner(
        what if what in ("strategy1", "dpsgd") else "plain",
        settings.model,
        settings.batch_size,
        dtype=settings.dtype,
        convolution=settings.convolution,
        microbatch=microbatch,
    )
    if what == "ensemble":
        return ensemble(one, settings.members, mapping="vmap")
    if what == "bank":
        return side_by_side(one, settings.members, mapping="vmap")
    return one


def _with_times(settings: Scaling, rows: list[Row], watch: Watch) -> list[Row]:
    """The rows, those for as many real devices as there are with their times."""
    data = random_pixels(settings.records, SHAPES[settings.size], settings.seed)
    runs = {}
    for row in rows:
        if jax.device_count() > 1 and row["devices"] <= jax.device_count():
            name = f"{row['what']} on {row['devices']}"
            watch(f"compiling {name}")
            lists = None
            if row["what"] == "bank":
                lists = halves(settings.members, len(data), settings.seed)
            runs[name] = trained(
                _learner(settings, row["what"]),
                data,
                settings.batch_size,
                settings.seed,
                devices=row["devices"],
                lists=lists,
            )
    clocks = {
        name: steps_of(run.stopwatch, run.sampler.block, settings.turn_seconds).clock
        for name, run in runs.items()
    }
    times = in_turns(clocks, settings.rounds, watch)
    timed = []
    for row in rows:
        own = times.get(f"{row['what']} on {row['devices']}")
        if own is not None:
            base = times[f"{row['what']} on {settings.devices[0]}"]
            row = row | summary(own) | {"relative": ratio(own, base)}
        timed.append(row)
    return timed


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    made = blank(7.2, 3.6)
    made.set_layout_engine("constrained")
    share, size = made.subplots(1, 2)
    shares: dict[str, tuple[list[float], list[float]]] = {}
    sizes: dict[str, tuple[list[float], list[float]]] = {}
    for row in record["rows"]:
        for series, value in (
            (shares, 100 * row["ideal_share"]),
            (sizes, row["collective_bytes"] / 1e3),
        ):
            across, upward = series.setdefault(row["what"], ([], []))
            across.append(row["devices"])
            upward.append(value)
    lines(share, shares, theme, WHAT)
    lines(size, sizes, theme, WHAT)
    share.set_ylim(0, 108)
    share.set_title("Ideal share of the work, %")
    size.set_title("Exchanged a step by each device, kB")
    size.set_ylim(
        bottom=0, top=1.15 * max(1, *(y for _, ys in sizes.values() for y in ys))
    )
    for axes in (share, size):
        axes.set_xlabel("Devices")
    legend_below(made, share)
    return made


def _exchanges(row: Row) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in row["collectives"].items()) or "none"


BENCHMARK = Benchmark(
    Scaling,
    measure,
    (
        ("What", lambda row: WHAT[row["what"]]),
        ("Devices", lambda row: str(row["devices"])),
        ("Member x data", lambda r: f"{r['along_members']} x {r['along_data']}"),
        ("FLOPs of each a step", lambda row: cells.amount(row["flops"], "FLOP")),
        ("Ideal share", lambda row: f"{100 * row['ideal_share']:.1f} %"),
        ("Exchanges a step", _exchanges),
        ("Their bytes", lambda row: formats.size(row["collective_bytes"])),
        ("Step: median [least, most]", cells.median),
    ),
    figure,
)
