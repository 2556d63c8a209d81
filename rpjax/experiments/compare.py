"""The main job: train, attack, prove and measure several methods on the same data.

`compare` goes through the methods: it trains a target and its shadow models, measures
and attacks the target, and puts the parts together. `prepare` refuses what cannot work
before a file is written. Everything that a report shows is in the dictionary that
`compare` returns.
"""

import dataclasses
import datetime
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from rpjax import attacks, distributed, intervals, metrics
from rpjax.attacks import Bank
from rpjax.counts import Counts, tally
from rpjax.data import Dataset, load
from rpjax.data.imbalance import Imbalance
from rpjax.data.membership import Design, design
from rpjax.errors import InputError
from rpjax.experiments import imbalance
from rpjax.experiments.checks import check, check_crop
from rpjax.experiments.config import ExperimentConfig, as_dict, config_hash
from rpjax.experiments.environment import device, versions
from rpjax.experiments.methods import Plan, plan
from rpjax.experiments.presets import resolved, sized
from rpjax.experiments.runs import RunFolder
from rpjax.experiments.transfer import check_start
from rpjax.training import Query, Run, counter, devices, fit, reporter
from rpjax.training.loop import sampler_for, split_slots

SCHEMA = "rpjax.results/1"
TURNS = 7
SECONDS_PER_TURN = 0.25


class Prepared(NamedTuple):
    """A checked experiment, before anything is written.

    imbalance: how the data set was thinned out, if it was. counts: those of the classes
    that the loss knows, if it knows any.
    """

    config: ExperimentConfig
    dataset: Dataset
    design: Design
    plans: tuple[Plan, ...]
    imbalance: Imbalance | None = None
    counts: Counts | None = None

    @property
    def training_positions(self) -> np.ndarray:
        """Which of the pool's records the targets are trained on."""
        return _trained_on(self.config, self.dataset, self.design)

    @property
    def uneven(self) -> bool:
        """Whether classes are looked at one by one."""
        return self.imbalance is not None or imbalance.uneven(self.class_counts)

    @property
    def class_counts(self) -> list[int]:
        """Of the pool, as it was thinned out."""
        return _tally(self.dataset, np.arange(len(self.dataset.train)))


def _trained_on(
    config: ExperimentConfig, dataset: Dataset, membership: Design
) -> np.ndarray:
    if config.train_on == "all":
        return np.arange(len(dataset.train))
    return membership.members


def _tally(dataset: Dataset, positions: np.ndarray) -> list[int]:
    counts: list[int] = tally(dataset.train.labels[positions], dataset.classes).tolist()
    return counts


def prepare(
    config: ExperimentConfig,
    console: Console | None = None,
    *,
    kept: dict[str, Any] | None = None,
    secret: bytes | None = None,
) -> Prepared:
    """Load the data, fill in the preset and build every learner, or refuse.

    kept: class counts that were released before, for this very experiment; None draws
        them, from `secret` where that is given.
    """
    check(config)
    dataset = sized(config, loaded(config, console))
    dataset, thinned = imbalance.split(config, dataset)
    config = resolved(config, dataset)
    check_crop(config, dataset.shape)
    shadows = config.attack.shadows
    if shadows is None or shadows < 1:
        raise InputError(f"shadows is {shadows}; the attacks need at least 1")
    pool = len(dataset.train)
    membership = design(pool, shadows, config.seed, config.attack.protocol)
    positions = _trained_on(config, dataset, membership)
    records = len(positions)
    if kept is None:
        secret = secret or imbalance.secret_of(config)
        counts = imbalance.known(config, dataset, positions, secret)
    else:
        counts = imbalance.from_dict(kept)
    plans = tuple(
        plan(config, name, dataset.classes, records, counts) for name in config.methods
    )
    for each in plans:
        check_start(config.transfer, dataset, each.learner.mechanism.private)
        each.guarantee(dataset.shape)
        sampler = sampler_for(each.learner, each.records, each.batch_size)
        devices.layout(
            config.training.devices, each.learner.members, split_slots(sampler)
        )
    return Prepared(config, dataset, membership, plans, thinned, counts)


def loaded(config: ExperimentConfig, console: Console | None = None) -> Dataset:
    """The configured data set, all of it."""
    options = config.data
    size = options.image_size
    with counter("images", console) as tell:
        return load(
            options.name,
            options.dir,
            image_size=None if size is None else (size, size),
            stored=options.stored,
            broken=options.broken,
            workers=options.workers,
            tell=tell,
        )


