"""How numbers are written: one way for the terminal, Markdown, HTML and the figures."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

NONE = "–"


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in percent.

    >>> percent(0.981), percent(-0.004)
    ('98.1 %', '-0.4 %')
    """
    return f"{_signed_zero(100 * fraction, digits)} %"


def percent_interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Both ends in percent, the unit being said by the value beside it.

    >>> percent_interval(0.96, 0.992)
    '[96.0, 99.2]'
    """
    if low is None or high is None:
        return ""
    ends = (_signed_zero(100 * end, digits) for end in (low, high))
    return f"[{', '.join(ends)}]"


def auc(value: float) -> str:
    """An area under the curve, three decimals.

    >>> auc(0.5)
    '0.500'
    """
    return f"{value:.3f}"


def auc_interval(low: float | None, high: float | None) -> str:
    """Both ends of an AUC's interval.

    >>> auc_interval(0.49, 0.531)
    '[0.490, 0.531]'
    """
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def upper_bound(value: float) -> str:
    """A proved upper bound, rounded up so that the printed number is proved too.

    >>> upper_bound(7.981), upper_bound(7.99), upper_bound(0.0321), upper_bound(1234.5)
    ('7.99', '7.99', '0.0321', '1235')
    """
    return _rounded(value, ROUND_CEILING)


def lower_bound(value: float) -> str:
    """A lower bound, rounded down so that the printed number is a bound too.

    >>> lower_bound(2.419), lower_bound(0.0), lower_bound(0.03219)
    ('2.41', '0', '0.0321')
    """
    return "0" if value == 0 else _rounded(value, ROUND_FLOOR)


def _rounded(value: float, rounding: str) -> str:
    digits = 2 if value >= 0.1 else 4
    step = Decimal(1) if value >= 100 else Decimal(1).scaleb(-digits)
    return f"{Decimal(repr(float(value))).quantize(step, rounding=rounding):f}"


def small(value: float) -> str:
    """A delta or another tiny number, without a padded exponent.

    >>> small(1e-5), small(0.0), small(2.5e-6)
    ('1e-5', '0', '2.5e-6')
    """
    text = f"{value:.3g}" if value >= 1e-3 or value == 0 else f"{value:.2e}"
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return mantissa
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def ratio(value: float | None) -> str:
    """A multiple of what plain training takes.

    >>> ratio(1.0), ratio(12.34), ratio(None)
    ('1.00×', '12.3×', '–')
    """
    return NONE if value is None else f"{value:.2f}×" if value < 10 else f"{value:.3g}×"


def seconds(value: float | None) -> str:
    """A duration in the unit that reads best.

    >>> seconds(0.0123), seconds(12.34), seconds(301.0), seconds(7260)
    ('12 ms', '12.3 s', '5 min 1 s', '2 h 1 min')
    """
    if value is None:
        return NONE
    if value < 1:
        return f"{1e3 * value:.2g} ms" if value < 0.01 else f"{1e3 * value:.0f} ms"
    if value < 60:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(value: float | None) -> str:
    """An amount of memory in decimal units.

    >>> size(512), size(1_234_000), size(None)
    ('512 B', '1.23 MB', '–')
    """
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"


def _signed_zero(value: float, digits: int) -> str:
    """Fixed decimals, and never the ``-0.0`` that rounding can leave."""
    return f"{round(value, digits) + 0.0:.{digits}f}"
