"""Going back to a finished experiment: evaluate and attack what is in its folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from rpjax.data.membership import design
from rpjax.errors import InputError
from rpjax.experiments.compare import (
    Prepared,
    exposed,
    prepare,
    shadow_bank,
    target,
    utility,
)
from rpjax.experiments.runs import RunFolder, write_json
from rpjax.training import Query


def opened(out: Path) -> tuple[Prepared, RunFolder]:
    """The experiment in a folder, if all its methods are trained."""
    folder = RunFolder(out)
    ready = prepare(folder.config())
    for each in ready.plans:
        if folder.finished(each.name) is None:
            raise InputError(
                f"{out} holds an unfinished run ({each.name} is missing); "
                "finish it with --resume"
            )
    return ready, folder


def evaluate(out: Path, query: Query, console: Console) -> dict[str, dict[str, Any]]:
    """Accuracies of every method in the folder, asked by `query`."""
    ready, folder = opened(out)
    return {
        each.label: utility(ready, target(ready, each, folder, console), query)
        for each in ready.plans
    }


def attack(
    out: Path, console: Console, shadows: int | None = None, draws: int = 1
) -> dict[str, Any]:
    """Attack every method in the folder anew, and put the findings in results.json.

    shadows: how many shadow models; None keeps the run's number, already trained.
    draws: noisy answers per record, averaged, in the deployed query.
    """
    ready, folder = opened(out)
    if ready.config.train_on == "all":
        raise InputError(
            f"{out} was trained on all records, which leaves no non-members; "
            "train it with --train-on members"
        )
    options = ready.config.attack
    options = dataclasses.replace(
        options, draws=draws, shadows=options.shadows if shadows is None else shadows
    )
    if options.shadows is None or options.shadows < 1:
        raise InputError(f"shadows is {options.shadows}; the attacks need at least 1")
    config = dataclasses.replace(ready.config, attack=options)
    pool = len(ready.dataset.train)
    membership = design(pool, options.shadows, config.seed, options.protocol)
    ready = ready._replace(config=config, design=membership)
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    for each, part in zip(ready.plans, results["methods"], strict=True):
        console.print(each.label, style="bold")
        run = target(ready, each, folder, console)
        bank = shadow_bank(ready, each, folder, console)
        part["exposure"], scores = exposed(ready, run, bank)
        folder.finish(each.name, part, scores)
    write_json(out / "results.json", results)
    return results
