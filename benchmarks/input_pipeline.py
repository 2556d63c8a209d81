"""Decoding JPEG files for training: a plain loop, threads, and worker processes.

Generated photographs are decoded as much as a step needs at a time. Then a net is
trained on them as `fit` trains on records that stay on disk, beside a loop that decodes
before each step and beside steps whose images are there already.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, look
from benchmarks.photographs import photographs
from benchmarks.timing import Clock, in_turns, ratio, summary
from benchmarks.workloads import Dtype, learner
from rpjax import keys
from rpjax.data.sampling import shuffled
from rpjax.data.stored import StoredRecords
from rpjax.data.streaming import MOST_THREADS, Workers
from rpjax.errors import InputError
from rpjax.report.drawing import Theme
from rpjax.training.clock import Clock as Calls
from rpjax.training.devices import layout
from rpjax.training.streamed import Streamed

LOOP, THERE = "plain loop", "no decoding"
WHAT = {"decode": "decode an image", "train": "train a step"}


@dataclass(frozen=True)
class InputPipeline:
    """JPEG files decoded by a loop, threads and processes, and how long steps wait."""

    workers: tuple[int, ...] = (0, 1, 2)
    """Processes that decode; 0 is threads of this one."""
    records: int = 256
    """Photographs, generated in a temporary folder."""
    sides: tuple[int, int] = (256, 500)
    """Least and most pixels of a photograph's side."""
    image_size: int = 224
    """Pixels to which they are resized and cut."""
    model: str = "resnet8"
    """With ImageNet's stem."""
    batch_size: int = 32
    dtype: Dtype = "float32"
    """Of the activations."""
    steps: int = 8
    """Trained each time, not counting those that fill and empty the pipeline."""
    rounds: int = 5
    """How often each is timed."""
    seed: int = 0


def measure(settings: InputPipeline, watch: Watch) -> list[Row]:
    if not 0 < settings.batch_size <= settings.records:
        raise InputError(
            f"batch_size is {settings.batch_size}; it must be 1 to {settings.records}, "
            "the number of records"
        )
    with tempfile.TemporaryDirectory() as folder:
        watch(f"generating {settings.records} photographs")
        data = photographs(
            Path(folder),
            settings.records,
            settings.sides,
            settings.image_size,
            settings.seed,
        )
        return _decoding(settings, data, watch) + _training(settings, data, watch)


def way(workers: int) -> str:
    """What so many workers are called."""
    if workers == 0:
        return "threads"
    return f"{workers} process{'es' * (workers > 1)}"


# ---------------------------------------------------------------------------- decoding


