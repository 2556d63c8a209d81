"""One-line refusals shared by the accountants: field, value, what is allowed."""

import math
from collections.abc import Sequence
from typing import Any

from rpjax.errors import InputError


def fraction(field: str, value: float) -> None:
    """Refuse a value that is not strictly between 0 and 1, such as a bad delta."""
    if not 0 < value < 1:
        raise InputError(f"{field} = {value!r}: must lie strictly between 0 and 1")


def rate(field: str, value: float) -> None:
    """Refuse a sampling probability outside (0, 1]."""
    if not 0 < value <= 1:
        raise InputError(f"{field} = {value!r}: must lie in (0, 1]")


def probability(field: str, value: float) -> None:
    """Refuse a probability outside [0, 1)."""
    if not 0 <= value < 1:
        raise InputError(f"{field} = {value!r}: must lie in [0, 1)")


def positive(field: str, value: float) -> None:
    """Refuse a value that is zero, negative, infinite or not a number."""
    if not (value > 0 and math.isfinite(value)):
        raise InputError(f"{field} = {value!r}: must be positive and finite")


def not_negative(field: str, value: float) -> None:
    """Refuse a value that is negative, infinite or not a number."""
    if not (value >= 0 and math.isfinite(value)):
        raise InputError(f"{field} = {value!r}: must be zero or more, and finite")


def whole(field: str, value: int, lowest: int = 1) -> None:
    """Refuse a count below the lowest that makes sense."""
    if value < lowest:
        raise InputError(f"{field} = {value!r}: must be at least {lowest}")


def one_of(field: str, value: Any, allowed: Sequence[Any]) -> None:
    """Refuse a name that is not among the allowed ones."""
    if value not in allowed:
        names = ", ".join(repr(name) for name in allowed)
        raise InputError(f"{field} = {value!r}: must be one of {names}")
