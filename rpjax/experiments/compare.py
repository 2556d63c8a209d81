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

from rpjax import attacks, distributed, intervals
from rpjax.attacks import Bank
from rpjax.data import Dataset, load
from rpjax.data.membership import Design, design
from rpjax.errors import InputError
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
    """A checked experiment, before anything is written."""

    config: ExperimentConfig
    dataset: Dataset
    design: Design
    plans: tuple[Plan, ...]

    @property
    def training_positions(self) -> np.ndarray:
        """Which of the pool's records the targets are trained on."""
        if self.config.train_on == "all":
            return np.arange(len(self.dataset.train))
        return self.design.members


def prepare(config: ExperimentConfig, console: Console | None = None) -> Prepared:
    """Load the data, fill in the preset and build every learner, or refuse."""
    check(config)
    dataset = sized(config, loaded(config, console))
    config = resolved(config, dataset)
    check_crop(config, dataset.shape)
    shadows = config.attack.shadows
    if shadows is None or shadows < 1:
        raise InputError(f"shadows is {shadows}; the attacks need at least 1")
    pool = len(dataset.train)
    membership = design(pool, shadows, config.seed, config.attack.protocol)
    records = pool if config.train_on == "all" else len(membership.members)
    plans = tuple(
        plan(config, name, dataset.classes, records) for name in config.methods
    )
    for each in plans:
        check_start(config.transfer, dataset, each.learner.mechanism.private)
        each.guarantee(dataset.shape)
        sampler = sampler_for(each.learner, each.records, each.batch_size)
        devices.layout(
            config.training.devices, each.learner.members, split_slots(sampler)
        )
    return Prepared(config, dataset, membership, plans)


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
    ready = distributed.together(lambda: prepare(config, console))
    assert ready is not None
    distributed.alike("the configuration", config_hash(ready.config))
    distributed.alike("the data", ready.dataset.data_hash)
    distributed.together(
        lambda: RunFolder.start(out, ready.config, **options), only_first=True
    )
    return ready, folder


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
        "training": training_facts(run) | {"average": each.average},
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
    test = run.evaluate(ready.dataset.test, query)
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