def compare(
    config: ExperimentConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the experiment, write results.json into `out` and return its content.

    Targets are attacked if the configuration trains them on the members' part alone.
    """
    began = time.monotonic()
    console = console or Console()
    ready, folder = start(
        config, out, resume=resume, overwrite=overwrite, console=console
    )
    parts: list[dict[str, Any]] = []
    runs: dict[str, Run] = {}
    for number, each in enumerate(ready.plans, 1):
        part = distributed.shared(folder.finished(each.name))
        if part is None:
            console.print(f"{number}/{len(ready.plans)} {each.label}", style="bold")
            run = target(ready, each, folder, console)
            part = measured(ready, each, run)
            scores: dict[str, np.ndarray] = {}
            if ready.config.train_on == "members":
                bank = shadow_bank(ready, each, folder, console)
                part["exposure"], scores = exposed(ready, run, bank)
            part = distributed.shared(part)  # times differ between processes
            folder.finish(each.name, part, scores)
            runs[each.name] = run
            console.print(f"    {summary(part)}")
        parts.append(part)
    time_side_by_side(parts, runs)
    results = assembled(ready, parts, time.monotonic() - began)
    folder.conclude(results)
    return results


def start(
    config: ExperimentConfig,
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    console: Console | None = None,
) -> tuple[Prepared, RunFolder]:
    """Check everything that can be checked, then open the folder."""
    options = {"resume": resume, "overwrite": overwrite}
    folder = RunFolder(out)
    distributed.together(lambda: folder.check(**options), only_first=True)
    kept = None if overwrite else released_before(config, folder)
    secret = _secret(config)
    ready = distributed.together(
        lambda: prepare(config, console, kept=kept, secret=secret)
    )
    assert ready is not None
    counts = ready.counts
    distributed.alike("the configuration", config_hash(ready.config))
    distributed.alike("the data", ready.dataset.data_hash)
    distributed.together(
        lambda: RunFolder.start(out, ready.config, **options), only_first=True
    )
    if kept is None and counts is not None and imbalance.releases(config.loss):
        # before any training: what is resumed must not release them once more
        values = imbalance.as_dict(counts)
        distributed.together(lambda: folder.keep_counts(values), only_first=True)
    return ready, folder


def released_before(
    config: ExperimentConfig, folder: RunFolder
) -> dict[str, Any] | None:
    """The class counts that the experiment in a folder has released, if it has to.

    Raises:
        InputError: a training was begun, and they are gone.
    """
    if not imbalance.releases(config.loss):
        return None
    kept: dict[str, Any] | None = distributed.shared(folder.counts())
    begun = distributed.shared((folder.path / "checkpoints").exists())
    if begun and kept is None:
        raise InputError(
            f"{folder.path} has begun a training with released class counts, and its "
            "counts.json is gone; another release would be paid for again: start with "
            "--overwrite"
        )
    return kept


def _secret(config: ExperimentConfig) -> bytes:
    """One for all processes."""
    own = np.frombuffer(imbalance.secret_of(config), np.uint8)
    return distributed.from_first(own).tobytes()


def target(ready: Prepared, each: Plan, folder: RunFolder, console: Console) -> Run:
    """Train a method's target, or pick it up where it was left."""
    with reporter("    target ", console) as report:
        run = fit(
            each.learner,
            ready.dataset.train,
            lists=ready.training_positions,
            report=report,
            checkpoints=folder.checkpoints(each.name),
            **training_options(ready, each),
        )
    told(run, console)
    return each.released(converged(run, each))


def shadow_bank(
    ready: Prepared, each: Plan, folder: RunFolder, console: Console
) -> Bank:
    """Train a method's shadow models, or pick them up."""
    count = len(ready.design.shadow_members)
    with reporter("    shadows", console) as report:
        bank = attacks.shadows(
            each.learner,
            ready.dataset.train,
            ready.design,
            report=report,
            checkpoints=folder.checkpoints(f"{each.name}-{count}-shadows"),
            **training_options(ready, each),
        )
    told(bank.run, console)
    released = each.released(converged(bank.run, each))
    return dataclasses.replace(bank, run=released)


def told(run: Run, console: Console) -> None:
    """Say how a run was computed, and why so."""
    if run.choice is not None:
        console.print(f"    computed with {run.choice}", style="dim")


def converged(run: Run, each: Plan) -> Run:
    """The run, unless it left numbers that no figure can be computed from."""
    leaves = [*jax.tree.leaves(run.state.params), np.array(run.history["loss"])]
    if all(np.isfinite(leaf).all() for leaf in map(np.asarray, leaves)):
        return run
    rate = "dp.learning_rate" if each.name == "dpsgd" else "training.learning_rate"
    raise InputError(
        f"{rate} is too large: {each.label} diverged to numbers that are not finite; "
        "start with a smaller one and --overwrite"
    )


def training_options(ready: Prepared, each: Plan) -> dict[str, Any]:
    """What `fit` takes for a method, for its target and its shadow models."""
    return {
        "batch_size": each.batch_size,
        "steps": each.steps,
        "seed": ready.config.seed,
        "noise_seed": ready.config.training.noise_seed,
        "budget": each.budget,
        "devices": ready.config.training.devices,
        "workers": ready.config.data.workers,
    }


def measured(ready: Prepared, each: Plan, run: Run) -> dict[str, Any]:
    """A method's part of results.json, as yet without attacks."""
    return {
        "name": each.name,
        "label": each.label,
        "description": each.description,
        "model": model_facts(ready.config, run),
        "training": training_facts(run)
        | {"average": each.average}
        | {"loss": imbalance.described(ready.config.loss, each.loss, each.counts)},
        "utility": utility(ready, run),
        "cost": cost_facts(run),
        "guarantee": each.certified(run.guarantee(ready.config.dp.delta)).as_dict(),
        "exposure": [],
    }


def summary(part: dict[str, Any]) -> str:
    """One line on a finished method."""
    line = f"test accuracy {part['utility']['test_accuracy']['value']:.1%}"
    if part["exposure"]:
        aucs = [a["auc"]["value"] for a in part["exposure"][0]["attacks"]]
        line += f", strongest attack AUC {max(aucs):.3f}"
    return line


def exposed(
    ready: Prepared, run: Run, bank: Bank
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Every attack under every query: as deployed, and with any noise off."""
    deployed = Query(draws=ready.config.attack.draws)
    noisy = run.learner.mechanism.noisy
    queries = [deployed, Query(noise=False)] if noisy else [deployed]
    parts, scores = [], {}
    for query in queries:
        threat = query.threat if noisy else "T1"
        found = attacks.expose(run, bank, ready.dataset.train, query, ready.config.seed)
        for name, exposure in found.items():
            prefix = f"{threat}_{name}"
            scores[f"{prefix}_members"] = exposure.member_scores
            scores[f"{prefix}_non_members"] = exposure.non_member_scores
        parts.append(
            {
                "threat": threat,
                "query": query.described(noisy),
                "members": len(ready.design.members),
                "non_members": len(ready.design.non_members),
                "attacks": [exposure.as_dict() for exposure in found.values()],
                "by_class": strongest_by_class(ready, found),
            }
        )
    return parts, scores


def strongest_by_class(
    ready: Prepared, found: dict[str, attacks.Exposure]
) -> dict[str, Any]:
    """The attack with the largest AUC on all records, class by class."""
    name, best = max(found.items(), key=lambda each: each[1].auc.value)
    inside, outside = ready.design.members, ready.design.non_members
    scores = np.concatenate([best.member_scores, best.non_member_scores])
    table = attacks.by_class(
        scores[None],
        (np.arange(len(scores)) < len(inside))[None],
        ready.dataset.train.labels[np.concatenate([inside, outside])],
        ready.dataset.classes,
        seed=ready.config.seed,
    )
    return {"attack": name, **table}


def utility(ready: Prepared, run: Run, query: Query | None = None) -> dict[str, Any]:
    """Accuracy on test and training records, and the gap; as deployed by default."""
    query = query or Query(draws=ready.config.attack.draws)
    labels = ready.dataset.test.labels
    answers = run.answers(ready.dataset.test, query)
    hits = answers.argmax(-1) == labels
    test = intervals.clopper_pearson(int(hits.sum()), hits.size)
    train = run.evaluate(ready.dataset.train.take(ready.training_positions), query)
    gap = intervals.difference_of_proportions(
        round(train.value * train.n), train.n, round(test.value * test.n), test.n
    )
    quiet = None
    if run.learner.mechanism.noisy:
        quiet = run.evaluate(ready.dataset.test, Query(noise=False)).as_dict()
    return {
        "test_accuracy": test.as_dict(),
        "train_accuracy": train.as_dict(),
        "generalization_gap": gap.as_dict(),
        "noise_off_test_accuracy": quiet,
        "classes": class_figures(answers, labels) if ready.uneven else None,
    }


def class_figures(answers: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Test records and recall of each class, and balanced accuracy, with intervals.

    answers: (n, classes). A class without test records has no recall, and then there
    is no balanced accuracy.
    """
    # by the classes alone: an ensemble's log-probability may be that of nothing
    chosen = np.eye(answers.shape[-1])[answers.argmax(-1)]
    table = metrics.confusion(chosen, labels)
    recalls = metrics.recalls_with_intervals(table)
    balanced = metrics.bootstrapped(metrics.balanced_accuracy, table)
    return {
        "test_records": table.sum(1).tolist(),
        "balanced_accuracy": None if balanced is None else balanced.as_dict(),
        "recalls": [None if each is None else each.as_dict() for each in recalls],
    }


def net_name(config: ExperimentConfig) -> str:
    """The net in a word."""
    options = config.model
    if options.width is not None:
        return f"wrn-{options.depth}-{options.width}"
    name = f"resnet{options.depth}"
    if options.channels is None:
        return name
    return f"{name}, {options.channels} channels"


def model_facts(config: ExperimentConfig, run: Run) -> dict[str, Any]:
    """The net in a line, where it started and what of it was trained."""
    facts = run.learner.mechanism
    size = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    return {
        "name": net_name(config),
        "parameters": int(size),
        "members": facts.members,
        "start": facts.pretrained,
        "trained": facts.trained_words,
    }


def training_facts(run: Run) -> dict[str, Any]:
    """How long the target was trained, and its history."""
    return {
        "steps": run.steps,
        "epochs": run.epochs,
        "noise_multiplier": run.learner.mechanism.noise_multiplier,
        "clip_norm": run.learner.mechanism.clip_norm,
        "clipping": run.learner.mechanism.clipping,
        "sampling": run.sampler.kind,
        "capacity": run.sampler.capacity,
        "batch_size": run.sampler.batch_size,
        "budget": None if run.budget is None else dataclasses.asdict(run.budget),
        "stopped_at_budget": run.stopped_at_budget,
        "seconds": run.cost.train_seconds,
        "compile_seconds": run.cost.compile_seconds,
        "history": run.history,
    }


def cost_facts(run: Run) -> dict[str, Any]:
    """Time and memory; what is relative to plain training is filled in at the end.

    A run that was only picked up from its last checkpoint has taken no step to time.
    """
    steps_per_epoch = run.records / run.sampler.batch_size
    seconds = None if run.stopwatch is None else run.cost.step_seconds
    return {
        "step_seconds": seconds,
        "epoch_seconds": seconds and seconds * steps_per_epoch,
        "relative_time": None,
        "memory_bytes": run.cost.memory_bytes,
        "memory_kind": "compiled program: arguments (data included) and temporaries",
        "relative_memory": None,
        "timing_note": "median step of the target's training, compile time apart",
        "computed": None if run.choice is None else str(run.choice),
    }


def assembled(
    ready: Prepared, parts: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """The whole of results.json."""
    config, dataset = ready.config, ready.dataset
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["rpjax", *sys.argv[1:]]),
        "seed": config.seed,
        "noise_seed": config.training.noise_seed,
        "versions": versions(),
        "device": device(devices.number(config.training.devices)),
        "config": as_dict(config),
        "config_hash": config_hash(config),
        "data": {
            "name": dataset.name,
            "source": dataset.source,
            "classes": dataset.classes,
            "shape": list(dataset.shape),
            "pool_records": len(dataset.train),
            "members": len(ready.training_positions),
            "non_members": (
                len(ready.design.non_members) if config.train_on == "members" else 0
            ),
            "test_records": len(dataset.test),
            "data_hash": dataset.data_hash,
            "class_names": list(dataset.class_names),
            "class_counts": ready.class_counts,
            "member_class_counts": _tally(dataset, ready.training_positions),
            "imbalance": ready.imbalance and ready.imbalance.as_dict(),
        },
        "wall_seconds": seconds,
        "methods": relative(parts),
    }


def time_side_by_side(parts: list[dict[str, Any]], runs: dict[str, Run]) -> None:
    """Time all methods' steps in turns, so that they share whatever else goes on.

    Needs every target's compiled program, so parts that were picked up from disk keep
    the times of their own training.
    """
    clocks = {name: run.stopwatch for name, run in runs.items()}
    if len(parts) < 2 or any(clocks.get(p["name"]) is None for p in parts):
        return
    costs = {p["name"]: p["cost"] for p in parts}
    steps = {
        name: max(1, round(SECONDS_PER_TURN / cost["step_seconds"]))
        for name, cost in costs.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(TURNS):
        for name, clock in clocks.items():
            assert clock is not None
            seconds[name].append(clock(steps[name]) / steps[name])
    for name, cost in costs.items():
        per_epoch = runs[name].records / runs[name].sampler.batch_size
        cost["step_seconds"] = statistics.median(seconds[name])
        cost["epoch_seconds"] = cost["step_seconds"] * per_epoch
        cost["timing_note"] = (
            f"median of {TURNS} turns of some {SECONDS_PER_TURN} s, all methods in "
            "turn in one process, compile time apart"
        )


def relative(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts with each cost also relative to plain training's, if it is there."""
    plain = next((p["cost"] for p in parts if p["name"] == "plain"), None)
    if plain is None:
        return parts
    return [part | {"cost": _relative_cost(part["cost"], plain)} for part in parts]


def _relative_cost(cost: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    def ratio(name: str) -> float | None:
        return cost[name] / plain[name] if cost[name] and plain[name] else None

    return cost | {
        "relative_time": ratio("epoch_seconds"),
        "relative_memory": ratio("memory_bytes"),
    }
