"""Accuracy over two settings as a heat map, a panel for each value of the others."""

import itertools
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rpjax.report import formats
from rpjax.report.drawing import LIGHT, Theme, blank, themed
from rpjax.report.sweeps.content import METRICS, Axis, Sweep, methods, varied

METRIC = "test_accuracy"
MOST_PANELS = 12
# panels beside each other, before the next row of them begins
BESIDE = 3
COLOURS = "cividis"


class Panel(NamedTuple):
    """What it shows of a sweep, and its cells by (column, row)."""

    title: str
    cells: dict[tuple[int, int], dict[str, Any]]


def panels(sweep: Sweep) -> list[Panel]:
    """A panel for each method and each value of the axes beyond the second."""
    columns, rows, *others = varied(sweep)
    found = []
    for method in methods(sweep):
        for chosen in itertools.product(*(range(len(o.options)) for o in others)):
            words = [method] if len(methods(sweep)) > 1 else []
            for axis, option in zip(others, chosen, strict=True):
                words.append(f"{axis.name} = {axis.labels()[option]}")
            cells = {
                (columns.of(row), rows.of(row)): row["metrics"][METRIC]
                for row in sweep["summary"]
                if row["method"] == method
                and all(a.of(row) == c for a, c in zip(others, chosen, strict=True))
            }
            found.append(Panel(", ".join(words), cells))
    return found


def heat_map(sweep: Sweep, theme: Theme = LIGHT) -> Figure:
    """Mean test accuracy: across the first axis of the grid, up the second.

    Below each mean stand the ends of its 95 % interval. The highest mean has a frame;
    the highest of many means is flattered by having been chosen.
    """
    columns, rows, *_ = varied(sweep)
    drawn = panels(sweep)
    beside = min(BESIDE, len(drawn))
    below = -(-len(drawn) // beside)
    means = [cell["mean"] for panel in drawn for cell in panel.cells.values()]
    colours = Normalize(100 * min(means), 100 * max(means))
    wide = max(0.92 * len(columns.options), 1.6) + 0.35
    high = max(0.62 * len(rows.options), 1.0) + 0.55
    with themed(theme):
        figure = blank(wide * beside + 2.0, high * below + 0.7)
        figure.set_layout_engine("constrained")
        grid = figure.subplots(below, beside, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(drawn):
                axes.set_visible(False)
                continue
            _draw(axes, drawn[place], columns, rows, colours, theme, max(means))
            axes.tick_params(labelleft=place % beside == 0)
            axes.tick_params(labelbottom=place + beside >= len(drawn))
        figure.supxlabel(columns.name, fontsize=10)
        figure.supylabel(rows.name, fontsize=10)
        scale = matplotlib.cm.ScalarMappable(colours, COLOURS)
        bar = figure.colorbar(scale, ax=list(grid.flat), fraction=0.05, pad=0.02)
        bar.set_label(f"{METRICS[METRIC]}, %")
        bar.outline.set_visible(False)
        return figure


def _draw(
    axes: Axes,
    panel: Panel,
    columns: Axis,
    rows: Axis,
    colours: Normalize,
    theme: Theme,
    most: float,
) -> None:
    across, up = len(columns.options), len(rows.options)
    for place in itertools.product(range(across), range(up)):
        corner = (place[0] - 0.5, place[1] - 0.5)
        cell = panel.cells.get(place)
        if cell is None:
            empty: dict[str, Any] = {"hatch": "///", "edgecolor": theme.grid}
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", **empty))
            continue
        colour = matplotlib.colormaps[COLOURS](colours(100 * cell["mean"]))
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, linewidth=0))
        _write_cell(axes, place, cell, colour)
        if cell["mean"] == most:
            frame: dict[str, Any] = {"edgecolor": theme.ink, "linewidth": 2.2}
            frame |= {"facecolor": "none", "zorder": 3, "clip_on": False}
            axes.add_patch(Rectangle(corner, 1, 1, **frame))
    axes.set_xlim(-0.5, across - 0.5)
    axes.set_ylim(-0.5, up - 0.5)
    axes.set_xticks(range(across), columns.labels())
    axes.set_yticks(range(up), rows.labels())
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(panel.title)


def _write_cell(
    axes: Axes,
    place: tuple[int, int],
    cell: dict[str, Any],
    colour: tuple[float, float, float, float],
) -> None:
    """The mean, and below it its interval, in a colour that can be read on the cell."""
    red, green, blue, _ = colour
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    look: dict[str, Any] = {"color": "#ffffff" if dark else "#14171b", "ha": "center"}
    interval = formats.percent_interval(cell["low"], cell["high"])
    column, row = place
    at = "bottom" if interval else "center"
    axes.text(column, row, f"{100 * cell['mean']:.1f}", va=at, fontsize=10, **look)
    axes.text(column, row - 0.08, interval, va="top", fontsize=7, **look)
