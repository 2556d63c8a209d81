"""ResNet-18 by DP-SGD in five frameworks: loss, accuracy and seconds of each epoch.

Every framework has its own environment and its own script, which trains the same net
from the same parameters on the same records, with as many threads. Epochs are taken in
turns, and a small net stands beside the large one: is a framework slow, or was it
compilation, or the small net?
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.dpsgd import environments, expected
from benchmarks.dpsgd.task import flat
from benchmarks.frameworks.course import Course
from benchmarks.frameworks.entrants import ENTRANTS, FRAMEWORKS
from benchmarks.frameworks.picture import figure
from benchmarks.frameworks.race import Race, rows
from benchmarks.processes import cores, fresh, on_cpu
from benchmarks.pytorch import start
from benchmarks.workloads import net
from rpjax.batches import poisson_slots
from rpjax.data import Dataset, load
from rpjax.errors import InputError
from rpjax.privacy import dpsgd as accounting
from rpjax.report import formats

CLIP_NORM = 1.0


@dataclass(frozen=True)
class Frameworks:
    """Whole trainings by DP-SGD in five frameworks: curves, seconds an epoch."""

    data: tuple[str, ...] = ("mnist", "cifar10")
    """Data sets, named as for `rpjax train --data`."""
    data_dir: Path | None = None
    """Folder of their files."""
    models: tuple[str, ...] = ("resnet18", "tiny")
    """Nets: the one that is asked about, and a small one beside it."""
    channels: int | None = None
    """Of the first stage of a resnetN, each stage twice as many; left out: its own."""
    libraries: tuple[str, ...] = FRAMEWORKS
    """Frameworks; one that is not installed is a row that says so."""
    environments: Path = Path(".venv-peers")
    """Folder of the frameworks' virtual environments, those of `dpsgd`."""
    prepare: bool = False
    """First make the environments that are missing: minutes, and gigabytes."""
    epsilon: float = 10.0
    delta: float = 1e-6
    noise_multiplier: float = 1.0
    epochs: int | None = None
    """Left out: as many whole ones as `epsilon` allows."""
    batch_size: int = 512
    """Expected; batches are Poisson samples."""
    learning_rate: float = 0.1
    """Of SGD with a momentum of 0.9."""
    records: int | None = None
    """Of the training records, the first so many; left out: all."""
    test_records: int | None = None
    threads: int = 0
    """Of each; 0 is all cores."""
    quick: bool = False
    """Digits, a tiny net, two epochs of 64 records: shows how it goes."""
    seed: int = 0


def measure(settings: Frameworks, watch: Watch) -> list[Row]:
    """A row for each data set, net and framework."""
    options = _quicker(settings) if settings.quick else settings
    check(options)
    accelerator = not on_cpu()
    entrants = [one for one in ENTRANTS if one.library in options.libraries]
    pythons = environments.pythons(
        dict.fromkeys(one.peer for one in entrants if one.peer),
        options.environments,
        options.prepare,
        accelerator,
        watch,
    )
    peers, found = environments.peers(accelerator), []
    with tempfile.TemporaryDirectory() as folder:
        for course, facts in _courses(options, Path(folder), accelerator, watch):
            race = Race(f"{facts['data']}, {course.model}", pythons, course)
            for one, row in rows(race, entrants, not accelerator, watch).items():
                wanted = peers[one.peer].requirements if one.peer else ()
                told = [word for word in wanted if not word.startswith(("-e", "/"))]
                identity = {"library": one.library, "way": one.way, "asked_for": told}
                found.append({**identity, **facts, **row})
    return found


def check(settings: Frameworks) -> None:
    for library in settings.libraries:
        if library not in FRAMEWORKS:
            raise InputError(
                f"libraries names {library!r}; known: {', '.join(FRAMEWORKS)}"
            )
    for model in settings.models:
        if net(model, **_width(model, settings)).bottleneck:
            raise InputError(
                f"models names {model!r}; the copies in other frameworks have basic "
                "blocks alone, as of resnet8 to resnet34, wrn-N-K and tiny"
            )
    if settings.epochs is not None and settings.epochs < 1:
        raise InputError(f"epochs is {settings.epochs}; it must be >= 1, or left out")


def _quicker(settings: Frameworks) -> Frameworks:
    return replace(
        settings,
        data=("digits",),
        models=("tiny",),
        epochs=settings.epochs or 2,
        batch_size=16,
        records=64,
        test_records=64,
    )


def _width(model: str, settings: Frameworks) -> dict[str, Any]:
    return {"channels": settings.channels} if model.startswith("resnet") else {}


