"""DP-SGD's noise by its source: what a step's draw costs on this device.

Each source draws and adds the noise of some steps inside one compiled loop, as a
training does. The secure one is drawn by the host and carried to the device.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, look
from benchmarks.timing import calls_of, in_turns, ratio, summary
from rpjax.noise import SOURCES, noised
from rpjax.report.drawing import Theme


@dataclass(frozen=True)
class Noise:
    """Seconds to draw and add the noise of one step, by source."""

    normals: int = 1_000_000
    """Parameters of the model: so many are drawn a step."""
    draws: int = 8
    """Steps in one compiled loop."""
    rounds: int = 7
    """How often each is timed."""
    seed: int = 0


def measure(settings: Noise, watch: Watch) -> list[Row]:
    bits = np.random.default_rng(settings.seed).integers(0, 2**32, 8, np.uint32)
    args = (jnp.zeros(settings.normals), jnp.asarray(bits))
    clocks = {
        source: calls_of(_steps(source, settings.draws), args) for source in SOURCES
    }
    times = {
        source: [each / settings.draws for each in calls]
        for source, calls in in_turns(clocks, settings.rounds, watch).items()
    }
    return [
        {
            "source": source,
            **summary(times[source]),
            "relative": ratio(times[source], times["threefry"]),
            "seconds_per_million": summary(times[source])["seconds"]
            * 1e6
            / settings.normals,
        }
        for source in SOURCES
    ]


def _steps(source: str, draws: int) -> Any:
    def steps(total: jax.Array, secret: jax.Array) -> jax.Array:
        def add(step: jax.Array, total: jax.Array) -> jax.Array:
            return noised(total, secret, step, 1.0, source)

        return jax.lax.fori_loop(0, draws, add, total)

    return jax.jit(steps)


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    rows = record["rows"]
    styles = look([row["source"] for row in rows])
    panel = Panel(
        "a million normals",
        lambda row: row["seconds_per_million"],
        lambda row: cells.precise(row["seconds_per_million"]),
        tick=cells.precise,
    )
    name = lambda row: row["source"]
    return bars({"": rows}, name, (panel,), lambda row: styles[row["source"]], theme)


BENCHMARK = Benchmark(
    Noise,
    measure,
    (
        ("Source", lambda row: row["source"]),
        ("Step's noise: median [least, most]", cells.median),
        ("Relative to threefry", lambda row: cells.times(row["relative"])),
        ("A million normals", lambda row: cells.precise(row["seconds_per_million"])),
    ),
    figure,
)
