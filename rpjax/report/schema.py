"""Reading a JSON file of results, and refusing one that lacks what a view needs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rpjax.errors import InputError


class Nullable(NamedTuple):
    """A shape whose value may also be null."""

    shape: Any


NUMBER = (int, float)
MAYBE = Nullable(NUMBER)


def read(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"), parse_constant=_not_a_number)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error})") from error


def _not_a_number(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def expect_schema(results: Any, schema: str, source: str) -> None:
    """Refuse what names another schema, or another version of this one."""
    name = results.get("schema") if isinstance(results, dict) else None
    if name == schema:
        return
    family, _, version = name.partition("/") if isinstance(name, str) else ("", "", "")
    if family != schema.partition("/")[0]:
        raise InputError(f"{source}: schema is {name!r}; expected {schema!r}")
    remedy = "upgrade rpjax" if version > schema.partition("/")[2] else "run it again"
    raise InputError(f"{source}: schema is {name!r}, this reads {schema!r}; {remedy}")


def expect(value: Any, shape: Any, where: str) -> None:
    """Walk value and shape together; extra keys are welcome, missing ones are not.

    Args:
        value: what was read.
        shape: a type or several, a `Nullable`, a list with the shape of every item, or
            a dictionary of shapes by key.
        where: the name of the value in the message.

    Raises:
        InputError: naming the first key that is missing or of the wrong kind.
    """
    if isinstance(shape, Nullable):
        if value is not None:
            expect(value, shape.shape, where)
    elif isinstance(shape, dict):
        _expect_type(value, dict, where)
        for key, inner in shape.items():
            if key not in value:
                raise InputError(f"{where}.{key}: missing; the schema requires it")
            expect(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        _expect_type(value, list, where)
        if shape[0] in (NUMBER, MAYBE) and _numbers(value):
            return
        for index, item in enumerate(value):
            expect(item, shape[0], f"{where}[{index}]")
    else:
        _expect_type(value, shape, where)


def _numbers(values: list[Any]) -> bool:
    """A quick look at a curve of thousands of points, most of which are sound."""
    return all(type(item) in NUMBER and math.isfinite(item) for item in values)


def _expect_type(value: Any, kind: Any, where: str) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # bool is an int to Python, but true is not a count
    alien = isinstance(value, bool) and bool not in kinds
    if not isinstance(value, kinds) or alien:
        wanted = " or ".join(k.__name__ for k in kinds)
        raise InputError(f"{where}: got {type(value).__name__}, expected {wanted}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: got {value}, expected a finite number or null")


def expect_guarantee(guarantee: Mapping[str, Any], where: str) -> None:
    """A stated epsilon or mu is complete."""
    for key in ("delta", "adjacency"):
        if guarantee["epsilon"] is not None and guarantee[key] is None:
            raise InputError(f"{where}.{key}: null beside an epsilon")
    if guarantee["mu"] is not None and guarantee["adjacency"] is None:
        raise InputError(f"{where}.adjacency: null beside a mu")


def same_length(where: str, columns: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Refuse columns of one table that differ in length."""
    lengths = [len(columns[key]) for key in keys]
    if len(set(lengths)) > 1:
        raise InputError(f"{where}: {', '.join(keys)} have lengths {lengths}")
