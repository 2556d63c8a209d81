"""Time to the first step: with an empty compilation cache, and with a full one.

Each is measured in a fresh process, after its imports and the start of its device: from
the call of `fit` to the end of one step. The parts are what JAX reports of itself; what
is left is the step, the data's way to the device and small programs.
"""

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import jax
from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, look
from benchmarks.processes import fresh
from benchmarks.timing import summary
from benchmarks.workloads import (
    LABELS,
    SHAPES,
    Dtype,
    Size,
    learner,
    random_pixels,
    trained,
)
from rpjax.learners import ensemble
from rpjax.report.drawing import Theme

What = Literal["plain", "strategy1", "strategy2", "dpsgd", "ensemble"]
NAMES = LABELS | {"ensemble": "ensemble"}
EVENTS = {
    "trace": "/jax/core/compile/jaxpr_trace_duration",
    "lower": "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "compile": "/jax/core/compile/backend_compile_duration",
}


@dataclass(frozen=True)
class Compile:
    """Seconds to the first training step, cold and with a warm cache."""

    methods: tuple[What, ...] = (
        "plain",
        "strategy1",
        "strategy2",
        "dpsgd",
        "ensemble",
    )
    model: str = "resnet8"
    size: Size = "cifar10"
    """Whose images are imitated: 8x8x1, 28x28x1 or 32x32x3."""
    batch_size: int = 128
    members: int = 4
    """Of the ensemble."""
    dtype: Dtype = "float32"
    """Of the activations."""
    records: int = 2048
    """Records on the device."""
    rounds: int = 2
    """How often each: once cold, once warm, with a new cache folder."""
    seed: int = 0


def measure(settings: Compile, watch: Watch) -> list[Row]:
    found: dict[tuple[str, str], list[Row]] = {}
    for number in range(settings.rounds):
        for method in settings.methods:
            with tempfile.TemporaryDirectory() as folder:
                cache = {
                    "JAX_COMPILATION_CACHE_DIR": folder,
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                }
                for temperature in ("cold", "warm"):
                    watch(f"{NAMES[method]}, {temperature}, round {number + 1}")
                    part = fresh(first_step, settings, method, environment=cache)
                    found.setdefault((method, temperature), []).append(part)
    return [
        {
            "method": method,
            "cache": temperature,
            **summary([part["seconds"] for part in parts]),
            **{
                f"{name}_seconds": summary([part[name] for part in parts])["seconds"]
                for name in (*EVENTS, "rest")
            },
            "programs": parts[0]["programs"],
        }
        for (method, temperature), parts in found.items()
    ]


def first_step(settings: Compile, method: What) -> Row:
    """One step from nothing, in this process; seconds in all and by part."""
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in EVENTS}

    def note(event: str, seconds: float, **_: Any) -> None:
        for name, known in EVENTS.items():
            if event == known:
                now = time.perf_counter()
                spans[name].append((now - seconds, now))

    jax.block_until_ready(jax.device_put(0))
    jax.monitoring.register_event_duration_secs_listener(note)
    kind = "plain" if method == "ensemble" else method
    one = learner(kind, settings.model, settings.batch_size, dtype=settings.dtype)
    if method == "ensemble":
        one = ensemble(one, settings.members)
    data = random_pixels(settings.records, SHAPES[settings.size], settings.seed)
    began = time.perf_counter()
    trained(one, data, settings.batch_size, settings.seed)
    seconds = time.perf_counter() - began
    parts = apart(spans)
    return {
        "seconds": seconds,
        **parts,
        "rest": seconds - sum(parts.values()),
        "programs": len(spans["compile"]),
    }


def apart(spans: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Seconds covered by each kind of span, and by none before it in the order.

    Tracing calls tracing, and lowering does now and then: nothing counts twice.

    >>> apart({"trace": [(0, 2), (1, 2)], "lower": [(1.5, 4)]})
    {'trace': 2, 'lower': 2}
    """
    covered: list[tuple[float, float]] = []
    seconds = {}
    for name, own in spans.items():
        before = _length(covered)
        covered += own
        seconds[name] = _length(covered) - before
    return seconds


def _length(spans: Iterable[tuple[float, float]]) -> float:
    """Of the union of the spans."""
    total, end = 0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    rows = record["rows"]
    styles = look(list(dict.fromkeys(row["method"] for row in rows)))
    groups = {
        f"{temperature} cache": [row for row in rows if row["cache"] == temperature]
        for temperature in ("cold", "warm")
    }
    panel = Panel(
        "seconds to the first step",
        lambda row: row["seconds"],
        lambda row: cells.precise(row["seconds"]),
        lambda row: row["spread"],
        tick=lambda x: f"{x:g} s",
    )
    return bars(
        groups,
        lambda row: NAMES[row["method"]],
        (panel,),
        lambda row: styles[row["method"]],
        theme,
    )


BENCHMARK = Benchmark(
    Compile,
    measure,
    (
        ("Method", lambda row: NAMES[row["method"]]),
        ("Cache", lambda row: row["cache"]),
        ("First step: median [least, most]", cells.median),
        ("Trace", lambda row: cells.precise(row["trace_seconds"])),
        ("Lower", lambda row: cells.precise(row["lower_seconds"])),
        ("Compile or load", lambda row: cells.precise(row["compile_seconds"])),
        ("Rest", lambda row: cells.precise(row["rest_seconds"])),
        ("Programs", lambda row: str(row["programs"])),
    ),
    figure,
)
