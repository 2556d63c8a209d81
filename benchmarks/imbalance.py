"""Rare classes: what a loss does for them, and what an attack learns of them.

Step imbalance on MNIST, trained plainly, by Strategy I and by DP-SGD at one total
epsilon. Each seed has its own choice of records, initial weights, batches and noise, so
the intervals over seeds cover all of these; losses are compared seed by seed.
"""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import scipy

import rpjax as rp
from benchmarks import imbalance_attack
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.imbalance_nets import Residual, pooled
from benchmarks.imbalance_picture import figure
from rpjax.batches import PoissonBatches
from rpjax.counts import Counts, Release
from rpjax.data.imbalance import step_counts, with_counts
from rpjax.gradients import Flat, GlobalAdaptive, GroupClipping
from rpjax.learners import Inputs, Learner, losses
from rpjax.metrics.confusion import (
    accuracy,
    balanced_accuracy,
    confusion,
    g_mean,
    recalls,
)
from rpjax.perturbations import Additive
from rpjax.privacy import dpsgd as accounting
from rpjax.privacy.histogram import Histogram
from rpjax.training.loop import sampler_for
from rpjax.training.run import guarantee

Method = Literal["plain", "strategy1", "dpsgd"]
Floats = np.ndarray[Any, np.dtype[Any]]

NAMES = {"plain": "Plain", "strategy1": "Strategy I", "dpsgd": "DP-SGD"}
BASE, BEST = "cross-entropy", "balanced softmax"
RELEASED = "balanced softmax, released counts"
LOSSES = (BASE, "focal", "class-weighted", "class-balanced", "LDAM-DRW", BEST)
# rules of clipping, with cross-entropy: DPSGD-F and DPSGD-Global-Adapt
BY_CLASS, SCALED = "clipped by class", "all scaled alike"
# of a training, before LDAM's weights begin
DEFERRED = 0.8
ADJACENCY = "add or remove one record"
# pixels in [0, 1] over a half: a public choice, and the background stays zero
INPUTS = Inputs(mean=0.0, std=0.5)


@dataclasses.dataclass(frozen=True)
class Imbalance:
    """Balanced accuracy, recalls and an attack's AUC by class, by method and loss."""

    data: str = "mnist"
    """Any name that `rpjax train --data` takes; images are halved in each direction."""
    data_dir: Path | None = None
    """Folder that holds it."""
    largest: int = 2000
    """Records of each frequent class, the first half of the classes."""
    ratio: float = 100.0
    """Of that to the records of each rare class."""
    seeds: int = 3
    """Trainings of each kind, side by side."""
    methods: tuple[Method, ...] = ("plain", "strategy1", "dpsgd")
    attacked: tuple[Method, ...] = ("plain", "strategy1", "dpsgd")
    """With cross-entropy and balanced softmax each."""
    shadows: int = 16
    """Shadow models of the attack, an even number; 0 leaves the attack out."""
    targets: int = 8
    """Models that are attacked with them."""
    epsilon: float = 8.0
    """In total, a release of counts included."""
    delta: float = 1e-5
    count_noise: float = 4.0
    """Standard deviation of the noise on released counts, in records."""
    gamma: float = 1.0
    """Of Strategy I."""
    steps: int = 400
    """Of plain training and Strategy I, 64 records each."""
    private_steps: int = 200
    """Of DP-SGD, 512 records expected."""
    clip_norm: float = 6.0
    width: int = 32
    """Of the net."""
    quick: bool = False
    """A tiny run that shows how it goes, and nothing else."""
    seed: int = 0


TINY: dict[str, Any] = {
    "methods": ("dpsgd",),
    "attacked": ("plain",),
    "largest": 30,
    "ratio": 10.0,
    "seeds": 2,
    "shadows": 4,
    "targets": 2,
    "steps": 3,
    "private_steps": 3,
    "width": 4,
}
BATCH, RATE = 64, 0.02
PRIVATE_BATCH, PRIVATE_RATE, AVERAGE = 512, 0.5, 0.97


class Trained(NamedTuple):
    """Learner and length of a training; its epsilon and noise if it is private."""

    learner: Learner
    steps: int
    batch: int
    facts: Row


def measure(settings: Imbalance, watch: Watch) -> list[Row]:
    """Rows of two kinds, `what`: "classes" and "attack"."""
    if settings.quick:
        settings = dataclasses.replace(settings, **TINY)
    start, rows = time.monotonic(), []
    for row in _rows(settings, watch):
        rows.append({**row, "until_seconds": time.monotonic() - start})
    return rows


