"""Going back to a finished experiment: evaluate and attack what is in its folder."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rpjax import distributed
from rpjax.data.membership import design
from rpjax.errors import InputError
from rpjax.experiments.checks import check
from rpjax.experiments.compare import (
    exposed,
    released_before,
    shadow_bank,
    target,
)
from rpjax.experiments.measures import utility
from rpjax.experiments.preparing import Prepared, prepare
from rpjax.experiments.runs import RunFolder
from rpjax.experiments.values import as_dict, config_hash
from rpjax.training import Query


def opened(out: Path, console: Console) -> tuple[Prepared, RunFolder]:
    """The experiment in a folder, if all its methods are trained."""
    folder = RunFolder(out)
    config = distributed.together(folder.config)
    assert config is not None
    kept = released_before(config, folder)
    ready = distributed.together(lambda: prepare(config, console, kept=kept))
    assert ready is not None
    distributed.alike("the data", ready.dataset.data_hash)
    for each in ready.plans:
        if folder.finished(each.name) is None:
            raise InputError(
                f"{out} holds an unfinished run ({each.name} is missing); "
                "finish it with --resume"
            )
    return ready, folder


def evaluate(
    out: Path, console: Console, noise: bool = True, draws: int | None = None
) -> dict[str, dict[str, Any]]:
    """Accuracies of every method in the folder.

    noise: see `rpjax.training.Query`, as is draws; None is as many as the run has.
    """
    ready, folder = opened(out, console)
    draws = ready.config.attack.draws if draws is None else draws
    query = Query(noise=noise, draws=draws)
    return {
        each.label: utility(ready, target(ready, each, folder, console), query)
        for each in ready.plans
    }


def attack(
    out: Path, console: Console, shadows: int | None = None, draws: int | None = None
) -> dict[str, Any]:
    """Attack every method in the folder anew, and put the findings in results.json.

    shadows: how many shadow models; None keeps the run's number, already trained.
    draws: noisy answers per record, averaged, in the deployed query; None likewise.

    The folder's configuration then names these attacks, and what it held of others is
    replaced once all are through.
    """
    ready, folder = opened(out, console)
    results = folder.concluded()
    if ready.config.train_on == "all":
        raise InputError(
            f"{out} was trained on all records, which leaves no non-members; "
            "train it with --train-on members"
        )
    options = ready.config.attack
    asked = {"shadows": shadows, "draws": draws}
    given: dict[str, Any] = {n: v for n, v in asked.items() if v is not None}
    options = dataclasses.replace(options, **given)
    config = dataclasses.replace(ready.config, attack=options)
    check(config)
    if options.shadows is None or options.shadows < 1:
        raise InputError(f"shadows is {options.shadows}; the attacks need at least 1")
    pool = len(ready.dataset.train)
    membership = design(pool, options.shadows, config.seed, options.protocol)
    ready = ready._replace(config=config, design=membership)
    scores: dict[str, dict[str, np.ndarray]] = {}
    for each, part in zip(ready.plans, results["methods"], strict=True):
        console.print(each.label, style="bold")
        run = target(ready, each, folder, console)
        bank = shadow_bank(ready, each, folder, console)
        part["exposure"], scores[each.name] = exposed(ready, run, bank)
    results |= {"config": as_dict(config), "config_hash": config_hash(config)}
    distributed.together(lambda: folder.configure(config), only_first=True)
    for part in results["methods"]:
        folder.finish(part["name"], part, scores[part["name"]])
    folder.conclude(results)
    return results
