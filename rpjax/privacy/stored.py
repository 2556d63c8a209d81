"""Curves as plain JSON values, and back."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rpjax.errors import InputError
from rpjax.privacy.curves import Curve, Gaussian, Mixture, Point, Renyi
from rpjax.privacy.labels import RandomisedResponse
from rpjax.privacy.tabulated import LARGEST, Tabulated, tabulated

KINDS: dict[str, Any] = {
    "gaussian": Gaussian,
    "point": Point,
    "mixture": Mixture,
    "randomised_response": RandomisedResponse,
    "renyi": Renyi,
    "tabulated": Tabulated,
}

# of the table of a numerical curve: its length, and the delta at its end
POINTS, LEAST_DELTA = 400, 1e-9


def storable(curve: Curve, *known: tuple[float, float]) -> Curve:
    """The curve as a file can hold it: itself, or else its table.

    known: pairs (epsilon, delta) that the curve gives, for the table to give exactly.
    """
    if type(curve) in KINDS.values():
        return curve
    last = min(curve.epsilon(LEAST_DELTA), LARGEST)
    at = np.linspace(0.0, last, POINTS if last > 0 else 1)
    return tabulated(at, curve.profile(at), known)


def as_dict(curve: Curve) -> dict[str, Any]:
    """The kind of a curve and its fields, for `from_dict`.

    >>> as_dict(Gaussian(2.0))
    {'kind': 'gaussian', 'mu': 2.0}
    """
    curve = storable(curve)
    kind = next(name for name, each in KINDS.items() if type(curve) is each)
    fields = vars(curve)
    return {"kind": kind, **{name: _plain(fields[name]) for name in _fields(kind)}}


def from_dict(values: Mapping[str, Any]) -> Curve:
    """The curve that `as_dict` wrote.

    Raises:
        InputError: an unknown kind, or fields that are not its own.

    >>> from_dict({"kind": "gaussian", "mu": 2.0})
    Gaussian(mu=2.0)
    """
    given = dict(values)
    kind = given.pop("kind", None)
    if kind not in KINDS:
        raise InputError(f"curve.kind is {kind!r}; it is one of {', '.join(KINDS)}")
    odd = sorted(given.keys() ^ set(_fields(kind)))
    if odd:
        raise InputError(f"curve.{odd[0]}: missing, or no field of a {kind} curve")
    curve: Curve = KINDS[kind](**{name: _read(each) for name, each in given.items()})
    return curve


def _fields(kind: str) -> list[str]:
    return [field.name for field in dataclasses.fields(KINDS[kind])]


def _plain(value: Any) -> Any:
    if isinstance(value, Curve):
        return as_dict(value)
    return [_plain(each) for each in value] if isinstance(value, Sequence) else value


def _read(value: Any) -> Any:
    if isinstance(value, Mapping):
        return from_dict(value)
    return [_read(each) for each in value] if isinstance(value, list) else value
