"""How rows are written in tables and on bars: the same words everywhere."""

from benchmarks.benchmark import Row
from rpjax.report import formats


def median(row: Row) -> str:
    """The median time with its spread, in one unit.

    >>> median({"seconds": 0.0123, "spread": [0.0119, 0.014]})
    '12.3 ms [11.9, 14]'
    """
    if row.get("seconds") is None:
        return str(row.get("error") or formats.NONE)
    factor, unit = _unit(row["seconds"])
    low, high = (f"{factor * end:.3g}" for end in row["spread"])
    return f"{factor * row['seconds']:.3g} {unit} [{low}, {high}]"


def precise(seconds: float | None) -> str:
    """A duration with three digits.

    >>> precise(0.00123), precise(0.0000412), precise(0.3517), precise(75)
    ('1.23 ms', '41.2 µs', '352 ms', '1 min 15 s')
    """
    if seconds is None:
        return formats.NONE
    if seconds >= 60:
        return formats.seconds(seconds)
    factor, unit = _unit(seconds)
    return f"{factor * seconds:.3g} {unit}"


def _unit(seconds: float) -> tuple[float, str]:
    if seconds >= 0.9995:
        return 1.0, "s"
    return (1e3, "ms") if seconds >= 0.9995e-3 else (1e6, "µs")


def times(value: float | None) -> str:
    """A ratio."""
    return formats.ratio(value)


def amount(value: float | None, unit: str) -> str:
    """A large number with its prefix.

    >>> amount(1.5e12, "FLOP/s"), amount(None, "B"), amount(0, "B")
    ('1.5 TFLOP/s', '–', '0 B')
    """
    if value is None:
        return formats.NONE
    for prefix in ("", "k", "M", "G", "T"):
        if value < 999.5:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} P{unit}"


def share(value: float | None) -> str:
    """A fraction.

    >>> share(0.4567), share(None)
    ('45.7 %', '–')
    """
    return formats.NONE if value is None else formats.percent(value)
