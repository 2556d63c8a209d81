"""The audit: canaries planted by coins, models by the hundred, all attacks, bounds.

The protocol of Aerni, Zhang and Tramèr (CCS 2024, arXiv 2404.17399), with a second set
of models for a bound that is one: set A, of balanced coins, makes the attacks and is
attacked, two models at a time by the others; what is strongest there is chosen. Set B,
of independent coins, is then looked at once.
"""

import dataclasses
import datetime
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from rpjax import audits
from rpjax.attacks.canaries import HARMLESS
from rpjax.attacks.mixture import Mixture, plant_kinds
from rpjax.attacks.questions import Question, View
from rpjax.attacks.shadow_models import ShadowModels, shadow_models
from rpjax.attacks.suite import questions
from rpjax.audits import Coins
from rpjax.data.records import Dataset, Records
from rpjax.data.sources import load
from rpjax.errors import InputError
from rpjax.experiments import audit_config, verdicts
from rpjax.experiments.audit_config import AuditConfig, AuditExperiment
from rpjax.experiments.checks import check, check_crop
from rpjax.experiments.config import ExperimentConfig
from rpjax.experiments.environment import device, versions
from rpjax.experiments.examination import Examined, Options, examined
from rpjax.experiments.imbalance import knows_counts
from rpjax.experiments.measures import net_name
from rpjax.experiments.methods import Plan, plan
from rpjax.experiments.preparing import loaded
from rpjax.experiments.presets import COMMON, fill, preset, sized
from rpjax.experiments.runs import AuditFolder
from rpjax.experiments.transfer import check_start
from rpjax.experiments.values import as_dict, config_hash
from rpjax.files import write_arrays
from rpjax.training import Query, devices, reporter

SCHEMA = "rpjax.attacks/1"
UTILITY = ("test", "train")


class Audited(NamedTuple):
    """A checked audit, before anything is written."""

    experiment: AuditExperiment
    dataset: Dataset
    mixture: Mixture
    coins: dict[str, Coins]
    plans: tuple[Plan, ...]

    @property
    def config(self) -> ExperimentConfig:
        """What is trained."""
        return self.experiment.config

    @property
    def options(self) -> AuditConfig:
        """What is planted and asked."""
        return self.experiment.audit


def prepare_audit(
    experiment: AuditExperiment, console: Console | None = None
) -> Audited:
    """Load the data, plant the canaries and build every learner, or refuse."""
    audit_config.check(experiment.audit)
    check(experiment.config)
    _check_classes(experiment.config)
    experiment, dataset = _resolved(experiment, console)
    config, options = experiment.config, experiment.audit
    check_crop(config, dataset.shape)
    assert options.canaries is not None
    mixture = plant_kinds(
        dataset.train,
        options.kinds,
        options.canaries,
        seed=config.seed,
        others=_others(experiment),
    )
    count = len(mixture.canaries)
    coins = {
        "A": audits.balanced(options.models, count, config.seed),
        "B": audits.independent(options.audited, count, config.seed),
    }
    membership = mixture.membership(coins["A"])
    plans = []
    for name in config.methods:
        # the probability of Poisson's coins must not tell how many canaries are in
        most = membership.lists().shape[1]
        records = most if name == "dpsgd" else round(membership.expected)
        each = plan(config, name, dataset.classes, records)
        check_start(config.transfer, dataset, each.learner.mechanism.private)
        each.guarantee(dataset.shape)
        plans.append(each)
    return Audited(experiment, dataset, mixture, coins, tuple(plans))


def _check_classes(config: ExperimentConfig) -> None:
    """Canaries are planted among data as they are, for a loss that knows none of it."""
    if config.imbalance.split != "none":
        raise InputError(
            f"imbalance.split is {config.imbalance.split}; an audit plants canaries "
            "among the data as they are: leave it out"
        )
    if knows_counts(config.loss):
        raise InputError(
            f"loss.name is {config.loss.name}, which knows class counts; those of "
            "models with other canaries differ: audit a loss without them"
        )


def _resolved(
    experiment: AuditExperiment, console: Console | None
) -> tuple[AuditExperiment, Dataset]:
    """The data, and everything that was left open filled in for them."""
    config, options = experiment.config, experiment.audit
    dataset = loaded(config, console)
    digits = dataset.name == "digits"
    own = audit_config.DIGITS_TRAINING if digits else audit_config.IMAGES_TRAINING
    noise = config.dp.noise_multiplier
    if options.dp_noise == "utility" and noise is None:
        tuned = audit_config.UTILITY_NOISE["digits" if digits else "images"]
        config = fill(config, {"dp": {"noise_multiplier": tuned}})
    if config.model.width is not None:
        own = own | {"model": {}}  # a wide net's channels follow from its width
    config = fill(config, own, preset(dataset), COMMON)
    dataset = sized(config, dataset)
    defaults = audit_config.DIGITS if digits else audit_config.IMAGES
    left = {k: v for k, v in defaults.items() if getattr(options, k) is None}
    return AuditExperiment(config, dataclasses.replace(options, **left)), dataset


