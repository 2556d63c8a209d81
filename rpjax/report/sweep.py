"""Views of sweep.json: a table of means over seeds, and metric against setting."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from rpjax.report import formats
from rpjax.report.drawing import LIGHT, Style, Theme, blank, png, styles, svg, themed
from rpjax.report.write import replace

Sweep = dict[str, Any]
METRICS = {
    "test_accuracy": "Test accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "generalization_gap": "Generalisation gap",
    "attack_auc": "Attack AUC",
}


def sweep_table(sweep: Sweep) -> Table:
    """A row for each method and setting: means over seeds; below, what is missing."""
    names = [name for name in sweep["grid"] if name not in ("methods", "seed")]
    shown = _shown(sweep)
    view = Table(
        box=box.SIMPLE_HEAD,
        caption="\n".join([NOTE, *_missing(sweep)]),
        caption_justify="left",
        caption_style="dim",
    )
    for heading in ("Method", *names, "Seeds"):
        view.add_column(Text(heading))
    for name in shown:
        view.add_column(Text(HEADINGS[name]), no_wrap=True)
    for row in sweep["summary"]:
        metrics = row["metrics"]
        seeds = str(metrics["test_accuracy"]["n"])
        own = [str(row["settings"].get(name)) for name in names]
        cells = [_cell(name, metrics.get(name)) for name in shown]
        view.add_row(*map(Text, (row["method"], *own, seeds, *cells)))
    return view


HEADINGS = {
    "test_accuracy": "Test acc.",
    "balanced_accuracy": "Balanced",
    "generalization_gap": "Gap",
    "attack_auc": "AUC",
}
KEY = "dots: seeds; band: one standard deviation; bars: 95 % interval of the mean"
NOTE = "Mean over seeds ± standard deviation; in brackets the mean's 95 % interval."


def _cell(name: str, spread: dict[str, Any] | None) -> str:
    if spread is None:
        return formats.NONE
    auc = name == "attack_auc"
    text = formats.auc(spread["mean"]) if auc else formats.percent(spread["mean"])
    if spread["deviation"] is None:
        return text
    deviation, low, high = (spread[key] for key in ("deviation", "low", "high"))
    if auc:
        return f"{text} ± {deviation:.3f}\n{formats.auc_interval(low, high)}"
    interval = formats.percent_interval(low, high)
    return f"{text} ± {100 * deviation:.1f}\n{interval}"


def _missing(sweep: Sweep) -> Iterator[str]:
    jobs = sweep["jobs"]
    done = sum(job["state"] == "finished" for job in jobs)
    yield f"{done} of {len(jobs)} jobs are finished."
    for state in ("missing", "unfinished", "failed"):
        found = [job for job in jobs if job["state"] == state]
        if found:
            yield f"{state}: {', '.join(str(job['number']) for job in found)}"
        for job in found:
            if "reason" in job:
                yield f"  {job['number']}: {job['reason']}"


def sweep_figure(sweep: Sweep, theme: Theme = LIGHT) -> Figure:
    """Each metric against the first numeric field of the grid, a line for each method.

    Dots are single seeds, the line joins means, the band is one standard deviation and
    bars are 95 % intervals of the mean. Fields beyond the first tell lines apart.
    """
    shown = _shown(sweep)
    with themed(theme):
        figure = blank(3.6 * len(shown), 3.9)
        figure.set_layout_engine("constrained")
        grid = figure.subplots(1, len(shown), squeeze=False)[0]
        field = _axis(sweep)
        lines = _lines(sweep, field)
        looks = styles({"methods": [{"name": _look(name)} for name in lines]})
        for axes, name in zip(grid, shown, strict=True):
            _draw_metric(axes, name, lines, looks, theme)
            axes.set_xlabel(field or "setting")
            axes.set_xticks(sorted(sweep["grid"][field]) if field else [])
            axes.set_title(METRICS[name])
        handles, labels = grid[0].get_legend_handles_labels()
        columns = max(1, min(len(labels), 2 * len(shown)))
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            title=KEY,
            title_fontsize=8.5,
        )
        return figure


def sweep_write(sweep: Sweep, out: Path) -> list[Path]:
    """Write sweep.png and sweep.svg, if any job is finished."""
    if not sweep["summary"]:
        return []
    figure = sweep_figure(sweep)
    contents = {"sweep.png": png(figure), "sweep.svg": svg(figure).encode()}
    for name, data in contents.items():
        replace(out / name, data)
    return [out / name for name in contents]


def _shown(sweep: Sweep) -> list[str]:
    """The metrics that any job has."""
    there = {name for row in sweep["summary"] for name in row["metrics"]}
    return [name for name in METRICS if name in there]


def _axis(sweep: Sweep) -> str | None:
    """The field on the x axis: the first one that holds different numbers."""
    for name, values in sweep["grid"].items():
        numbers = all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in values
        )
        if name != "seed" and numbers and len(values) > 1:
            return str(name)
    return None


# between the points of two lines, as a part of the axis
APART = 0.025
Point = tuple[float, dict[str, Any]]


def _lines(sweep: Sweep, field: str | None) -> dict[tuple[str, ...], list[Point]]:
    """(method, other settings) -> the points of its line, from left to right."""
    lines: dict[tuple[str, ...], list[Point]] = {}
    for row in sweep["summary"]:
        others = [
            f"{name} = {value}"
            for name, value in row["settings"].items()
            if name not in (field, "methods") and len(sweep["grid"].get(name, ())) > 1
        ]
        x = float(row["settings"][field]) if field else 0.0
        lines.setdefault((row["method"], *others), []).append((x, row["metrics"]))
    return {name: sorted(points, key=lambda p: p[0]) for name, points in lines.items()}


def _look(line: tuple[str, ...]) -> str:
    """A method's own look for its first line; others take the next free one."""
    return line[0] if len(line) == 1 else ", ".join(line)


