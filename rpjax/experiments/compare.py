"""The main job: train, attack, prove and measure several methods on the same data.

`compare` goes through the methods: it trains a target and its shadow models, measures
and attacks the target, and puts the parts together. `rpjax.experiments.preparing`
refuses what cannot work before a file is written. Everything that a report shows is in
the dictionary that `compare` returns.
"""

import dataclasses
import datetime
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from rpjax import attacks, distributed
from rpjax.attacks import Bank
from rpjax.errors import InputError
from rpjax.experiments import imbalance
from rpjax.experiments.config import ExperimentConfig
from rpjax.experiments.costs import cost_facts, relative, time_side_by_side
from rpjax.experiments.environment import device, versions
from rpjax.experiments.measures import model_facts, training_facts, utility
from rpjax.experiments.methods import Plan
from rpjax.experiments.preparing import Prepared, prepare
from rpjax.experiments.runs import RunFolder
from rpjax.experiments.values import as_dict, config_hash
from rpjax.learners import Implementation
from rpjax.training import Query, Run, devices, fit, reporter
from rpjax.training.tuning import Choice

SCHEMA = "rpjax.results/1"


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
            run = target(ready, each, folder, console, as_plain(each, parts))
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


def as_plain(each: Plan, parts: list[dict[str, Any]]) -> Choice | None:
    """How plain training was computed, for the nets that are plain's but for noise.

    Their times are compared: two measurements might choose two ways, and the ratio
    would tell of these. None where nothing was chosen, or plain comes later.
    """
    ways = [p["cost"].get("convolution") for p in parts if p["name"] == "plain"]
    way = ways[0] if ways else None
    if way is None or each.name not in ("strategy1", "strategy2"):
        return None
    return Choice(Implementation(convolution=way), "as plain training")


def target(
    ready: Prepared,
    each: Plan,
    folder: RunFolder,
    console: Console,
    computed: Choice | None = None,
) -> Run:
    """Train a method's target, or pick it up where it was left."""
    with reporter("    target ", console) as report:
        run = fit(
            each.learner,
            ready.dataset.train,
            lists=ready.training_positions,
            report=report,
            checkpoints=folder.checkpoints(each.name),
            computed=computed,
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
            "member_class_counts": ready.member_class_counts,
            "imbalance": ready.imbalance and ready.imbalance.as_dict(),
        },
        "wall_seconds": seconds,
        "methods": relative(parts),
    }
