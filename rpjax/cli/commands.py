"""The commands' options and what they do."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console
from rich.table import Table

from rpjax import distributed, report
from rpjax.cli import account, data, features, plan
from rpjax.cli.defaults import with_defaults
from rpjax.errors import InputError
from rpjax.experiments import (
    ExperimentConfig,
    RunFolder,
    audit,
    compare,
    merging,
    prepare,
    revisit,
    sweep,
    to_yaml,
)
from rpjax.experiments.audit_config import AuditConfig, AuditExperiment
from rpjax.experiments.config import METHODS, Method, to_be_released
from rpjax.files import write_text
from rpjax.verification import CHECKS, Check, verify

Flat = tyro.conf.OmitArgPrefixes
Folder = tyro.conf.Positional[Path]

# several processes may do these together; they are joined before a device is touched
DISTRIBUTED = ("compare", "train", "evaluate", "attack")
MOST_CORES = 8
ARRAY = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")


@dataclass(frozen=True)
class Compare:
    """Train five ways on the same data, attack each, and report.

    Plain training, Strategy I and II of residual perturbation, an ensemble, and DP-SGD
    train the same network on the same records. Shadow-model and threshold attacks then
    try to tell who was in the training set. Results go to results.json, and from there
    to report.html, report.md and figures.

    --config FILE takes options from a YAML file, and --recipe NAME those of a known
    training (docs/dpsgd.md); what stands beside them comes on top.
    """

    config: ExperimentConfig = field(default_factory=ExperimentConfig)
    out: Path = Path("out")
    """Folder for everything that is written."""
    resume: bool = False
    """Go on with the interrupted run in the folder."""
    overwrite: bool = False
    """Replace the run in the folder."""
    save_config: Path | None = None
    """Write the configuration to this YAML file, and stop."""


@dataclass(frozen=True)
class Train:
    """Train by one method, and keep checkpoints and results in a folder.

    --config FILE takes options from a YAML file, and --recipe NAME those of a known
    training (docs/dpsgd.md); what stands beside them comes on top.
    """

    config: ExperimentConfig = field(default_factory=to_be_released)
    method: Method = "strategy1"
    """By which method."""
    out: Path = Path("out")
    """Folder for everything that is written."""
    resume: bool = False
    """Go on with the interrupted run in the folder."""
    overwrite: bool = False
    """Replace the run in the folder."""


@dataclass(frozen=True)
class Evaluate:
    """Accuracy of the models in a run's folder, with 95 % intervals."""

    run: Folder
    """Folder of a finished `rpjax train` or `rpjax compare`."""
    noise: bool = True
    """Ask with the forward noise on, as trained; off needs the weights."""
    draws: int | None = None
    """Noisy answers per record, averaged; left out: as many as the run has."""


@dataclass(frozen=True)
class Attack:
    """Attack the models in a run's folder, and put the findings into its report.

    From eight shadow models on, each record is also attacked by a model of its own:
    LiRA, BASE and difficulty calibration. Canaries and bounds: rpjax audit.
    """

    run: Folder
    """Folder of a finished `rpjax compare`, or `rpjax train --train-on members`."""
    shadows: int | None = None
    """Shadow models for each method; left out: as many as the run has."""
    draws: int | None = None
    """Noisy answers per record, averaged; left out: as many as the run has."""


