"""Decoding JPEG files for training: a plain loop, threads, and worker processes.

    python -m benchmarks.input_pipeline --out benchmarks/records/input_pipeline_cpu.json

Generated photographs of 256 to 500 pixels are decoded and resized to 224, as much as
one step of a training needs at a time. Then a net is trained on them, and the time that
its steps wait for their images is set beside a loop that decodes before each step. All
ways are measured in turns in one process, so that ratios hold even on a machine that is
busy; absolute numbers are this machine's.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import optax
from PIL import Image

from benchmarks.record import record
from rpjax import keys
from rpjax.data import load
from rpjax.data.sampling import shuffled
from rpjax.data.streaming import Workers
from rpjax.learners import supervised
from rpjax.models import resnet
from rpjax.training.clock import Clock
from rpjax.training.devices import layout
from rpjax.training.streamed import Streamed

CLASSES = 4
WAYS = {"threads": 0, "1 process": 1, "2 processes": 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="trained in each round")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measured(options)
    for row in rows:
        print(described(row))
    if options.out:
        names = ("images", "size", "batch", "rounds", "steps")
        settings = {name: getattr(options, name) for name in names}
        settings |= {"net": "resnet8, imagenet stem", "pixels": "256 to 500"}
        result = record("input_pipeline", settings, rows)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(options):
    with tempfile.TemporaryDirectory() as folder:
        root = generated(Path(folder), options.images)
        data = load(str(root), image_size=(options.size,) * 2, stored=True)
        return [
            *decoding(data.train, options.batch, options.rounds),
            *training(data.train, options.batch, options.rounds, options.steps),
        ]


def generated(root, count, seed=0):
    """Class folders of JPEG files whose detail is that of a soft photograph."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        height, width = (int(side) for side in rng.integers(256, 501, 2))
        coarse = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        folder = root / f"class{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number:05}.JPEG", quality=90)
    return root


def decoding(train, batch, rounds):
    """Images a second, relative to the loop; the workers are started beforehand."""
    order = np.arange(len(train) // batch * batch).reshape(-1, batch)
    rates, starts = {"plain loop": []}, {"plain loop": 0.0}
    pools = {name: Workers(train.images.batch, number) for name, number in WAYS.items()}
    try:
        for name, pool in pools.items():
            began = time.perf_counter()
            consumed(pool, order[: max(1, WAYS[name])])
            starts[name], rates[name] = time.perf_counter() - began, []
        for _ in range(rounds):
            rates["plain loop"].append(rate(order, lambda: looped(train, order)))
            for name, pool in pools.items():
                rates[name].append(rate(order, lambda p=pool: consumed(p, order)))
    finally:
        for pool in pools.values():
            pool.close()
    loop = statistics.median(rates["plain loop"])
    return [
        {
            "what": "decode",
            "way": name,
            "images_per_second": statistics.median(found),
            "spread": [min(found), max(found)],
            "relative": statistics.median(found) / loop,
            "first_batch_seconds": starts[name],
        }
        for name, found in rates.items()
    ]


def rate(order, run):
    began = time.perf_counter()
    run()
    return order.size / (time.perf_counter() - began)


def consumed(pool, order):
    stream = pool.stream(list(order))
    for _ in stream:
        pass
    stream.close()


def looped(train, order):
    for positions in order:
        train.images.batch(positions)


def training(train, batch, rounds, steps):
    """A step's seconds, and how many of them it waits; a loop waits for all of them."""
    feeds, states, times = {}, {}, {name: [] for name in ("plain loop", *WAYS)}
    total = 1 + steps * rounds
    try:
        for name, workers in WAYS.items():
            feeds[name], states[name] = started(train, batch, total, workers)
        for turn in range(rounds):
            for name, feed in feeds.items():
                waited, began = feed.waited, time.perf_counter()
                states[name] = stepped(feed, states[name], 1 + turn * steps, steps)
                seconds = time.perf_counter() - began
                times[name].append((seconds / steps, (feed.waited - waited) / steps))
            feed, state = feeds["threads"], states["threads"]
            began = time.perf_counter()
            looped(train, np.arange(batch)[None])
            decoded = time.perf_counter() - began
            seconds = feed.stopwatch(state)(steps) / steps
            times["plain loop"].append((seconds + decoded, decoded))
    finally:
        for feed in feeds.values():
            feed.close()
    return [
        {
            "what": "train",
            "way": name,
            "step_seconds": statistics.median(step for step, _ in found),
            "waiting_seconds": statistics.median(wait for _, wait in found),
            "waiting_share": statistics.median(wait / step for step, wait in found),
            "spread": [min(found)[0], max(found)[0]],
        }
        for name, found in times.items()
    ]


def started(train, batch, total, workers):
    """A feed that has taken its first step, and the state after it."""
    learner = supervised(resnet(8, CLASSES, stem="imagenet"), optax.sgd(0.1))
    table = np.arange(len(train), dtype=np.int32)
    sampler = shuffled(len(train), batch)
    where, root = layout(1, (), batch), keys.root(0)
    feed = Streamed(
        learner, train, table, sampler, where, root, Clock(), total, workers
    )
    state = feed.first_state()
    feed.compile(state)
    return feed, stepped(feed, state, 0, 1)


def stepped(feed, state, first, count):
    for number in range(first, first + count):
        block, start = divmod(number, feed.sampler.block)
        state, _ = feed.steps(state, block, start, 1)
    return jax.block_until_ready(state)


def described(row):
    if row["what"] == "decode":
        return (
            f"decode  {row['way']:<12}{row['images_per_second']:8.0f} images/s "
            f"{row['relative']:6.2f} x the loop, first batch after "
            f"{row['first_batch_seconds']:.1f} s"
        )
    return (
        f"train   {row['way']:<12}{row['step_seconds']:8.3f} s/step, "
        f"{row['waiting_share']:.1%} of it waiting for images"
    )


if __name__ == "__main__":
    main()
