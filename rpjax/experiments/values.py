"""A configuration as plain values: to and from YAML, its hash, what differs in two."""

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from rpjax.errors import InputError
from rpjax.experiments.config import ExperimentConfig

# fields that change no result: a run may be resumed with others, and is the same run
SPEED_ALONE = ("data.workers", "config.data.workers", "audit.chunk")


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON and YAML values; an infinite one is "inf"."""
    values: dict[str, Any] = plain_values(dataclasses.asdict(config))
    return values


def plain_values(value: Any) -> Any:
    """What JSON can say of a value: tuples as lists, paths as text, infinity as "inf".

    >>> plain_values({"dp.epsilon": (1, float("inf")), "data.dir": Path("a")})
    {'dp.epsilon': [1, 'inf'], 'data.dir': 'a'}
    """
    if isinstance(value, dict):
        return {name: plain_values(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, int | None) else str(value)


def config_hash(config: Any) -> str:
    """A name for what was asked for: "sha256:" and 64 hexadecimal digits.

    The fields in `SPEED_ALONE` do not enter: a run resumed with more workers is still
    the same run.
    """
    values = as_dict(config)
    for name in SPEED_ALONE:
        *parts, last = name.split(".")
        within = values
        for part in parts:
            within = within.get(part, {})
        within.pop(last, None)
    text = json.dumps(values, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def to_yaml(config: Any) -> str:
    """The configuration as YAML, in the order of its fields."""
    return yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)


def from_yaml(text: str, base: Any = None) -> Any:
    """The configuration in `text`; what it leaves out is as in `base`, or the default.

    Raises:
        InputError: no mapping, an unknown field, or a value of another type.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"config: not YAML ({str(error).splitlines()[0]})") from error
    base = ExperimentConfig() if base is None else base
    return base if values is None else overlaid(base, values, "config")


def overlaid(base: Any, values: Any, where: str) -> Any:
    """`base` with a mapping's values, each checked against its field's annotation.

    where: what an error calls the mapping.

    Raises:
        InputError: no mapping, an unknown field, or a value of another type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where} is {values!r}; it must be a mapping of fields")
    hints = get_type_hints(type(base))
    unknown = [name for name in values if name not in hints]
    if unknown:
        raise InputError(
            f"{where}.{unknown[0]} is not a field; known: {', '.join(hints)}"
        )
    checked = {
        name: _value(hints[name], value, f"{where}.{name}", getattr(base, name))
        for name, value in values.items()
    }
    return dataclasses.replace(base, **checked)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The dotted names of fields in which two configurations differ."""
    ours, theirs = dict(_leaves(one)), dict(_leaves(other))
    names = sorted(ours.keys() | theirs.keys())
    return [n for n in names if ours.get(n, "") != theirs.get(n, "")]


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _value(hint: Any, value: Any, where: str, base: Any = None) -> Any:
    if dataclasses.is_dataclass(hint):
        return overlaid(base, value, where)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        kinds = [a for a in args if a is not type(None)]
        own = [a for a in kinds if a is type(value)]
        return _value((own or kinds)[0], value, where)
    if origin is Literal:
        if value not in args:
            allowed = ", ".join(map(str, args))
            raise InputError(f"{where} is {value!r}; it is one of {allowed}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where} is {value!r}; it must be a list")
        return tuple(_value(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-5 as text
        except ValueError:
            pass
    if type(value) is not hint:
        raise InputError(f"{where} is {value!r}; it must be of type {hint.__name__}")
    return value
