"""Pieces that several figures share: logarithmic rates, thinned curves, legends."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rpjax.report.drawing import Theme
from rpjax.report.placement import wrapped

WIDTH = 7.2
FEW = 10
LEGEND = 34
ZONE = "fewer than 10 false positives"


def ends(estimate: dict, value: str = "value") -> tuple[float, float, float]:
    """A value and its ends, which are the value itself where they are not known."""
    middle = float(estimate[value])
    low = middle if estimate["low"] is None else float(estimate["low"])
    high = middle if estimate["high"] is None else float(estimate["high"])
    return middle, min(low, middle), max(high, middle)


def padded(values: Sequence[float], least: float) -> tuple[float, float]:
    """Limits with room for labels, at least `least` on either side."""
    room = max(0.14 * (max(values) - min(values)), least)
    return min(values) - room, max(values) + room


def roc_axes(axes: Axes, floor: float, few: float, theme: Theme) -> None:
    """Both rates on logarithmic axes, from `floor` to 1, with the diagonal.

    few: the rate left of which fewer than ten false positives stand behind a point.
    """
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(floor, 1.0)
    axes.set_ylim(floor, 1.15)
    for axis in (axes.xaxis, axes.yaxis):
        # a small test set leaves less than a decade: then 2 and 5 are named too
        axis.set_major_locator(LogLocator(subs=(1,) if floor < 0.05 else (1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:.3g} %"))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("False-positive rate (non-members taken for members)")
    axes.set_ylabel("True-positive rate (members found)")
    look: dict[str, Any] = {"color": theme.zone, "linewidth": 0, "zorder": 0}
    axes.axvspan(floor, min(few, 1.0), label=ZONE, **look)
    axes.plot([floor, 1], [floor, 1], color=theme.muted, linewidth=1, zorder=1)
    for rate in (1e-2, 1e-3):
        if rate > floor:
            axes.axvline(rate, color=theme.muted, linewidth=1, linestyle=(0, (2, 2)))


def thinned(fpr: Sequence[float], tpr: Sequence[float], floor: float) -> list[int]:
    """The points of a curve that do not fall on the one before; and the last.

    What is left out moves the curve by less than a pixel of logarithmic axes.
    """
    least = -math.log(floor) / 500
    kept: list[int] = []
    last = (-math.inf, -math.inf)
    for index, pair in enumerate(zip(fpr, tpr, strict=True)):
        x, y = (math.log(max(rate, floor)) for rate in pair)
        if max(x - last[0], y - last[1]) >= least:
            kept.append(index)
            last = (x, y)
    return [*kept, len(fpr) - 1] if len(fpr) else []


def lifted(rates: Sequence[float], kept: Sequence[int], floor: float) -> list[float]:
    """The kept rates, those below the edge of the axes laid on it."""
    return [max(rates[index], floor) for index in kept]


def marks(fpr: Sequence[float]) -> list[int]:
    """The last points at or below 1 % and 10 %, where the marker is set."""
    found = (
        sum(rate <= level * (1 + 1e-9) for rate in fpr) - 1 for level in (0.01, 0.1)
    )
    return [mark for mark in found if mark >= 0]


def legend_height(labels: Sequence[str], columns: int = 2) -> float:
    """Inches that a legend in so many columns takes."""
    rows = max(1, -(-len(labels) // columns))
    lines = [wrapped(label, LEGEND).count("\n") + 1 for label in labels]
    starts = range(0, len(lines), rows)
    tallest = max((sum(lines[i : i + rows]) for i in starts), default=0)
    return 0.15 + 0.155 * tallest + 0.06 * rows


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """The legend of one of the axes, below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, handlelength=2.6
    )


def nothing(figure: Figure, axes: Axes, message: str) -> Figure:
    """An empty figure that says why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", transform=axes.transAxes)
    return figure