def _courses(
    settings: Frameworks, folder: Path, accelerator: bool, watch: Watch
) -> Iterator[tuple[Course, Row]]:
    """What is trained, and what its rows say of it: each net on each data set."""
    for name in settings.data:
        data = _cut(load(name, settings.data_dir), settings)
        watch(f"{name}: how many steps epsilon {settings.epsilon:g} allows")
        schedule = _schedule(settings, len(data.train))
        for model in settings.models:
            file = folder / "course.npz"
            facts = fresh(
                *(_write, file, data, model, _width(model, settings), settings.seed),
                environment={"JAX_PLATFORMS": "cpu"},
            )
            parameters = facts.pop("parameters")
            course = Course(
                way="auto",
                model=model,
                batch_size=settings.batch_size,
                records=len(data.train),
                dtype="float32",
                clip_norm=CLIP_NORM,
                noise_multiplier=settings.noise_multiplier,
                threads=settings.threads or cores(),
                accelerator=accelerator,
                steps=schedule["steps"],
                seed=settings.seed,
                data=str(file),
                learning_rate=settings.learning_rate,
                epoch_steps=schedule["epoch_steps"],
                slots=poisson_slots(len(data.train), settings.batch_size),
                delta=settings.delta,
                **facts,
            )
            shown = {
                "data": data.name,
                "model": model,
                "parameters": parameters,
                "records": len(data.train),
                "test_records": len(data.test),
            }
            yield course, {**shown, **schedule}


def _cut(data: Dataset, settings: Frameworks) -> Dataset:
    """The first records of each side; an epoch needs two steps, the first compiles."""
    train = data.train.take(np.arange(len(data.train))[: settings.records])
    test = data.test.take(np.arange(len(data.test))[: settings.test_records])
    if not 1 <= settings.batch_size <= len(train) // 2:
        raise InputError(
            f"batch_size is {settings.batch_size}; it must be 1 to {len(train) // 2}, "
            f"half of the {len(train)} training records of {data.name}"
        )
    return replace(data, train=train, test=test)


def _schedule(settings: Frameworks, records: int) -> Row:
    """Steps, what they spend, and how many would spend all; one accountant for all."""
    rate, noise = settings.batch_size / records, settings.noise_multiplier
    most = accounting.steps_for(settings.epsilon, settings.delta, noise, rate)
    epoch_steps = round(1 / rate)
    epochs = settings.epochs or max(1, most // epoch_steps)
    steps = epochs * epoch_steps
    return {
        "epochs": epochs,
        "epoch_steps": epoch_steps,
        "steps": steps,
        "sampling_probability": rate,
        "noise_multiplier": noise,
        "delta": settings.delta,
        "epsilon": accounting.epsilon(noise, rate, steps, settings.delta),
        "target_epsilon": settings.epsilon,
        "steps_to_target": most,
        "epochs_to_target": most / epoch_steps,
    }


def _write(
    file: Path, data: Dataset, model: str, width: dict[str, Any], seed: int
) -> Row:
    """Records and first parameters, for all; what a course says of its net."""
    own = net(model, convolution="xla", **width)
    shape = tuple(data.train.images.shape[1:])
    params = flat(start(own, shape, seed), "parameters")
    np.savez(
        file,
        images=data.train.images,
        labels=data.train.labels.astype(np.int64),
        test_images=data.test.images,
        test_labels=data.test.labels.astype(np.int64),
        **params,
    )
    count = sum(leaf.size for leaf in params.values())
    return {**expected.facts_of(own, shape), "parameters": count}


def last(row: Row, name: str) -> float | None:
    return row[f"{name}_by_epoch"][-1] if row["reason"] is None else None


def outcome(row: Row) -> str:
    return row["reason"] or cells.share(last(row, "test_accuracy"))


def loss(row: Row) -> str:
    value = last(row, "train_loss")
    return formats.NONE if value is None else f"{value:.3f}"


BENCHMARK = Benchmark(
    Frameworks,
    measure,
    (
        ("Data", lambda row: row["data"]),
        ("Net", lambda row: row["model"]),
        ("Framework", lambda row: row["library"]),
        ("Epoch: median [least, most]", cells.median),
        ("Relative", lambda row: cells.times(row.get("relative"))),
        ("First step", lambda row: formats.seconds(row.get("first_step_seconds"))),
        ("In all", lambda row: formats.seconds(row.get("total_seconds"))),
        ("Train loss", loss),
        ("Test accuracy", outcome),
        ("ε", lambda row: f"{row['epsilon']:.2f}"),
        ("ε by its own", lambda row: f"{row.get('epsilon_own', float('nan')):.2f}"),
    ),
    figure,
)
