"""How much of the device a training step uses: the roofline of its nets.

The FLOPs are those of the program as it was handed to the compiler, whose count does
not depend on how a device carries out a convolution; the bytes are those of the
compiled program, after fusion. The device's peaks are measured here: a large matrix
product in the same number type, and a scaled sum of large arrays. No step can be faster
than the lower of the two roofs allows; the fraction is how near it comes. The compiler
counts a byte each time it is read, from a cache too, so a small net may come to lie
above the roof of memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import legend_below, look
from benchmarks.timing import calls_of, in_turns, reason, steps_of, summary
from benchmarks.workloads import (
    SHAPES,
    Dtype,
    Method,
    Size,
    learner,
    random_pixels,
    training_program,
)
from rpjax import keys
from rpjax.learners import Batch
from rpjax.report.drawing import Theme, blank

PRODUCT, SUM = "matrix product", "scaled sum"


@dataclass(frozen=True)
class Roofline:
    """FLOPs, bytes and time of training steps against the device's measured peaks."""

    models: tuple[str, ...] = ()
    """Left out: resnet8 and resnet18 on a CPU, else resnet18 and wrn-28-10."""
    method: Method = "plain"
    size: Size = "cifar10"
    """Whose images are imitated: 8x8x1, 28x28x1 or 32x32x3."""
    batch_size: int = 0
    """Left out: 128 on a CPU, else 256."""
    dtype: Dtype | None = None
    """Of the activations; left out: float32 on a CPU, else bfloat16."""
    records: int = 1024
    side: int = 0
    """Of the square matrices; left out: 2048 on a CPU, else 8192."""
    megabytes: int = 0
    """Of each array of the scaled sum; left out: 128 on a CPU, else 1024."""
    rounds: int = 5
    """How often each is timed."""
    turn_seconds: float = 1.0
    """About how long each time."""
    seed: int = 0


