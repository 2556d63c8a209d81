"""Loss and accuracy against epoch, seconds an epoch: a row for each data and net."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks import cells
from benchmarks.benchmark import Row
from benchmarks.drawing import WIDTH, legend_below, look
from rpjax.errors import InputError
from rpjax.report.drawing import Style, Theme, blank


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    trained = [row for row in record["rows"] if row["reason"] is None]
    if not trained:
        raise InputError("nothing was trained, so there is nothing to draw")
    styles = look(list(dict.fromkeys(row["library"] for row in trained)))
    courses = list(dict.fromkeys((row["data"], row["model"]) for row in trained))
    made = blank(WIDTH, 0.6 + 2.1 * len(courses))
    made.set_layout_engine("constrained")
    grid = made.subplots(len(courses), 3, squeeze=False)
    for line, course in zip(grid, courses, strict=True):
        rows = [row for row in trained if (row["data"], row["model"]) == course]
        for axes, name, factor in (
            (line[0], "train_loss", 1),
            (line[1], "test_accuracy", 100),
        ):
            _curves(axes, rows, f"{name}_by_epoch", factor, styles, theme)
        _bars(line[2], rows, styles, theme)
        line[0].set_ylabel(_name(rows[0]), linespacing=1.4)
    for axes, title in zip(
        grid[0], ("training loss", "test accuracy, %", "seconds an epoch"), strict=True
    ):
        axes.set_title(title)
    for axes in grid[-1, :2]:
        axes.set_xlabel("epoch")
    legend_below(made, max(grid[:, 0], key=lambda axes: len(axes.lines)))
    return made


def _name(row: Row) -> str:
    return f"{row['data'].split('_')[0]}, {row['model']}\n{row['records']:,} records"


def _curves(
    axes: Axes,
    rows: list[Row],
    name: str,
    factor: int,
    styles: dict[str, Style],
    theme: Theme,
) -> None:
    for row in rows:
        style = styles[row["library"]]
        axes.plot(
            range(len(row[name])),
            [factor * value for value in row[name]],
            color=style.colour(theme),
            marker=style.marker,
            linestyle=style.line,
            markersize=4,
            label=row["library"],
        )
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _bars(axes: Axes, rows: list[Row], styles: dict[str, Style], theme: Theme) -> None:
    """Medians with the least and the most, the framework's colour saying whose."""
    longest = max(max(row["spread"]) for row in rows)
    for place, row in enumerate(rows):
        colour = styles[row["library"]].colour(theme)
        axes.barh(place, row["seconds"], height=0.62, color=colour)
        axes.plot(row["spread"], [place] * 2, color=theme.muted, linewidth=1.2)
        axes.annotate(
            cells.precise(row["seconds"]),
            (max(row["spread"]), place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, 1.45 * longest)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
