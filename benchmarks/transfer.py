"""DP-SGD from a public start: accuracy against epsilon, by how much is frozen.

A net is trained on some classes of MNIST, called public, and then by DP-SGD on the
other classes: all of it, or with its first groups frozen; and, beside these, from a
random start. Each way has the learning rate that is best for it on records and seeds of
their own, which no reported figure is from. Seeds are trained side by side.
"""

import functools
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
# how far the seeds of choosing lie from those of measuring
APART = 1_000
MOST_VALIDATION = 3_000


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
    epsilons: tuple[float, ...] = (1.0, 3.0)
    delta: float = 1e-5
    seeds: int = 8
    """Trainings side by side, each with its own head, batches and noise."""
    rates: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Learning rates, of which each way gets the best at each epsilon."""
    choosing_seeds: int = 2
    """Trainings by which one is chosen, for each rate."""
    channels: int = 8
    """Of the net's first stage, a ResNet-8."""
    public_steps: int = 400
    public_batch: int = 64
    steps: int = 30
    batch_size: int = 256
    private_records: int = 1_000
    """Of the private training records, the first so many; the next so many are trained
    on to choose a rate, and at most 3,000 of the rest tell which is best."""
    quick: bool = False
    """One block, digits, two steps: shows how it goes; its accuracies mean nothing."""
    seed: int = 0


class Sides(NamedTuple):
    """Records of the public classes, and of the private ones in four parts.

    choosing, validation: what a learning rate is chosen by.
    """

    public: rp.Records
    public_test: rp.Records
    train: rp.Records
    test: rp.Records
    choosing: rp.Records
    validation: rp.Records


