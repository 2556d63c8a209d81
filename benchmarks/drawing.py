"""Figures of records in the house's style: groups of bars, lines, and their files."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from benchmarks.benchmark import Row, find
from benchmarks.record import read
from rpjax.experiments.runs import write_text
from rpjax.report.drawing import DARK, LIGHT, Style, Theme, blank, styles, svg, themed

WIDTH = 7.2
RULE = (0, (2, 2))


class Panel(NamedTuple):
    """One column of bars.

    value: of a row, or None where it was not measured; text: what is written at its
    end; spread: the ends of its whisker, if it has one; rule: where 1 is, say; tick:
    how the axis is numbered.
    """

    title: str
    value: Callable[[Row], float | None]
    text: Callable[[Row], str]
    spread: Callable[[Row], Sequence[float] | None] = lambda row: None
    rule: float | None = None
    tick: Callable[[float], str] = lambda x: f"{x:g}×"


def draw(file: Path, out: Path) -> list[Path]:
    """The figure of a record, light and dark, as PNG and SVG named after the file."""
    record = read(file)
    make = find(record["name"]).figure
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for theme in (LIGHT, DARK):
        with themed(theme):
            figure = make(record, theme)
            stem = out / f"{file.stem}-{theme.name}"
            written += [stem.with_suffix(".svg"), stem.with_suffix(".png")]
            write_text(written[-2], svg(figure))
            _write_png(written[-1], figure, theme)
    return written


def look(names: Sequence[str]) -> dict[str, Style]:
    """One style a name; the methods look as they do in reports."""
    methods = [{"name": name} for name in names]
    return dict(zip(names, styles({"methods": methods}), strict=True))


def bars(
    groups: Mapping[str, Sequence[Row]],
    label: Callable[[Row], str],
    panels: Sequence[Panel],
    style: Callable[[Row], Style],
    theme: Theme,
) -> Figure:
    """A row of axes for each group, a column for each panel, a bar for each row."""
    counts = [len(rows) for rows in groups.values()]
    figure = blank(WIDTH, 0.5 + 0.75 * len(counts) + 0.3 * sum(counts))
    figure.set_layout_engine("constrained")
    shape = (len(counts), len(panels))
    grid = figure.subplots(
        *shape,
        squeeze=False,
        sharex="col",
        gridspec_kw={"height_ratios": [count + 1.2 for count in counts]},
    )
    for line, (name, rows) in zip(grid, groups.items(), strict=True):
        for axes, panel in zip(line, panels, strict=True):
            _bar_axes(axes, rows, panel, style, theme)
            axes.set_title(", ".join(filter(None, (name, panel.title))))
            axes.set_yticks(range(len(rows)), [""] * len(rows))
        line[0].set_yticks(range(len(rows)), [label(row) for row in rows])
    every = [row for rows in groups.values() for row in rows]
    for axes, panel in zip(grid[-1], panels, strict=True):
        axes.set_xlim(0, _limit(panel, every, 5.2 / len(panels)))
    return figure


def _limit(panel: Panel, rows: Sequence[Row], inches: float) -> float:
    """Where an axis of so many inches ends, for its longest bar and what is written."""
    measured = [row for row in rows if panel.value(row) is not None]
    ends = [end for row in measured for end in panel.spread(row) or ()]
    longest = max([panel.value(row) or 0.0 for row in measured] + ends, default=0.0)
    letters = max([len(panel.text(row)) for row in measured], default=12)
    room = min(0.65, (0.075 * letters + 0.12) / inches)
    return max(longest, panel.rule or 0.0, 1e-12) / (1 - room)


def _bar_axes(
    axes: Axes,
    rows: Sequence[Row],
    panel: Panel,
    style: Callable[[Row], Style],
    theme: Theme,
) -> None:
    values = [panel.value(row) for row in rows]
    lengths = [value or 0.0 for value in values]
    colours = [style(row).colour(theme) for row in rows]
    height = 0.62 if len(rows) > 1 else 0.4
    axes.barh(range(len(rows)), lengths, height=height, color=colours)
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        # what is written starts beyond the rule, not across it
        end = max(lengths[place], panel.rule or 0.0)
        ends = panel.spread(row)
        if value is not None and ends and ends[0] < ends[1]:
            axes.plot(ends, [place] * 2, color=theme.muted, linewidth=1.2)
            end = max(end, *ends)
        text = "not measured" if value is None else panel.text(row)
        options: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
        axes.annotate(text, (end, place), (5, 0), fontsize=9, **options)
    if panel.rule is not None:
        axes.axvline(panel.rule, color=theme.muted, linewidth=1, linestyle=RULE)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, min_n_ticks=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: panel.tick(x)))


def lines(
    axes: Axes,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    theme: Theme,
    labels: Mapping[str, str] | None = None,
) -> None:
    """One line a name over numbers that double: members, devices."""
    for name, style in look(list(series)).items():
        across, upward = series[name]
        axes.plot(
            across,
            upward,
            color=style.colour(theme),
            marker=style.marker,
            linestyle=style.line,
            label=(labels or {}).get(name, name),
        )
    ticks = sorted({x for across, _ in series.values() for x in across})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def legend_below(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """The legend of some axes under everything."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, handlelength=2.6
    )


def _write_png(path: Path, figure: Figure, theme: Theme) -> None:
    stream = io.BytesIO()
    figure.savefig(
        stream,
        format="png",
        dpi=160,
        facecolor=theme.paper,
        metadata={"Software": None},
    )
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(stream.getvalue())
    os.replace(temporary, path)
