"""The figure of the `imbalance` benchmark: methods and losses, and classes."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.benchmark import Row
from benchmarks.drawing import RULE, WIDTH, look
from rpjax.report.drawing import Theme, blank

NAMES = {"plain": "Plain", "strategy1": "Strategy I", "dpsgd": "DP-SGD"}


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    """Balanced accuracy above; recall and the attack's AUC by class below."""
    rows = record["rows"]
    trained = [row for row in rows if row["what"] == "classes"]
    attacked = [row for row in rows if row["what"] == "attack"]
    heights = [0.5 + 0.24 * len(trained), 2.4, *([2.4] if attacked else [])]
    made = blank(WIDTH, 1.0 + sum(heights))
    made.set_layout_engine("constrained")
    ratios = {"height_ratios": heights}
    grid = made.subplots(len(heights), 1, squeeze=False, gridspec_kw=ratios)[:, 0]
    _balanced(grid[0], trained, theme)
    shown = [r for r in trained if r["loss"] in ("cross-entropy", "balanced softmax")]
    styles = look([_name(row) for row in shown])
    _classes(grid[1], shown, "recalls", styles, theme)
    grid[1].set_ylabel("recall, %")
    grid[1].set_ylim(-4, 104)
    if attacked:
        _classes(grid[2], attacked, "auc", styles, theme)
        grid[2].set_ylabel("AUC of LiRA, %")
        grid[2].axhline(50, color=theme.muted, linewidth=1, linestyle=RULE)
    handles, labels = grid[1].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=2)
    return made


def _name(row: Row) -> str:
    return f"{NAMES[row['method']]}, {row['loss']}"


def _balanced(axes: Axes, rows: list[Row], theme: Theme) -> None:
    colours = {name: style.colour(theme) for name, style in look(list(NAMES)).items()}
    for place, row in enumerate(rows):
        own = row["balanced_accuracy"]
        value, *ends = (100 * own[end] for end in ("value", "low", "high"))
        colour = colours[row["method"]]
        axes.barh(place, value, height=0.62, color=colour, alpha=0.55)
        axes.plot(ends, [place] * 2, color=theme.ink, linewidth=1.4)
        text = {"textcoords": "offset points", "va": "center", "fontsize": 8}
        axes.annotate(f"{value:.1f}", (max(ends), place), (5, 0), **text)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 100)
    axes.set_xlabel("balanced test accuracy, %, mean and 95 % interval over seeds")


def _classes(axes: Axes, rows: list[Row], what: str, styles: Any, theme: Theme) -> None:
    """A point with its interval for each class and row, rare classes shaded."""
    for place, row in enumerate(rows):
        style, own = styles.get(_name(row)), row[what]
        if style is None:
            continue
        shift = 0.8 / len(rows) * (place - (len(rows) - 1) / 2)
        across = [c + shift for c in range(len(own))]
        values = [100 * each["value"] for each in own]
        for x, each in zip(across, own, strict=True):
            ends = [100 * each["low"], 100 * each["high"]]
            axes.plot([x, x], ends, color=style.colour(theme), linewidth=1)
        axes.plot(
            across,
            values,
            color=style.colour(theme),
            marker=style.marker,
            linestyle="none",
            markersize=5,
            label=_name(row),
        )
    counts = rows[0]["counts"]
    rare = len(counts) // 2
    axes.axvspan(rare - 0.5, len(counts) - 0.5, color=theme.muted, alpha=0.13, lw=0)
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_xticks(range(len(counts)))
    axes.set_xlabel(
        f"class; {counts[0]:,} training records each, shaded: {counts[-1]:,} each"
    )
    axes.grid(axis="x", visible=False)