@dataclass(frozen=True)
class Audit:
    """Plant canaries, train models by the hundred, attack them all, bound epsilon.

    Of each method, set A of models makes the attacks, and set B is audited: on both,
    coins decide which canaries a model was trained on. Results go to attacks.json, and
    from there to attacks.html, attacks.md and figures; scores and coins to attacks.npz.

    --config FILE takes options from a YAML file, --run FOLDER the configuration of a
    run in that folder; what stands beside them comes on top.
    """

    config: ExperimentConfig = field(default_factory=ExperimentConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    out: Path = Path("audit")
    """Folder for everything that is written."""
    resume: bool = False
    """Go on with the interrupted audit in the folder."""
    overwrite: bool = False
    """Replace the audit in the folder."""


@dataclass(frozen=True)
class Verify:
    """Prove by experiment that `rpjax train --method dpsgd` is what it claims to be.

    Takes the options of that command, and its data, learner and batches; trains
    nothing. The exit status is 1 if anything fails.

    --config FILE takes options from a YAML file, and --recipe NAME those of a known
    training (docs/dpsgd.md); what stands beside them comes on top.
    """

    config: ExperimentConfig = field(default_factory=to_be_released)
    method: Literal["dpsgd"] = "dpsgd"
    """By which method."""
    checks: tuple[Check, ...] = CHECKS
    """Which checks."""


@dataclass(frozen=True)
class Report:
    """Write pages, tables and figures of a results.json again, or of another record."""

    run: Folder
    """Folder that holds a results.json, an audit's attacks.json or a sweep.json."""


@dataclass(frozen=True)
class Sweep:
    """Write one configuration for each point of a grid, as jobs for any launcher.

    The file holds `config`, what all jobs share, and `grid`, lists of values by field:
    {seed: [0, 1, 2], noise.gamma: [0.1, 0.5], methods: [strategy1, dpsgd]}. A key of
    several fields, with commas, changes them together.
    """

    sweep: tyro.conf.Positional[Path]
    """YAML file of the sweep."""
    out: Path = Path("sweep")
    """Folder for the jobs, their results and what is merged of them."""
    run: bool = False
    """Run here what is not finished, one job after another, and merge it."""


@dataclass(frozen=True)
class Job:
    """Run one job of a sweep's folder; go on with it if it was begun."""

    folder: Folder
    """Folder that `rpjax sweep` wrote."""
    number: tyro.conf.Positional[int | None] = None
    """Which, from 0; left out: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX."""


@dataclass(frozen=True)
class Merge:
    """Put a sweep's finished jobs together: sweep.json, a table, figures and a page."""

    folder: Folder
    """Folder that `rpjax sweep` wrote."""


def run(name: str, argv: list[str]) -> int:
    """Parse the options of one command and carry it out; the exit status."""
    kind, action = _COMMANDS[name]
    of_run = _of_run if kind is Audit else None
    argv, default, recipe = with_defaults(kind, argv, of_run)
    options: dict[str, Any] = {} if default is None else {"default": default}
    config = (Flat, tyro.conf.OmitSubcommandPrefixes)
    parsed = tyro.cli(kind, args=argv, prog=f"rpjax {name}", config=config, **options)
    console = Console()
    if name in DISTRIBUTED:
        console = _joined()
    if recipe is not None:
        console.print(str(recipe), highlight=False, soft_wrap=True)
    return action(parsed, console) or 0


def _joined() -> Console:
    """Join the other processes, if there are any; the console of the first speaks."""
    try:
        processes = distributed.initialize()
    except TimeoutError as error:
        print(f"rpjax: error: {error}", file=sys.stderr)
        # an ordinary end would wait for those that never came
        distributed.leave(2, seconds=0)
    if processes.count == 1:
        return Console()
    console = Console(quiet=not distributed.first())
    console.print(str(processes), highlight=False)
    return console


def _of_run(folder: Path) -> Audit:
    """The audit of what a run did: its methods, with its noise."""
    return Audit(RunFolder(folder).config(), AuditConfig(dp_noise="target"))


def _compare(options: Compare, console: Console) -> None:
    config = options.config
    if options.save_config is not None:
        write_text(options.save_config, to_yaml(config))
        console.print(f"wrote {options.save_config}")
        return
    if config.train_on == "all":
        raise InputError(
            "train_on is 'all', which leaves no non-members to attack with; "
            "compare needs 'members'"
        )
    results = compare(
        config,
        options.out,
        resume=options.resume,
        overwrite=options.overwrite,
        console=console,
    )
    _reported(results, options.out, console)


def _train(options: Train, console: Console) -> None:
    named = options.config.methods
    if named not in (METHODS, (options.method,)):
        raise InputError(
            f"methods is {', '.join(named) or 'empty'}; train takes one, by --method"
        )
    config = dataclasses.replace(options.config, methods=(options.method,))
    results = compare(
        config,
        options.out,
        resume=options.resume,
        overwrite=options.overwrite,
        console=console,
    )
    _reported(results, options.out, console)


def _evaluate(options: Evaluate, console: Console) -> None:
    table = Table("Method", "Test accuracy", "Training accuracy", "Gap")
    accuracies = revisit.evaluate(options.run, console, options.noise, options.draws)
    for label, found in accuracies.items():
        names = ("test_accuracy", "train_accuracy", "generalization_gap")
        table.add_row(label, *(_percent(found[name]) for name in names))
    console.print(table)


def _attack(options: Attack, console: Console) -> None:
    results = revisit.attack(options.run, console, options.shadows, options.draws)
    _reported(results, options.run, console)


def _audit(options: Audit, console: Console) -> None:
    # a processor's cores train models side by side; too late if it was touched already
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(MOST_CORES, os.cpu_count() or 1))
    results = audit(
        AuditExperiment(options.config, options.audit),
        options.out,
        resume=options.resume,
        overwrite=options.overwrite,
        console=console,
    )
    _audit_reported(results, options.out, console)