def _draw_metric(
    axes: Axes,
    name: str,
    lines: dict[tuple[str, ...], list[Point]],
    looks: list[Style],
    theme: Theme,
) -> None:
    places = [x for points in lines.values() for x, _ in points]
    width = (max(places) - min(places)) or 1.0
    for number, ((line, points), look) in enumerate(
        zip(lines.items(), looks, strict=True)
    ):
        # side by side, so that no bar hides another
        aside = APART * width * (number - (len(lines) - 1) / 2)
        there = [(x + aside, metrics[name]) for x, metrics in points if name in metrics]
        _draw_line(axes, ", ".join(line), name, there, look.colour(theme), look)
    if name == "attack_auc":
        axes.axhline(0.5, color=theme.muted, linewidth=1, linestyle=(0, (2, 2)))


def _draw_line(
    axes: Axes, label: str, name: str, points: list[Point], colour: str, look: Style
) -> None:
    scale = 1.0 if name == "attack_auc" else 100.0
    x = [place for place, _ in points]
    mean = [scale * s["mean"] for _, s in points]
    spread = [scale * (s["deviation"] or 0.0) for _, s in points]
    drawn: dict[str, Any] = {"color": colour, "linestyle": look.line}
    marker: dict[str, Any] = {"marker": look.marker, "markersize": 5.5}
    axes.plot(x, mean, label=label, zorder=3, **marker, **drawn)
    low = [m - d for m, d in zip(mean, spread, strict=True)]
    high = [m + d for m, d in zip(mean, spread, strict=True)]
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)
    for place, found in points:
        values = [scale * value for value in found["values"]]
        single: dict[str, Any] = {"color": colour, "markersize": 3, "alpha": 0.7}
        axes.plot([place] * len(values), values, "o", zorder=4, **single)
        if found["low"] is not None and math.isfinite(found["low"]):
            ends = [scale * found["low"], scale * found["high"]]
            axes.plot([place, place], ends, color=colour, linewidth=1.2, zorder=2)
    if scale > 1:
        axes.set_ylabel("%")
