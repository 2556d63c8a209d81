"""What every benchmark writes beside its numbers, and how a record is read."""

import dataclasses
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import ALIASES
from rpjax.errors import InputError
from rpjax.experiments.environment import device, versions
from rpjax.experiments.runs import write_json

SCHEMA = "rpjax.benchmark/1"
PLACES = ("data_dir", "environments")
"""Settings that say where something lies on this disk."""


def record(name: str, settings: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A result with the device, versions, commit, command and date.

    settings: a dataclass or a dictionary; places on the disk are left out.
    load_average: processes that were running or waiting in the last minute; a benchmark
        alone on the machine leaves about as many as it has threads.
    """
    if not isinstance(settings, Mapping):
        settings = dataclasses.asdict(settings)
    return {
        "schema": SCHEMA,
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(name, sys.argv[1:]),
        "commit": commit(),
        "device": device(),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": versions(),
        "seed": settings.get("seed", 0),
        "settings": {key: _plain(key, value) for key, value in settings.items()},
        "rows": rows,
    }


def write(path: Path, value: dict[str, Any]) -> None:
    """The record as JSON, under a temporary name and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)


def read(path: Path) -> dict[str, Any]:
    """A record, or a line on why this file is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a record ({error})") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise InputError(f"{path} is no record of a benchmark (schema {SCHEMA})")
    return value


def command(name: str, argv: list[str]) -> str:
    """The command line, with DIR for the folder of the data or of environments."""
    names = [name, *(alias for alias, full in ALIASES.items() if full == name)]
    words = argv[1:] if argv and argv[0] in names else list(argv)
    for place, word in enumerate(words[:-1]):
        if word.startswith("--") and word[2:].replace("-", "_") in PLACES:
            words[place + 1] = "DIR"
    return " ".join(["python -m benchmarks", name, *words])


def commit() -> str | None:
    """The commit of the code, with a plus where files were changed since.

    Where the code came without its repository, the environment's RPJAX_COMMIT.
    """
    if given := os.environ.get("RPJAX_COMMIT"):
        return given
    head = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{head}+" if head and changed else head or None


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        )
    except OSError:  # no git on this machine
        return ""
    return done.stdout.strip()


def _plain(key: str, value: Any) -> Any:
    if key in PLACES:
        return None if value is None else "DIR"
    return str(value) if isinstance(value, Path) else value