def measure(settings: Transfer, watch: Watch) -> list[Row]:
    """A row for each epsilon and each way to start.

    gain: of accuracy over a random start at the same epsilon, seed by seed, which share
    batches and keys of noise. rate: the best of `by_rate`, mean accuracies on the
    validation records. chosen: of the public starts, the best there at this epsilon,
    so that its gain is one comparison and not the best of several.
    public_accuracy: of the public net on its own classes. until_seconds: since the
    beginning; the last row's is what all of them took.
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
    sides = _sides(data, options)
    watch("public training")
    net = _net(options, stem, options.public_classes)
    learner = rp.supervised(
        net, optax.adam(optax.cosine_decay_schedule(4e-3, options.public_steps))
    )
    first = rp.fit(
        learner,
        sides.public,
        batch_size=options.public_batch,
        steps=options.public_steps,
        seed=options.seed,
        noise_seed="fixed",
    )
    found = float(first.evaluate(sides.public_test).value)
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
        row = _row(options, net, sides, epsilon, way, start)
        if way is None:
            scratch = np.array(row["accuracies"])
        else:
            row["gain"] = _interval(np.array(row["accuracies"]) - scratch, -1.0)
        until = time.monotonic() - begun
        rows.append({**row, "public_accuracy": found, "until_seconds": until})
    for epsilon in options.epsilons:
        carried = [row for row in rows if row["epsilon"] == epsilon and "gain" in row]
        best = max(carried, key=_validated, default=None)
        for row in carried:
            row["chosen"] = row is best
    return rows


def _validated(row: Row) -> float:
    """The accuracy on validation records, at the rate that was chosen by it."""
    return float(max(each["mean"] for each in row["by_rate"]))


def _quicker(settings: Transfer) -> Transfer:
    return Transfer(
        data="digits",
        frozen=(2,),
        epsilons=(8.0,),
        seeds=2,
        rates=(1.0, 2.0),
        choosing_seeds=1,
        private_records=200,
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


def _sides(data: rp.Dataset, settings: Transfer) -> Sides:
    """Each part, with the private classes numbered from 0."""
    first, count = settings.public_classes, settings.private_records

    def part(records: rp.Records, private: bool) -> rp.Records:
        taken = records.take(np.flatnonzero((records.labels >= first) == private))
        labels = taken.labels - first * private
        return rp.Records(taken.images, labels.astype(np.int32), taken.ids)

    private = part(data.train, True)
    if not 1 <= count <= (len(private) - 1) // 2:
        raise InputError(
            f"private_records is {count}; it must be 1 to {(len(private) - 1) // 2}, "
            f"since as many again, and one, of {len(private)} choose the learning rate"
        )
    ends = (0, count, 2 * count, min(len(private), 2 * count + MOST_VALIDATION))
    train, choosing, validation = (
        private.take(np.arange(*two)) for two in itertools.pairwise(ends)
    )
    return Sides(
        *(part(data.train, False), part(data.test, False)),
        *(train, part(data.test, True), choosing, validation),
    )


def _row(
    settings: Transfer,
    net: Any,
    sides: Sides,
    epsilon: float,
    way: int | None,
    start: rp.Pretrained,
) -> Row:
    begun = time.monotonic()
    size, count = settings.batch_size, len(sides.train)
    multiplier = _multiplier(epsilon, settings.delta, size, count, settings.steps)
    learner = rp.learners.dpsgd(
        net,
        # the rate stands in the state, so that members can have one each
        rp.averaged(optax.inject_hyperparams(optax.sgd)(learning_rate=0.0), [AVERAGE]),
        clip_norm=1.0,
        noise_multiplier=multiplier,
        batch_size=size,
        clipping="normalised",
        engine="bookkeeping",
        trainable=None if way is None else rp.trainable_after(net, way),
        start=None if way is None else start,
    )
    by_rate = _by_rate(learner, settings, sides)
    rate = max(by_rate, key=lambda each: each["mean"])["rate"]
    rates = np.repeat(rate, settings.seeds)
    run, hits = _trained(
        learner, settings, rates, settings.seed, sides.train, sides.test
    )
    stated = spending(run.learner, run.sampler, run.shape, settings.delta)(run.steps)
    if stated > epsilon * (1 + 1e-6):
        raise ValueError(f"a training's epsilon is {stated}, above {epsilon}")
    every, moved = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) // settings.seeds
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
        "rate": rate,
        "by_rate": by_rate,
        "accuracies": [float(each) for each in hits],
        **_interval(hits),
        "records": count,
        "step_seconds": run.cost.step_seconds,
        "train_seconds": time.monotonic() - begun,
    }


def _by_rate(learner: rp.Learner, settings: Transfer, sides: Sides) -> list[Row]:
    """What each learning rate leads to, on the records that choose one."""
    rates = np.repeat(settings.rates, settings.choosing_seeds)
    first = settings.seed + APART
    _, hits = _trained(
        *(learner, settings, rates, first), sides.choosing, sides.validation
    )
    means = hits.reshape(len(settings.rates), -1).mean(-1)
    return [
        {"rate": rate, "mean": float(mean)}
        for rate, mean in zip(settings.rates, means, strict=True)
    ]


def _trained(
    learner: rp.Learner,
    settings: Transfer,
    rates: np.ndarray,
    seed: int,
    train: rp.Records,
    test: rp.Records,
) -> tuple[rp.Run, np.ndarray]:
    """A training for each of the rates, with seeds from `seed` on, and its accuracy."""
    bank = rp.side_by_side(learner, len(rates), mapping="map")

    def init(key: Any, images: Any) -> Any:
        state = bank.init(key, images)
        own = jnp.asarray(rates, jnp.float32)
        opt_state = optax.tree_utils.tree_set(state.opt_state, learning_rate=own)
        return state._replace(opt_state=opt_state)

    run = rp.fit(
        bank._replace(init=init),
        train,
        batch_size=settings.batch_size,
        steps=settings.steps,
        seed=tuple(range(seed, seed + len(rates))),
        noise_seed="fixed",
    )
    answers = run.averaged(AVERAGE).answers(test).argmax(-1)
    return run, (answers == test.labels).mean(-1)


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
        aside = 0.035 * (len(targets) - 1) * (number - (len(names) - 1) / 2)
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
        ("Learning rate", lambda row: f"{row['rate']:g}"),
        ("Test accuracy, %", _percent),
        ("Gain", lambda row: _percent(row["gain"]) if "gain" in row else ""),
        ("Chosen", lambda row: "yes" if row.get("chosen") else ""),
        ("Step", lambda row: f"{1000 * row['step_seconds']:.0f} ms"),
    ),
    figure,
)
