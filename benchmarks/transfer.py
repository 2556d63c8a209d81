"""DP-SGD from a public start: accuracy against epsilon, by how much is frozen.

A net is trained on some classes of MNIST, called public, and then by DP-SGD on the
other classes: all of it, or with its first groups frozen; and, beside these, from a
random start. Seeds are trained side by side.
"""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import scipy.stats
from matplotlib.figure import Figure

import rpjax as rp
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import WIDTH, legend_below, look
from rpjax.batches import poisson_slots
from rpjax.errors import InputError
from rpjax.privacy import dpsgd as accounting
from rpjax.privacy.truncation import Truncation
from rpjax.report.drawing import Theme, blank
from rpjax.training.run import spending

AVERAGE = 0.9
SCRATCH = "from scratch"


@dataclass(frozen=True)
class Transfer:
    """Test accuracy of private classes at each epsilon, by frozen groups."""

    data: str = "mnist"
    """Any name that `rpjax train --data` takes."""
    data_dir: Path | None = None
    """Folder that holds it."""
    public_classes: int = 5
    """The first classes are public, the others private."""
    frozen: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Groups that stay as they are: the stem, then stage after stage."""
    epsilons: tuple[float, ...] = (1.0, 3.0, 8.0)
    delta: float = 1e-5
    seeds: int = 5
    """Trainings side by side, each with its own head, batches and noise."""
    channels: int = 8
    """Of the net's first stage, a ResNet-8."""
    public_steps: int = 400
    public_batch: int = 64
    steps: int = 30
    batch_size: int = 256
    rate: float = 2.0
    private_records: int | None = 2_000
    """Of the private training records, the first so many; None: all."""
    quick: bool = False
    """One block, digits, two steps: shows how it goes; its accuracies mean nothing."""
    seed: int = 0


def measure(settings: Transfer, watch: Watch) -> list[Row]:
    """A row for each epsilon and each way to start.

    gain: of accuracy over a random start at the same epsilon, seed by seed, which share
    batches and keys of noise. public_accuracy: of the public net on its own classes.
    until_seconds: since the beginning; the last row's is what all of them took.
    """
    begun = time.monotonic()
    options = _quicker(settings) if settings.quick else settings
    data = rp.data.load(options.data, options.data_dir)
    if not 0 < options.public_classes < data.classes:
        raise InputError(
            f"public_classes is {options.public_classes}; it must be 1 to "
            f"{data.classes - 1}, so that some are private"
        )
    stem = "imagenet" if min(data.shape[:2]) > 16 else "cifar"
    public, private = _sides(data, options)
    watch("public training")
    net = _net(options, stem, options.public_classes)
    learner = rp.supervised(
        net, optax.adam(optax.cosine_decay_schedule(4e-3, options.public_steps))
    )
    first = rp.fit(
        learner,
        public[0],
        batch_size=options.public_batch,
        steps=options.public_steps,
        seed=options.seed,
        noise_seed="fixed",
    )
    found = float(first.evaluate(public[1]).value)
    source = f"{options.data}, classes 0 to {options.public_classes - 1}"
    start = rp.Pretrained(
        first.state.params, f"{source}, {options.public_steps} steps", fresh=("head",)
    )
    net = _net(options, stem, data.classes - options.public_classes)
    ways = [(epsilon, way) for epsilon in options.epsilons for way in _ways(options)]
    rows: list[Row] = []
    scratch = np.zeros(options.seeds)
    for number, (epsilon, way) in enumerate(ways):
        watch(f"{_name(way)} at epsilon {epsilon:g}", number, len(ways))
        row = _row(options, net, private, epsilon, way, start)
        if way is None:
            scratch = np.array(row["accuracies"])
        else:
            row["gain"] = _interval(np.array(row["accuracies"]) - scratch, -1.0)
        until = time.monotonic() - begun
        rows.append({**row, "public_accuracy": found, "until_seconds": until})
    return rows


def _quicker(settings: Transfer) -> Transfer:
    return Transfer(
        data="digits",
        frozen=(2,),
        epsilons=(8.0,),
        seeds=2,
        channels=4,
        public_steps=2,
        steps=2,
        batch_size=16,
        quick=True,
        seed=settings.seed,
    )


def _ways(settings: Transfer) -> tuple[int | None, ...]:
    """How many groups are frozen; None is a random start, with all of it trained."""
    return (None, *settings.frozen)


def _name(way: int | None) -> str:
    if way is None:
        return SCRATCH
    return f"{way} group{'' if way == 1 else 's'} frozen"


def _net(settings: Transfer, stem: Any, classes: int) -> Any:
    # one way to compute, so that no time goes into measuring several
    options: dict[str, Any] = {"stem": stem, "convolution": "xla", "classes": classes}
    width = settings.channels
    if settings.quick:  # most of a short run is compilation
        return rp.models.ResNet((1,), (width,), stem_width=width, **options)
    return rp.models.resnet(8, channels=width, **options)


