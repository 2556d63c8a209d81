"""guarantee.json: what is proved of every method of a run, as a file.

Its schema is guarantee.schema.json beside this module; docs/certificates.md explains
the fields.
"""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rpjax.errors import InputError
from rpjax.privacy.certificate import Guarantee

SCHEMA = "rpjax.guarantee/1"


def document(methods: Sequence[tuple[str, str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The content of a guarantee.json.

    methods: of each its name, its label and `Guarantee.as_dict()`.
    """
    return {
        "schema": SCHEMA,
        "methods": [
            {"name": name, "label": label, "guarantee": dict(proved)}
            for name, label, proved in methods
        ],
    }


def read(path: Path) -> dict[str, Guarantee]:
    """The guarantees in a guarantee.json, by the names of the methods.

    Raises:
        InputError: no such file, or not of this schema.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise InputError(f"{path}: schema is {found!r}; expected {SCHEMA!r}")
    return {
        each["name"]: Guarantee.from_dict(each["guarantee"])
        for each in values["methods"]
    }


def schema() -> dict[str, Any]:
    """The JSON schema of a guarantee.json."""
    file = importlib.resources.files("rpjax.privacy") / "guarantee.schema.json"
    values: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return values