def _audit_reported(results: dict[str, Any], out: Path, console: Console) -> None:
    written = report.audits.write(results, out)
    console.print()
    console.print(report.audits.table(results, console.width))
    console.print(f"written: {out / 'attacks.json'}, {written[0]}", highlight=False)


def _verify(options: Verify, console: Console) -> int:
    # so that there are two devices to compare; too late if one was touched already
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", 2)
    ready = prepare(
        dataclasses.replace(options.config, methods=(options.method,)), console
    )
    each, training = ready.plans[0], ready.config.training
    verdict = verify(
        each.learner,
        ready.dataset.train.take(ready.training_positions),
        batch_size=each.batch_size,
        steps=each.steps,
        devices=training.devices,
        loss=each.loss,
        delta=ready.config.dp.delta,
        seed=ready.config.seed,
        checks=options.checks,
    )
    console.print(verdict)
    return 0 if verdict.ok else 1


def _report(options: Report, console: Console) -> None:
    if (options.run / "attacks.json").is_file():
        _audit_reported(report.audits.load(options.run), options.run, console)
        return
    if (options.run / "sweep.json").is_file():
        _sweep_reported(
            report.sweeps.load(options.run / "sweep.json"), options.run, console
        )
        return
    _reported(report.load(options.run), options.run, console)


def _sweep(options: Sweep, console: Console) -> int:
    count = sweep.write(sweep.read_sweep(options.sweep), options.out)
    line = f"{count} jobs: rpjax job {options.out} 0 to {count - 1}"
    console.print(line, highlight=False, soft_wrap=True)
    if not options.run:
        return 0
    failed = sweep.run_all(options.out, console)
    _merged(options.out, console)
    return 1 if failed else 0


def _job(options: Job, console: Console) -> None:
    number = options.number
    if number is None:
        number = _array_index()
    sweep.run_job(
        options.folder,
        number,
        console,
        lambda results, folder: _reported(results, folder, console),
    )


def _array_index() -> int:
    for name in ARRAY:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    raise InputError(f"number is not given, and neither is {' or '.join(ARRAY)}")


def _merge(options: Merge, console: Console) -> None:
    _merged(options.folder, console)


def _merged(folder: Path, console: Console) -> None:
    _sweep_reported(merging.merge(folder), folder, console)


def _sweep_reported(merged: dict[str, Any], folder: Path, console: Console) -> None:
    console.print(report.sweeps.table(merged))
    pages = report.sweeps.write(merged, folder)[:1]
    names = ", ".join(map(str, [folder / "sweep.json", *pages]))
    console.print(f"written: {names}", highlight=False, soft_wrap=True)


def _reported(results: dict[str, Any], out: Path, console: Console) -> None:
    written = distributed.together(lambda: report.write(results, out), only_first=True)
    if not written:  # by another process
        return
    console.print()
    console.print(report.table(results, console.width))
    console.print(f"written: {out / 'results.json'}, {written[0]}", highlight=False)


def preempted(message: str) -> int:
    """Say once, for all processes, that SIGTERM stopped them; the exit status."""
    if distributed.first():
        print(f"rpjax: {message}; add --resume to the command", file=sys.stderr)
    return 75


def _percent(estimate: dict[str, Any]) -> str:
    value, low, high = (100 * estimate[k] for k in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


_COMMANDS: dict[str, tuple[type, Callable[..., int | None]]] = {
    "compare": (Compare, _compare),
    "train": (Train, _train),
    "evaluate": (Evaluate, _evaluate),
    "attack": (Attack, _attack),
    "audit": (Audit, _audit),
    "account": (account.Account, account.run),
    "plan": (plan.Plan, plan.run),
    "verify": (Verify, _verify),
    "data": (data.Data, data.run),
    "features": (features.Features, features.run),
    "report": (Report, _report),
    "sweep": (Sweep, _sweep),
    "job": (Job, _job),
    "merge": (Merge, _merge),
}
