"""Each metric against one setting: epsilon from 1 to infinity, say."""

import math
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rpjax.report.drawing import LIGHT, Style, Theme, blank, styles, themed
from rpjax.report.sweeps.content import (
    METRICS,
    Axis,
    Sweep,
    methods,
    places,
    shown,
    varied,
)

# more lines than that cannot be told apart
MOST_LINES = 8
# between the points of two lines, as a part of the axis
APART = 0.025
KEY = "dots: seeds; bars: 95 % interval of the mean; band: one standard deviation"


class Point(NamedTuple):
    """A setting's place on the axis, and the spread of a metric over its seeds."""

    x: float
    infinite: bool
    spread: dict[str, Any]


def axis(sweep: Sweep) -> Axis | None:
    """The x axis: the first one whose values are numbers."""
    return next((each for each in varied(sweep) if each.numbers is not None), None)


def lines(sweep: Sweep) -> dict[str, list[dict[str, Any]]]:
    """The rows of each line; its name is what sets it apart from the others."""
    across = axis(sweep)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sweep["summary"]:
        words = [row["method"]] if len(methods(sweep)) > 1 else []
        for other in varied(sweep):
            if other != across:
                words.append(f"{other.name} = {other.labels()[other.of(row)]}")
        found.setdefault(", ".join(words) or row["method"], []).append(row)
    return found


def curve(sweep: Sweep, theme: Theme = LIGHT) -> Figure:
    """Each metric against the first numeric axis of the grid, a line for each rest.

    Dots are single seeds, lines join means, bars are 95 % intervals of the mean, bands
    one standard deviation. Numbers that span an octave stand at equal ratios; infinity
    stands beside them, joined to nothing.
    """
    names, across, drawn = shown(sweep), axis(sweep), lines(sweep)
    with themed(theme):
        figure = blank(max(3.6 * len(names), 4.6), 3.9)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        looks = styles({"methods": [{"name": name} for name in drawn]})
        for panel, name in zip(panels, names, strict=True):
            _draw_metric(panel, name, across, drawn, looks, theme)
            panel.set_title(METRICS[name])
        handles, labels = panels[0].get_legend_handles_labels()
        long = max(map(len, labels)) > 40
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=1 if long else max(1, min(len(labels), 2 * len(names))),
            title=KEY,
            title_fontsize=8.5,
        )
        return figure


def _draw_metric(
    panel: Axes,
    name: str,
    across: Axis | None,
    drawn: dict[str, list[dict[str, Any]]],
    looks: list[Style],
    theme: Theme,
) -> None:
    numbers = (across.numbers if across else None) or [0.0]
    at = places(numbers)
    width = (max(at) - min(at)) or 1.0
    for number, (line, rows) in enumerate(drawn.items()):
        # side by side, so that no bar hides another
        aside = APART * width * (number - (len(drawn) - 1) / 2)
        points: list[Point] = []
        for row in rows:
            own = across.of(row) if across else 0
            if name in row["metrics"]:
                infinite = math.isinf(numbers[own])
                points.append(Point(at[own] + aside, infinite, row["metrics"][name]))
        points.sort(key=lambda point: point.x)
        look = looks[number]
        _draw_line(panel, line, name, points, look.colour(theme), look)
    panel.set_xticks(at if across else [], across.labels() if across else [])
    panel.set_xlabel(across.name if across else "setting")
    if any(map(math.isinf, numbers)):
        beside = (sorted(at)[-2] + max(at)) / 2 if len(at) > 1 else 0.0
        panel.axvline(beside, color=theme.muted, linewidth=1, linestyle=(0, (1, 3)))
    if name == "attack_auc":
        panel.axhline(0.5, color=theme.muted, linewidth=1, linestyle=(0, (2, 2)))
    else:
        panel.set_ylabel("%")


def _draw_line(
    panel: Axes, label: str, name: str, points: list[Point], colour: str, look: Style
) -> None:
    scale = 1.0 if name == "attack_auc" else 100.0
    drawn: dict[str, Any] = {"color": colour, "linestyle": look.line}
    marker: dict[str, Any] = {"marker": look.marker, "markersize": 5.5}
    named = False
    for beyond in (False, True):
        part = [point for point in points if point.infinite == beyond]
        if not part:
            continue
        x = [point.x for point in part]
        mean = [scale * point.spread["mean"] for point in part]
        off = [scale * (point.spread["deviation"] or 0.0) for point in part]
        told = "_nolegend_" if named else label
        panel.plot(x, mean, label=told, zorder=3, **marker, **drawn)
        low = [m - d for m, d in zip(mean, off, strict=True)]
        high = [m + d for m, d in zip(mean, off, strict=True)]
        panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        named = True
    for point in points:
        values = [scale * value for value in point.spread["values"]]
        single: dict[str, Any] = {"color": colour, "markersize": 3, "alpha": 0.7}
        panel.plot([point.x] * len(values), values, "o", zorder=4, **single)
        if point.spread["low"] is not None:
            ends = [scale * point.spread["low"], scale * point.spread["high"]]
            panel.plot([point.x] * 2, ends, color=colour, linewidth=1.2, zorder=2)