def _rows(settings: Imbalance, watch: Watch) -> Iterator[Row]:
    data = pooled(rp.data.load(settings.data, settings.data_dir))
    counts = step_counts(settings.largest, data.classes, settings.ratio)
    public = Counts(counts, "public")
    for method in settings.methods:
        base: Floats | None = None
        kinds = (BASE, BEST) if settings.quick else LOSSES
        if method == "dpsgd":
            rules = (BY_CLASS,) if settings.quick else (RELEASED, BY_CLASS, SCALED)
            kinds = (*kinds, *rules)
        for loss in kinds:
            watch(f"{NAMES[method]}, {loss}")
            facts, answers = _answers(settings, data, counts, method, loss)
            row = {"what": "classes", "method": method, "counts": list(counts)}
            tables = _tables(answers, data.test.labels)
            base = balanced_accuracy(tables) if base is None else base
            yield {**row, "loss": loss, **facts, **_figures(tables, base)}
            if loss == BASE:  # what the same nets give after a free correction
                shifted = losses.adjusted(jnp.asarray(answers), public)
                tables = _tables(np.asarray(shifted), data.test.labels)
                facts = {**facts, "legality": "post-processing, with public counts"}
                name = "cross-entropy, adjusted after"
                yield {**row, "loss": name, **facts, **_figures(tables, base)}
    if not settings.shadows:
        return
    cut = imbalance_attack.pool(data.train, counts, settings.seed)
    for method in settings.attacked:
        for loss in (BASE,) if settings.quick else (BASE, BEST):
            watch(f"attack on {NAMES[method]}, {loss}")
            trained = _trained(settings, counts, method, loss, public)
            found = imbalance_attack.by_class(
                *(trained.learner, cut, len(counts), settings.shadows),
                targets=settings.targets,
                seed=settings.seed,
                average=AVERAGE if method == "dpsgd" else None,
                batch_size=trained.batch,
                steps=trained.steps,
            )
            row = {"what": "attack", "method": method, "loss": loss}
            yield {**row, "counts": list(counts), **trained.facts, **found}


# ------------------------------------------------------------------------- training


def _answers(
    settings: Imbalance,
    data: rp.Dataset,
    counts: tuple[int, ...],
    method: Method,
    loss: str,
) -> tuple[Row, Floats]:
    """Facts, and log-probabilities (seeds, test records, classes).

    Released counts are drawn anew for each seed, whose loss is then its own.
    """
    seeds = list(range(settings.seed, settings.seed + settings.seeds))
    train = data.train
    lists = np.stack([with_counts(train.labels, counts, s).positions for s in seeds])
    if "released" not in loss:
        public = Counts(counts, "public")
        trained = _trained(settings, counts, method, loss, public)
        return trained.facts, _fitted(trained, data, lists, seeds, method)
    histogram, found = Histogram(settings.count_noise), []
    for own, seed in zip(lists, seeds, strict=True):
        # from the seed, as all noise of a benchmark: the record can be made again
        secret = hashlib.sha256(f"released counts {seed}".encode()).digest()
        released = histogram.release(train.labels[own], len(counts), secret)
        trained = _trained(settings, counts, method, loss, released)
        found.append(_fitted(trained, data, own[None], [seed], method)[0])
    return trained.facts, np.stack(found)


def _fitted(
    trained: Trained,
    data: rp.Dataset,
    lists: np.ndarray,
    seeds: list[int],
    method: Method,
) -> Floats:
    many = rp.side_by_side(trained.learner, len(seeds), mapping="vmap")
    run = rp.fit(
        *(many, data.train),
        lists=lists,
        seed=seeds,
        noise_seed="fixed",
        steps=trained.steps,
        batch_size=trained.batch,
    )
    if method == "dpsgd":
        run = run.averaged(AVERAGE)
    return np.asarray(run.answers(data.test), np.float32)