def _others(experiment: AuditExperiment) -> Records | None:
    options, data = experiment.audit, experiment.config.data
    if options.others is None:
        return None
    size = data.image_size
    return load(
        options.others,
        options.others_dir or data.dir,
        image_size=None if size is None else (size, size),
    ).train


def audit(
    experiment: AuditExperiment,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Carry out the audit, write attacks.json into `out` and return its content.

    Beside it attacks.npz holds every score and coin, from which the figures follow.

    Raises:
        InputError: for what cannot be audited, several processes among it.
    """
    began = time.monotonic()
    console = console or Console()
    if jax.process_count() > 1:
        raise InputError(
            f"{jax.process_count()} processes take part; an audit is carried out by "
            "one, over all its devices"
        )
    AuditFolder(out).check(resume=resume, overwrite=overwrite)
    ready = prepare_audit(experiment, console)
    folder = AuditFolder.start(
        out, ready.experiment, resume=resume, overwrite=overwrite
    )
    parts: list[dict[str, Any]] = []
    undefended: dict[str, ShadowModels] | None = None
    for number, each in enumerate(ready.plans, 1):
        part = folder.finished(each.name)
        if part is None:
            title = f"{number}/{len(ready.plans)} {each.label}"
            console.print(title, style="bold", highlight=False)
            start = time.monotonic()
            models = {
                name: trained(ready, each, folder, name, console) for name in "AB"
            }
            seconds = time.monotonic() - start
            if each.name != "plain" and undefended is None:
                undefended = _undefended(ready, folder, console)
            found = examined(
                each.learner.mechanism,
                ready.mixture,
                ready.coins,
                models,
                about(ready, each),
                shadows=undefended,
                proved=each.guarantee(ready.dataset.shape),
                options=Options(
                    delta=ready.config.dp.delta,
                    confidence=ready.options.confidence,
                    seed=ready.config.seed,
                ),
                classes=ready.dataset.classes,
            )
            part = _part(ready, each, models["A"], found, seconds)
            folder.finish(each.name, part, found.arrays)
            if each.name == "plain":
                undefended = models
            console.print(f"    {verdicts.line(part)}", highlight=False)
        parts.append(part)
    results = _assembled(ready, parts, time.monotonic() - began)
    write_arrays(out / "attacks.npz", _all_arrays(ready, folder))
    folder.conclude(results)
    return results


def asked(ready: Audited, each: Plan) -> tuple[dict[str, Question], dict[str, Records]]:
    """The questions for a method's models, and what each is about."""
    options, shift = ready.options, ready.options.shift
    assert shift is not None
    moves = (0, -shift, shift)
    flips = (False, True) if ready.config.training.flip else (False,)
    views = tuple(
        View(f, down, right) for f in flips for down in moves for right in moves
    )
    mechanism = each.learner.mechanism
    found = questions(
        noisy=mechanism.noisy,
        members=mechanism.members if each.learner.part is not None else 1,
        draws=options.draws,
        views=views,
    )
    records = dict.fromkeys(found, ready.mixture.asked)
    train = ready.mixture.pool.take(ready.mixture.fixed[: len(ready.dataset.test)])
    for name, part in zip(UTILITY, (ready.dataset.test, train), strict=True):
        found[name], records[name] = Question(Query()), part
    return found, records


def about(ready: Audited, each: Plan) -> tuple[str, ...]:
    """The questions that are about canaries."""
    return tuple(name for name in asked(ready, each)[0] if name not in UTILITY)


def trained(
    ready: Audited, each: Plan, folder: AuditFolder, name: str, console: Console
) -> ShadowModels:
    """One method's models of set A or B, trained or picked up."""
    found, records = asked(ready, each)
    membership = ready.mixture.membership(ready.coins[name])
    with reporter(f"    set {name} ({len(membership.inside)})", console) as report:
        return shadow_models(
            each.learner,
            membership,
            batch_size=each.batch_size,
            steps=each.steps,
            asked=records,
            questions=found,
            seed=ready.config.seed,
            name=f"{each.name} {name}",
            folder=folder.shadows(each.name, name),
            chunk=ready.options.chunk,
            about={"configuration": config_hash(ready.config)},
            devices=ready.config.training.devices or "all",
            report=report,
        )


def _undefended(
    ready: Audited, folder: AuditFolder, console: Console
) -> dict[str, ShadowModels] | None:
    """The models of plain training, if it is audited; finished ones are picked up."""
    for each in ready.plans:
        if each.name == "plain" and folder.finished("plain") is not None:
            return {"A": trained(ready, each, folder, "A", console)}
    return None


def _part(
    ready: Audited, each: Plan, models: ShadowModels, found: Examined, seconds: float
) -> dict[str, Any]:
    """A method's part of attacks.json."""
    shapes = jax.eval_shape(
        each.learner.init, jax.random.key(0), ready.mixture.pool.images[:1]
    )
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes.params))
    mechanism = each.learner.mechanism
    test, train = (
        verdicts.accuracy(models.answers[question], records.labels)
        for question, records in (
            ("test", ready.dataset.test),
            ("train", asked(ready, each)[1]["train"]),
        )
    )
    return {
        "name": each.name,
        "label": each.label,
        "description": each.description,
        "model": {
            "name": net_name(ready.config),
            "parameters": size,
            "members": mechanism.members,
        },
        "training": {
            "steps": each.steps,
            "epochs": each.steps * each.batch_size / each.records,
            "batch_size": each.batch_size,
            "noise_multiplier": mechanism.noise_multiplier,
            "clip_norm": mechanism.clip_norm,
            "seconds": seconds,
        },
        "utility": {"test_accuracy": test.as_dict(), "train_accuracy": train.as_dict()},
        "guarantee": each.guarantee(ready.dataset.shape).as_dict(),
        **found.part,
    }


