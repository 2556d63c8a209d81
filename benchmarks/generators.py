"""A Strategy I step by the generator of its noise.

The noise of each block is drawn by the named generator from the record's own key, as
many normals as the library draws; everything else is the library's. rbg is here for its
cost alone: under vmap it draws a whole batch from the first key, so records would share
their noise.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, look
from benchmarks.timing import in_turns, ratio, reason, steps_of, summary
from benchmarks.workloads import (
    SHAPES,
    TX,
    Dtype,
    Size,
    learner,
    net,
    random_pixels,
    trained,
)
from rpjax.learners import Learner, supervised
from rpjax.report.drawing import Theme
from rpjax.training import Run

UNFIT = ("rbg", "unsafe_rbg")
NONE, LIBRARY = "no noise", "as rpjax draws"


@dataclass(frozen=True)
class Generators:
    """A Strategy I step, relative to plain, by generator of random numbers."""

    generators: tuple[str, ...] = ("threefry2x32", "threefry4x32", "rbg")
    """Of jax.random; one that this JAX has not is reported as such."""
    model: str = "resnet8"
    size: Size = "cifar10"
    """Whose images are imitated: 8x8x1, 28x28x1 or 32x32x3."""
    batch_size: int = 128
    dtype: Dtype = "float32"
    """Of the activations."""
    records: int = 2048
    rounds: int = 7
    """How often each is timed."""
    turn_seconds: float = 1.0
    """About how long each time, in one program of many steps."""
    seed: int = 0


@dataclass(frozen=True)
class Drawn:
    """Strategy I's noise by a generator of one's choice; gamma as in `Additive`."""

    gamma: float
    generator: str

    def noise(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """``gamma n``, from as much of the key as the generator takes."""
        words = jax.random.key_data(key)
        size = jax.random.key_data(jax.random.key(0, impl=self.generator)).size
        own = jax.random.wrap_key_data(jnp.resize(words, size), impl=self.generator)
        return self.gamma * jax.random.normal(own, x.shape, jnp.float32)


def measure(settings: Generators, watch: Watch) -> list[Row]:
    data = random_pixels(settings.records, SHAPES[settings.size], settings.seed)
    runs: dict[str, Run] = {}
    failed: list[Row] = []
    for name in (NONE, LIBRARY, *settings.generators):
        watch(f"compiling {name}")
        try:
            one = _learner(settings, name)
            runs[name] = trained(one, data, settings.batch_size, settings.seed)
        except (
            ValueError,
            RuntimeError,
        ) as error:  # not in this JAX, or not on this device
            failed.append({"generator": name, "error": reason(error)})
    clocks = {
        name: steps_of(run.stopwatch, run.sampler.block, settings.turn_seconds).clock
        for name, run in runs.items()
    }
    times = in_turns(clocks, settings.rounds, watch)
    return [
        {
            "generator": name,
            "fit": name not in UNFIT,
            **summary(times[name]),
            "relative": ratio(times[name], times[NONE]),
            "compile_seconds": run.cost.compile_seconds,
        }
        for name, run in runs.items()
    ] + failed


def _learner(settings: Generators, name: str) -> Learner:
    options = {"dtype": settings.dtype}
    if name in (NONE, LIBRARY):
        method = "plain" if name == NONE else "strategy1"
        return learner(method, settings.model, settings.batch_size, **options)
    noise = Drawn(0.5, name)
    dtype = jnp.dtype(settings.dtype)
    return supervised(net(settings.model, perturbation=noise, dtype=dtype), TX)


def _name(row: Row) -> str:
    return f"{row['generator']}{'' if row.get('fit', True) else ' (unfit)'}"


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    rows = [row for row in record["rows"] if "error" not in row]
    styles = look([row["generator"] for row in rows])
    time = Panel(
        "time of a step",
        lambda row: row["relative"],
        lambda row: f"{cells.times(row['relative'])}  {cells.precise(row['seconds'])}",
        rule=1.0,
    )
    compilation = Panel(
        "compilation",
        lambda row: row["compile_seconds"],
        lambda row: cells.precise(row["compile_seconds"]),
        tick=lambda x: f"{x:g} s",
    )
    panels = (time, compilation)
    return bars({"": rows}, _name, panels, lambda row: styles[row["generator"]], theme)


BENCHMARK = Benchmark(
    Generators,
    measure,
    (
        ("Generator", _name),
        ("Step: median [least, most]", cells.median),
        ("Relative to no noise", lambda row: cells.times(row.get("relative"))),
        ("Compiled in", lambda row: cells.precise(row.get("compile_seconds"))),
    ),
    figure,
)
