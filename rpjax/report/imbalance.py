"""The figure of class counts: how many records each class has, before and after."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rpjax.errors import InputError
from rpjax.report.drawing import LIGHT, Theme, blank, themed
from rpjax.report.results import Results

WIDTH = 7.2
# so many bars have room for a number and a name each
MOST_NAMED = 20
_BAR = {"light": "#0072b2", "dark": "#4fabe8"}


CAPTION = (
    "Training records of each class, before the split and after it. For the owner of "
    "the report alone, where counts are not public."
)


def table(results: Results) -> list[dict[str, Any]]:
    """Rows for `class_counts_figure`; none where the data are taken as they are."""
    data = results["data"]
    made = data.get("imbalance")
    if not made:
        return []
    return [
        {"name": name, "available": had, "records": kept}
        for name, had, kept in zip(
            data["class_names"], made["available"], made["counts"], strict=True
        )
    ]


def class_counts_figure(
    table: Sequence[dict[str, Any]], theme: Theme = LIGHT
) -> Figure:
    """Bars of the records of each class, before a pale outline of what there was.

    table: rows with "name", "available" and "records", as made by
        `rpjax.data.imbalance.Imbalance.table`.

    The axis is linear and starts at zero, so that lengths compare as counts do; the
    numbers above the bars tell short ones apart.
    """
    if not table:
        raise InputError("table: no class")
    with themed(theme):
        figure = blank(WIDTH, 3.2)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        at = range(len(table))
        kept = [int(row["records"]) for row in table]
        had = [int(row["available"]) for row in table]
        axes.bar(at, had, width=0.8, color=theme.zone, label="available")
        axes.bar(at, kept, width=0.8, color=_BAR[theme.name], label="kept")
        _labels(axes, table, kept, theme)
        axes.set_ylabel("Training records")
        axes.set_title(
            f"{sum(kept)} records of {len(kept)} classes, largest over smallest "
            f"{max(kept) / max(min(kept), 1):.4g}"
        )
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1.12 * max(*had, 1))
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def _labels(
    axes: Axes, table: Sequence[dict[str, Any]], kept: Sequence[int], theme: Theme
) -> None:
    if len(table) > MOST_NAMED:
        axes.set_xlabel("Class")
        return
    long = max(len(str(row["name"])) for row in table) > 6
    axes.set_xticks(
        range(len(table)), [str(row["name"]) for row in table], rotation=30 * long
    )
    for x, count in enumerate(kept):
        axes.annotate(
            f"{count}",
            (x, count),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=theme.ink,
        )
