"""Defaults of a command's options: a recipe's, a file's, a run's."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rpjax.experiments import ExperimentConfig, read_config, recipes
from rpjax.experiments.config import METHODS
from rpjax.experiments.recipes import Recipe


def with_defaults(
    kind: Any, argv: list[str], of_run: Callable[[Path], Any] | None = None
) -> tuple[list[str], Any, Recipe | None]:
    """Take ``--recipe NAME`` and ``--config FILE`` out of a command's words.

    Their values become the defaults, the file's on top of the recipe's; what both leave
    out is the command's.
    of_run: the options that ``--run FOLDER`` stands for, where a command knows it.
    """
    if "config" not in {f.name for f in dataclasses.fields(kind)}:
        return argv, None, None
    argv, name = _taken(argv, "--recipe")
    argv, file = _taken(argv, "--config")
    if of_run is not None and file is None:
        argv, run = _taken(argv, "--run")
        if run is not None:
            return argv, of_run(Path(run)), None
    if name is None and file is None:
        return argv, None, None
    default, recipe = kind(), None
    if name is not None:
        recipe = recipes.named(name)
        default = _following(default, recipe)
    if file is not None:
        default = _replaced(default, read_config(Path(file), default.config))
    return argv, default, recipe


def _following(options: Any, recipe: Recipe) -> Any:
    """Options with a recipe's settings, and its one method where a command takes one.

    It is then the command's own default, for --method to replace.
    """
    options = _replaced(options, recipes.followed(recipe, options.config))
    names = {f.name for f in dataclasses.fields(options)}
    if "of_recipe" in names:
        options = dataclasses.replace(options, of_recipe=recipe)
    if "method" not in names:
        return options
    (method,) = options.config.methods
    config = dataclasses.replace(options.config, methods=METHODS)
    return dataclasses.replace(options, config=config, method=method)


def _replaced(options: Any, config: ExperimentConfig) -> Any:
    return dataclasses.replace(options, config=config)


def _taken(argv: list[str], option: str) -> tuple[list[str], str | None]:
    """The words without an option and its value, and the value."""
    for position, word in enumerate(argv):
        if word == option and position + 1 < len(argv):
            return argv[:position] + argv[position + 2 :], argv[position + 1]
        if word.startswith(f"{option}="):
            return argv[:position] + argv[position + 1 :], word.partition("=")[2]
    return argv, None