def _all_arrays(ready: Audited, folder: AuditFolder) -> dict[str, np.ndarray]:
    """Every score, under method, kind, attack and set; and the coins."""
    arrays = {f"coins_{name}": each.inside for name, each in ready.coins.items()}
    for each in ready.plans:
        with np.load(folder.path / "methods" / f"{each.name}.npz") as found:
            arrays |= {f"{each.name}.{name}": found[name] for name in found.files}
    return arrays


def _assembled(
    ready: Audited, parts: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """The whole of attacks.json."""
    config, options, dataset = ready.config, ready.options, ready.dataset
    mixture, membership = ready.mixture, ready.mixture.membership(ready.coins["A"])
    kinds = [
        {
            "kind": planted.kind,
            "count": len(planted.canaries),
            "share": planted.share,
            "adjacency": membership.adjacency,
        }
        for planted in mixture.planted
    ]
    deployed = asked(ready, ready.plans[0])[0]
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["rpjax", *sys.argv[1:]]),
        "seed": config.seed,
        "versions": versions(),
        "device": device(
            devices.number(config.training.devices or jax.local_device_count())
        ),
        "config": as_dict(ready.experiment),
        "config_hash": config_hash(ready.experiment),
        "data": {
            "name": dataset.name,
            "source": dataset.source,
            "classes": dataset.classes,
            "shape": list(dataset.shape),
            "data_hash": dataset.data_hash,
            "fixed": len(mixture.fixed),
            "expected_records": membership.expected,
            "test_records": len(dataset.test),
        },
        "wall_seconds": seconds,
        "protocol": {
            "models_a": options.models,
            "models_b": options.audited,
            "coin_seed_a": ready.coins["A"].seed,
            "coin_seed_b": ready.coins["B"].seed,
            "kinds": kinds,
            "draws": options.draws,
            "views": len(deployed["views"].views),
            "confidence": options.confidence,
            "delta": config.dp.delta,
        },
        "methods": parts,
        "controls": verdicts.controls(parts),
        "warnings": [*_warnings(ready), *verdicts.warnings(parts)],
    }


def _warnings(ready: Audited) -> list[dict[str, Any]]:
    """What is to be known of all methods."""
    told = []
    share = sum(planted.share for planted in ready.mixture.planted)
    if share > HARMLESS:
        told.append(
            f"There are {share:.0%} as many canaries as other records; above "
            f"{HARMLESS:.0%} they change what is trained, accuracy included."
        )
    if ready.config.training.noise_seed == "fixed":
        told.append(
            "All noise follows from the seed, so that the audit can be repeated; a "
            "guarantee holds for a training whose noise is secret."
        )
    if ready.config.model.norm == "batch":
        told.append(
            "BatchNorm answers with running statistics here; they too hold what every "
            "training record left in them."
        )
    return [{"method": None, "text": text} for text in told]