def _trained(
    settings: Imbalance,
    counts: tuple[int, ...],
    method: Method,
    name: str,
    known: Counts,
) -> Trained:
    """The learner of a method with a loss that knows these counts."""
    steps = settings.private_steps if method == "dpsgd" else settings.steps
    loss = _loss(name, known, steps)
    facts: Row = {"legality": getattr(loss, "legality", "per example")}
    noise = Additive(settings.gamma) if method == "strategy1" else None
    model = Residual(len(counts), settings.width, noise)
    if method != "dpsgd":
        tx = optax.sgd(RATE, momentum=0.9)
        learner = rp.supervised(model, tx, INPUTS, loss=loss)
        return Trained(learner, steps, BATCH, facts | {"epsilon": None})
    records = sum(counts)
    batch = min(PRIVATE_BATCH, records // 2)
    releases = loss.releases if isinstance(loss, losses.Loss) else ()
    multiplier = _multiplier(settings, records, batch, releases)
    learner = rp.dpsgd(
        *(model, rp.averaged(optax.sgd(PRIVATE_RATE), [AVERAGE]), INPUTS),
        clip_norm=settings.clip_norm,
        clipping=_clipping(name, settings.clip_norm, len(counts)),
        noise_multiplier=multiplier,
        batch_size=batch,
        engine="bookkeeping",
        loss=loss,
    )
    proved = guarantee(
        *(learner, sampler_for(learner, records, batch), steps, (1, 1, 1)),
        delta=settings.delta,
        noise_seed="fixed",
    )
    total = proved.epsilon
    if total is None:
        raise ValueError(f"{name}: nothing is proved of this training")
    if total > settings.epsilon * (1 + 1e-3):
        raise ValueError(f"{name}: epsilon is {total}, above {settings.epsilon}")
    facts |= {
        "epsilon": total,
        "delta": settings.delta,
        "adjacency": ADJACENCY,
        "noise_multiplier": multiplier,
        "count_noise": settings.count_noise if releases else None,
    }
    return Trained(learner, steps, batch, facts)


def _clipping(
    name: str, clip_norm: float, classes: int
) -> Flat | GlobalAdaptive | GroupClipping:
    if name == BY_CLASS:
        return GroupClipping(clip_norm, classes)
    if name == SCALED:  # the bound finds its place by itself
        return GlobalAdaptive(clip_norm, bound=2 * clip_norm)
    return Flat(clip_norm)


def _loss(name: str, known: Counts, steps: int) -> Any:
    # the net's logits have no bound, so LDAM's scale is one
    made: dict[str, Callable[[], Any]] = {
        **dict.fromkeys((BASE, BY_CLASS, SCALED), lambda: losses.cross_entropy),
        "focal": losses.focal,
        "class-weighted": lambda: losses.class_weighted(known),
        "class-balanced": lambda: losses.class_balanced(known),
        "LDAM-DRW": lambda: losses.deferred(
            known, round(DEFERRED * steps), base=losses.ldam(known, scale=1.0)
        ),
        BEST: lambda: losses.balanced_softmax(known),
        RELEASED: lambda: losses.balanced_softmax(known),
    }
    return made[name]()


@functools.cache
def _multiplier(
    settings: Imbalance, records: int, batch: int, releases: tuple[Release, ...]
) -> float:
    """The least noise at which training, and counts if released, cost the epsilon."""
    steps = settings.private_steps
    slots = PoissonBatches(records=records, batch_size=batch, steps=steps)
    return accounting.noise_multiplier_for(
        *(settings.epsilon, settings.delta, batch / records, steps),
        truncation=slots.truncation,
        releases=releases,
    )


# -------------------------------------------------------------------------- figures


def _tables(answers: Floats, labels: np.ndarray) -> np.ndarray:
    return np.stack([confusion(own, labels) for own in answers])


def _figures(tables: np.ndarray, base: Floats) -> Row:
    """Means over seeds with their t intervals; the gain is that on cross-entropy."""
    balanced = balanced_accuracy(tables)
    return {
        "n": len(tables),
        "accuracy": over_seeds(accuracy(tables)),
        "balanced_accuracy": over_seeds(balanced),
        "gain": over_seeds(balanced - base, -1.0),
        "g_mean": over_seeds(g_mean(tables)),
        "recalls": [over_seeds(own) for own in recalls(tables).T],
    }


def over_seeds(values: Any, least: float = 0.0) -> Row:
    """Mean and 95 % t interval, cut to [least, 1]."""
    own = np.asarray(values, np.float64)
    mean, n = float(own.mean()), len(own)
    half = float(scipy.stats.t.ppf(0.975, n - 1) * own.std(ddof=1) / np.sqrt(n))
    return {"value": mean, "low": max(mean - half, least), "high": min(mean + half, 1)}


def _percent(name: str, row: Row) -> str:
    if name not in row:
        return ""
    own = row[name]
    value, low, high = (100 * own[end] for end in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _epsilon(row: Row) -> str:
    return "" if row["epsilon"] is None else f"{row['epsilon']:.2f}"


BENCHMARK = Benchmark(
    Imbalance,
    measure,
    (
        ("Method", lambda row: NAMES[row["method"]]),
        ("Loss", lambda row: row["loss"]),
        ("ε", _epsilon),
        ("Balanced accuracy, %", lambda row: _percent("balanced_accuracy", row)),
        ("Gain", lambda row: _percent("gain", row)),
        ("Accuracy", lambda row: _percent("accuracy", row)),
        ("G-mean", lambda row: _percent("g_mean", row)),
        ("AUC, frequent", lambda row: _percent("frequent", row)),
        ("AUC, rare", lambda row: _percent("rare", row)),
    ),
    figure,
)