def _decoding(settings: InputPipeline, data: StoredRecords, watch: Watch) -> list[Row]:
    size = settings.batch_size
    batches = np.arange(len(data) // size * size).reshape(-1, size)
    clocks = {LOOP: lambda: _decoded_in_a_loop(data, batches)}
    starts: dict[str, float] = {}
    with Workers(_images(data).batch) as pool:
        _decoded_ahead(pool, batches[:1])  # imports grain, which is part of no start
    with ExitStack() as stack:
        for workers in settings.workers:
            name = way(workers)
            watch(f"starting to decode: {name}")
            began = time.perf_counter()
            pool = stack.enter_context(Workers(_images(data).batch, workers))
            _decoded_ahead(pool, batches[:1])
            starts[name] = time.perf_counter() - began
            clocks[name] = lambda pool=pool: _decoded_ahead(pool, batches)
        _warm_up(clocks)
        times = in_turns(clocks, settings.rounds, watch)
    return [
        {
            "what": "decode",
            "way": name,
            **summary(own),
            "images_per_second": 1 / statistics.median(own),
            "relative": ratio(own, times[LOOP]),
            "waiting_seconds": None,
            "waiting_share": None,
            "first_batch_seconds": starts.get(name),
        }
        for name, own in times.items()
    ]


def _decoded_in_a_loop(data: StoredRecords, batches: np.ndarray) -> float:
    """Seconds an image."""
    began = time.perf_counter()
    for positions in batches:
        _images(data).batch(positions)
    return (time.perf_counter() - began) / batches.size


def _decoded_ahead(pool: Workers, batches: np.ndarray) -> float:
    """Seconds an image, from asking for the first until the last is there."""
    began = time.perf_counter()
    with closing(pool.stream(list(batches))) as stream:
        for _ in stream:
            pass
        return (time.perf_counter() - began) / batches.size


def _images(data: StoredRecords) -> Any:
    return data.images


def _warm_up(clocks: dict[str, Clock]) -> None:
    for clock in clocks.values():
        clock()


# ---------------------------------------------------------------------------- training


class Ahead:
    """Seconds a step of a training whose images are decoded ahead.

    Each time it trains from its first step. The steps that fill the pipeline are not
    timed, nor are as many after the others: what is timed decodes at a steady pace, and
    nothing is decoded any more while another way has its turn.
    waits: of each time, the seconds a step for which no batch was ready. The device may
    have been computing then, so it has waited as long at most.
    """

    def __init__(
        self, feed: Streamed, state: Any, workers: Workers, steps: int
    ) -> None:
        self.feed, self.state, self.workers, self.steps = feed, state, workers, steps
        self.waits: list[float] = []

    def __call__(self) -> float:
        feed, fill = self.feed, most_ahead(self.workers.workers)
        state = jax.tree.map(jnp.copy, self.state)
        # one compiled feed serves all ways; going back to its first step begins anew
        feed.workers, feed.total = self.workers, fill + self.steps + fill
        state, _ = feed.steps(state, 0, 0, fill)
        jax.block_until_ready(state)
        waited, began = feed.waited, time.perf_counter()
        state, _ = feed.steps(state, 0, fill, self.steps)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - began
        self.waits.append((feed.waited - waited) / self.steps)
        feed.steps(state, 0, fill + self.steps, fill)
        return seconds / self.steps


class Before:
    """Seconds a step of a loop that decodes before each step, and waits for all of it.

    Nothing overlaps in such a loop, so both are timed one after the other.
    """

    def __init__(
        self, feed: Streamed, state: Any, data: StoredRecords, batches: np.ndarray
    ) -> None:
        self.stopwatch, self.steps = feed.stopwatch(state), len(batches)
        self.data, self.batches = data, batches
        self.waits: list[float] = []

    def __call__(self) -> float:
        images = self.batches[0].size
        self.waits.append(images * _decoded_in_a_loop(self.data, self.batches))
        return self.waits[-1] + self.stopwatch(self.steps) / self.steps


class There:
    """Seconds a step whose images are there already."""

    def __init__(self, feed: Streamed, state: Any, steps: int) -> None:
        self.stopwatch, self.steps = feed.stopwatch(state), steps
        self.waits: list[float] = []

    def __call__(self) -> float:
        self.waits.append(0.0)
        return self.stopwatch(self.steps) / self.steps


def _training(settings: InputPipeline, data: StoredRecords, watch: Watch) -> list[Row]:
    with _clocks(settings, data, watch) as clocks:
        _warm_up(clocks)
        for clock in clocks.values():
            clock.waits.clear()
        times = in_turns(clocks, settings.rounds, watch)
    rows = []
    for name, own in times.items():
        waits = clocks[name].waits
        rows.append(
            {
                "what": "train",
                "way": name,
                **summary(own),
                "images_per_second": settings.batch_size / statistics.median(own),
                "relative": ratio(own, times[LOOP]),
                "waiting_seconds": statistics.median(waits),
                "waiting_share": ratio(waits, own),
                "first_batch_seconds": None,
            }
        )
    return rows


@contextmanager
def _clocks(
    settings: InputPipeline, data: StoredRecords, watch: Watch
) -> Iterator[dict[str, Any]]:
    """A clock for each way to train; their workers end with the context."""
    steps = settings.steps
    feed = _feed(settings, data)
    with ExitStack() as stack:
        pools = [
            stack.enter_context(Workers(feed.decode, number))
            for number in settings.workers
        ]
        stack.enter_context(closing(feed))
        watch(f"compiling {settings.model}")
        state = feed.first_state()
        feed.compile(state, 1)
        # past the first step, to which every clock goes back
        feed.steps(jax.tree.map(jnp.copy, state), 0, 0, 1)
        batches = np.resize(np.arange(len(data)), (steps, settings.batch_size))
        yield {
            LOOP: Before(feed, state, data, batches),
            THERE: There(feed, state, steps),
            **{way(p.workers): Ahead(feed, state, p, steps) for p in pools},
        }


def _feed(settings: InputPipeline, data: StoredRecords) -> Streamed:
    """Feeds as many steps as any way takes; all of one epoch, so records come again."""
    one = learner(
        "plain",
        settings.model,
        settings.batch_size,
        dtype=settings.dtype,
        stem="imagenet",
    )
    total = settings.steps + 2 * max(map(most_ahead, (0, *settings.workers)))
    table = np.resize(np.arange(len(data), dtype=np.int32), total * settings.batch_size)
    sampler = shuffled(len(table), settings.batch_size)
    where, root = layout(1, (), settings.batch_size), keys.root(settings.seed)
    return Streamed(one, data, table, sampler, where, root, Calls(), total)


def most_ahead(workers: int) -> int:
    """Steps whose images may be decoded, or being decoded, before they are needed.

    What a stream keeps: as many as it has threads and one, then one that is handed out
    next and one that lies on the device.
    """
    return (workers or min(MOST_THREADS, os.cpu_count() or 1)) + 3


# ----------------------------------------------------------------------------- drawing


def _text(row: Row) -> str:
    text = f"{cells.times(row['relative'])}  {cells.precise(row['seconds'])}"
    if row["waiting_share"] is None or row["way"] == THERE:
        return text
    return f"{text}, {cells.share(row['waiting_share'])} waiting"


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    groups: dict[str, list[Row]] = {}
    for row in record["rows"]:
        groups.setdefault(f"time to {WHAT[row['what']]}", []).append(row)
    styles = look(list(dict.fromkeys(row["way"] for row in record["rows"])))
    panel = Panel("", lambda row: row["relative"], _text, rule=1.0)
    return bars(
        groups, lambda row: row["way"], (panel,), lambda row: styles[row["way"]], theme
    )


BENCHMARK = Benchmark(
    InputPipeline,
    measure,
    (
        ("What", lambda row: WHAT[row["what"]]),
        ("Way", lambda row: row["way"]),
        ("Time: median [least, most]", cells.median),
        ("Relative to the loop", lambda row: cells.times(row["relative"])),
        ("Images a second", lambda row: f"{row['images_per_second']:.3g}"),
        ("Of it waiting", lambda row: cells.share(row["waiting_share"])),
        ("First batch in", lambda row: cells.precise(row["first_batch_seconds"])),
    ),
    figure,
)