def _sides(data: rp.Dataset, settings: Transfer) -> Any:
    """(train, test) of the public classes, and of the others, numbered from 0."""

    def part(records: rp.Records, private: bool, most: int | None) -> rp.Records:
        first = settings.public_classes
        own = np.flatnonzero((records.labels >= first) == private)[:most]
        taken = records.take(own)
        labels = taken.labels - first * private
        return rp.Records(taken.images, labels.astype(np.int32), taken.ids)

    return tuple(
        (part(data.train, side, most), part(data.test, side, None))
        for side, most in ((False, None), (True, settings.private_records))
    )


def _row(
    settings: Transfer,
    net: Any,
    sides: tuple[rp.Records, rp.Records],
    epsilon: float,
    way: int | None,
    start: rp.Pretrained,
) -> Row:
    begun = time.monotonic()
    train, test = sides
    size, steps = settings.batch_size, settings.steps
    multiplier = _multiplier(epsilon, settings.delta, size, len(train), steps)
    learner = rp.learners.dpsgd(
        net,
        rp.averaged(optax.sgd(settings.rate), [AVERAGE]),
        clip_norm=1.0,
        noise_multiplier=multiplier,
        batch_size=size,
        clipping="normalised",
        engine="bookkeeping",
        trainable=None if way is None else rp.trainable_after(net, way),
        start=None if way is None else start,
    )
    seeds = tuple(range(settings.seed, settings.seed + settings.seeds))
    bank = rp.side_by_side(learner, len(seeds), mapping="map")
    drawn = {"seed": seeds, "noise_seed": "fixed"}
    run = rp.fit(bank, train, batch_size=size, steps=steps, **drawn)
    stated = spending(bank, run.sampler, run.shape, settings.delta)(run.steps)
    if stated > epsilon * (1 + 1e-6):
        raise ValueError(f"a training's epsilon is {stated}, above {epsilon}")
    answers = run.averaged(AVERAGE).answers(test).argmax(-1)
    hits = (answers == test.labels).mean(-1)
    every, moved = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) // len(seeds)
        for tree in (run.state.params, run.state.opt_state.averages)
    )
    return {
        "way": _name(way),
        "frozen": way,
        "epsilon": epsilon,
        "delta": settings.delta,
        "noise_multiplier": multiplier,
        "parameters": every,
        "trained_parameters": moved,
        "accuracies": [float(each) for each in hits],
        **_interval(hits),
        "records": len(train),
        "step_seconds": run.cost.step_seconds,
        "train_seconds": time.monotonic() - begun,
    }


@functools.cache
def _multiplier(
    epsilon: float, delta: float, size: int, records: int, steps: int
) -> float:
    """The noise, which is the same however much is frozen."""
    cut = Truncation(records, poisson_slots(records, size))
    return accounting.noise_multiplier_for(
        epsilon, delta, size / records, steps, truncation=cut
    )


def _interval(values: np.ndarray, least: float = 0.0) -> Row:
    """The mean over seeds with its 95 % interval, Student's, within `least` and 1."""
    mean, count = float(np.mean(values)), len(values)
    half = float("inf")
    if count > 1:
        error = float(np.std(values, ddof=1)) / count**0.5
        half = float(scipy.stats.t.ppf(0.975, count - 1)) * error
    return {"mean": mean, "low": max(least, mean - half), "high": min(1.0, mean + half)}


# ------------------------------------------------------------------------- the figure


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    """Accuracy against epsilon, a line for each way to start.

    The lines stand side by side at each epsilon, so that their intervals can be told
    apart.
    """
    rows = record["rows"]
    names = list(dict.fromkeys(row["way"] for row in rows))
    targets = sorted({row["epsilon"] for row in rows})
    made = blank(WIDTH, 4.6)
    made.set_layout_engine("constrained")
    axes = made.subplots()
    for number, (name, style) in enumerate(look(names).items()):
        own = [row for row in rows if row["way"] == name]
        aside = 0.08 * (number - (len(names) - 1) / 2)
        across = [targets.index(row["epsilon"]) + aside for row in own]
        means = [100 * row["mean"] for row in own]
        ends = [
            [100 * abs(row[end] - row["mean"]) for row in own]
            for end in ("low", "high")
        ]
        axes.errorbar(
            across,
            means,
            yerr=ends,
            color=style.colour(theme),
            marker=style.marker,
            linestyle=style.line,
            capsize=2,
            elinewidth=1,
            label=name,
        )
    axes.set_xticks(range(len(targets)), [f"{each:g}" for each in targets])
    axes.set_xlabel(f"ε at δ = {rows[0]['delta']:g}")
    axes.set_ylabel("test accuracy, %")
    legend_below(made, axes)
    return made


def _percent(row: Row) -> str:
    mean, low, high = (100 * row[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


BENCHMARK = Benchmark(
    Transfer,
    measure,
    (
        ("Start", lambda row: row["way"]),
        ("ε", lambda row: f"{row['epsilon']:g}"),
        ("Noise multiplier", lambda row: f"{row['noise_multiplier']:.2f}"),
        ("Trained parameters", lambda row: f"{row['trained_parameters']:,}"),
        ("Test accuracy, %", _percent),
        ("Gain", lambda row: _percent(row["gain"]) if "gain" in row else ""),
        ("Step", lambda row: f"{1000 * row['step_seconds']:.0f} ms"),
    ),
    figure,
)