def measure(settings: Roofline, watch: Watch) -> list[Row]:
    cpu = jax.default_backend() == "cpu"
    dtype = settings.dtype or ("float32" if cpu else "bfloat16")
    batch = settings.batch_size or (128 if cpu else 256)
    models = settings.models or (
        ("resnet8", "resnet18") if cpu else ("resnet18", "wrn-28-10")
    )
    watch("compiling the peaks")
    product, sums = peaks(settings, dtype, cpu)
    clocks: dict[str, Callable[[], float]] = {PRODUCT: product[0], SUM: sums[0]}
    programs: dict[str, Row] = {}
    failed: list[Row] = []
    data = random_pixels(settings.records, SHAPES[settings.size], settings.seed)
    for model in models:
        watch(f"compiling {model}")
        try:
            one = learner(settings.method, model, batch, dtype=dtype)
            program, stopwatch = training_program(one, data, batch)
            most = max(1, settings.records // batch)
            clocks[model] = steps_of(stopwatch, most, settings.turn_seconds).clock
            programs[model] = work(one, data, batch, program)
        except RuntimeError as error:  # such as too little memory
            failed.append({"what": model, "dtype": dtype, "error": reason(error)})
    times = in_turns(clocks, settings.rounds, watch)
    roof = {
        "peak_flops": product[1] / min(times[PRODUCT]),
        "peak_bytes": sums[1] / min(times[SUM]),
    }
    return [
        against(roof, {"what": model, "dtype": dtype, "batch_size": batch}, counts)
        | summary(times[model])
        | _reached(roof, counts, summary(times[model])["seconds"])
        for model, counts in programs.items()
    ] + failed


def peaks(
    settings: Roofline, dtype: str, cpu: bool
) -> tuple[tuple[Callable[[], float], float], tuple[Callable[[], float], float]]:
    """Clocks of the matrix product and the scaled sum, with their FLOPs and bytes.

    The best of the rounds counts: a peak is what the device can do.
    """
    side = settings.side or (2048 if cpu else 8192)
    count = (settings.megabytes or (128 if cpu else 1024)) * 2**20 // 4
    rng = np.random.default_rng(settings.seed)
    matrix = jnp.asarray(rng.normal(size=(side, side)) / np.sqrt(side), dtype)
    repeat = 1 if cpu else 20  # the way to the device must not show
    product = calls_of(jax.jit(jnp.matmul), (matrix, matrix), repeat)
    x, y = jnp.ones(count, jnp.float32), jnp.ones(count, jnp.float32)
    triad = calls_of(jax.jit(lambda x, y: x + 3.0 * y), (x, y), repeat)
    return (product, 2.0 * side**3), (triad, 3.0 * 4 * count)


def work(one: Any, data: Any, batch: int, program: Any) -> Row:
    """FLOPs of a step as written, and FLOPs and bytes as compiled.

    A loop whose number of turns is an argument counts as one turn: one step.
    """
    written, compiled = written_cost(one, data, batch), program.cost_analysis()
    return {
        "flops": written["flops"],
        "compiled_flops": compiled.get("flops"),
        # a backend that does not tell leaves the count before fusion, which is higher
        "bytes": compiled.get("bytes accessed") or written["bytes accessed"],
        "bytes_after_fusion": bool(compiled.get("bytes accessed")),
    }


def written_cost(one: Any, data: Any, batch: int) -> dict[str, float]:
    """The count of a step's program before the compiler touches it."""
    shapes = (data.images[:batch], data.labels[:batch], data.ids[:batch])
    leaves = (*shapes, np.ones(batch, bool))
    state = jax.eval_shape(one.init, keys.root(0), data.images[:1])
    lowered = jax.jit(one.step).lower(keys.root(0), state, Batch(*leaves))
    return dict(lowered.cost_analysis())


def against(roof: Row, row: Row, counts: Row) -> Row:
    """A net's work beside the roofs."""
    return row | counts | roof | {"intensity": counts["flops"] / counts["bytes"]}


def _reached(roof: Row, counts: Row, seconds: float) -> Row:
    rate = counts["flops"] / seconds
    intensity = counts["flops"] / counts["bytes"]
    ceiling = min(roof["peak_flops"], intensity * roof["peak_bytes"])
    return {
        "flops_per_second": rate,
        "fraction_of_peak": rate / roof["peak_flops"],
        "fraction_of_roofline": rate / ceiling,
    }


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    rows = [row for row in record["rows"] if "error" not in row]
    made = blank(7.2, 4.4)
    made.set_layout_engine("constrained")
    axes = made.add_subplot()
    first = rows[0]
    ridge = first["peak_flops"] / first["peak_bytes"]
    across = [row["intensity"] for row in rows]
    ends = (min(ridge, *across) / 8, max(ridge, *across) * 8)
    roof = [min(first["peak_flops"], x * first["peak_bytes"]) for x in (*ends, ridge)]
    axes.plot(
        [ends[0], ridge, ends[1]],
        [roof[0], roof[2], roof[1]],
        color=theme.muted,
        label="measured roof",
    )
    styles = look([row["what"] for row in rows])
    for row in rows:
        style = styles[row["what"]]
        point = (row["intensity"], row["flops_per_second"])
        name = f"{row['what']}, {100 * row['fraction_of_roofline']:.0f} % of the roof"
        colour = style.colour(theme)
        ceiling = point[1] / row["fraction_of_roofline"]
        axes.plot([point[0]] * 2, [point[1], ceiling], ":", color=colour, linewidth=1.2)
        axes.plot(
            *point,
            style.marker,
            color=colour,
            markersize=9,
            linestyle="none",
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(ends)
    for axis, tick in (
        (axes.xaxis, lambda x, _: f"{x:g}"),
        (axes.yaxis, lambda y, _: cells.amount(y, "FLOP/s")),
    ):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(tick))
        # an axis of less than a decade would name its small ticks too
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(
        f"FLOPs for each byte ({first['dtype']}, batch {first['batch_size']})"
    )
    legend_below(made, axes, 2)
    return made


BENCHMARK = Benchmark(
    Roofline,
    measure,
    (
        ("Net", lambda row: row["what"]),
        ("Type", lambda row: row["dtype"]),
        ("Step: median [least, most]", cells.median),
        ("FLOPs a step", lambda row: cells.amount(row.get("flops"), "FLOP")),
        ("Bytes a step", lambda row: cells.amount(row.get("bytes"), "B")),
        ("Reached", lambda row: cells.amount(row.get("flops_per_second"), "FLOP/s")),
        ("Peak", lambda row: cells.amount(row.get("peak_flops"), "FLOP/s")),
        ("Memory's peak", lambda row: cells.amount(row.get("peak_bytes"), "B/s")),
        ("Of peak", lambda row: cells.share(row.get("fraction_of_peak"))),
        ("Of roofline", lambda row: cells.share(row.get("fraction_of_roofline"))),
    ),
    figure,
)
