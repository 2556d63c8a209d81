"""Figures of single attacks: ROC curves, what draws buy, the scores behind them."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rpjax.report import formats
from rpjax.report.audits.content import headline, noisy, strongest
from rpjax.report.audits.words import kind_name
from rpjax.report.axes import (
    FEW,
    LEGEND,
    WIDTH,
    ZONE,
    ends,
    legend_below,
    legend_height,
    lifted,
    marks,
    roc_axes,
    thinned,
)
from rpjax.report.drawing import LIGHT, Style, Theme, blank, styles, themed
from rpjax.report.placement import wrapped
from rpjax.report.results import Results

WIDE = 10.8
DASHED = (0, (5, 3))


def looks(results: Results) -> list[tuple[dict, Style]]:
    """Each method with its look."""
    return list(zip(results["methods"], styles(results), strict=True))


def named(results: Results, method: dict) -> str:
    """A method, and its canaries where methods differ in their worst ones."""
    kinds = {headline(each)["kind"] for each in results["methods"]}
    own = kind_name(headline(method)["kind"])
    return str(method["label"]) + (f", {own}" if len(kinds) > 1 else "")


# ROC curves -------------------------------------------------------------------------


def roc(results: Results, theme: Theme = LIGHT) -> Figure:
    """ROC of each method's strongest attack: logarithmic axes, and linear ones beside.

    Axes of the first run from one false positive to 1; rates of zero lie on the edge.
    Bands are the intervals of attacks.json. A dashed curve is what is proved to be out
    of reach of every attack on the method of that colour.
    """
    with themed(theme):
        labels = [_roc_label(results, method) for method in results["methods"]]
        ceilings = [m for m in results["methods"] if m["ceiling"]]
        told = [ZONE, *labels, *(_ceiling_label(method) for method in ceilings)]
        figure = blank(WIDE, 4.7 + legend_height(told, 3))
        figure.set_layout_engine("constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        sizes = [headline(method)["non_members"] for method in results["methods"]]
        floor = 1 / max(2, *sizes)
        roc_axes(left, floor, FEW / max(1, min(sizes)), theme)
        _linear_axes(right, theme)
        for axes, least in ((left, floor), (right, 0.0)):
            for label, (method, style) in zip(labels, looks(results), strict=True):
                _draw_curve(axes, label, method, style, (floor, least), theme)
            for method, style in looks(results):
                _draw_ceiling(axes, method, style, (floor, least), theme)
        left.set_title("Both axes logarithmic")
        right.set_title("Both axes linear")
        legend_below(figure, left, 3)
        return figure


def _roc_label(results: Results, method: dict) -> str:
    area = formats.auc(strongest(headline(method))["auc"]["value"])
    return f"{named(results, method)}, AUC\xa0{area}"


def _ceiling_label(method: dict) -> str:
    return f"{method['label']}: proved ceiling"


def _linear_axes(axes: Axes, theme: Theme) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.set_xlabel("False-positive rate")
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, zorder=1)


def _draw_curve(
    axes: Axes,
    label: str,
    method: dict,
    style: Style,
    floors: tuple[float, float],
    theme: Theme,
) -> None:
    """A curve and its band; floors: of thinning, and where rates of zero are drawn."""
    curve = strongest(headline(method))["roc"]
    kept = thinned(curve["fpr"], curve["tpr"], floors[0])
    fpr, tpr = (lifted(curve[key], kept, floors[1]) for key in ("fpr", "tpr"))
    colour = style.colour(theme)
    low, high = (_end(curve, key, floors[1], kept) for key in ("low", "high"))
    band: dict[str, Any] = {"alpha": 0.15, "linewidth": 0, "zorder": 1.5}
    axes.fill_between(fpr, low, high, step="post", color=colour, **band)
    axes.plot(
        fpr,
        tpr,
        color=colour,
        linestyle=style.line,
        drawstyle="steps-post",
        marker=style.marker,
        markevery=marks(fpr),
        label=wrapped(label, LEGEND),
    )


def _end(curve: dict, key: str, floor: float, kept: Sequence[int]) -> list[float]:
    """One edge of the band; where it is not known, the curve itself."""
    ends = curve[key] or [None] * len(curve["tpr"])
    pairs = zip(ends, curve["tpr"], strict=True)
    whole = [tpr if end is None else end for end, tpr in pairs]
    return lifted(whole, kept, floor)


def _draw_ceiling(
    axes: Axes, method: dict, style: Style, floors: tuple[float, float], theme: Theme
) -> None:
    if not method["ceiling"]:
        return
    curve = method["ceiling"]
    kept = thinned(curve["fpr"], curve["tpr"], floors[0])
    axes.plot(
        *(lifted(curve[key], kept, floors[1]) for key in ("fpr", "tpr")),
        color=style.colour(theme),
        linestyle=DASHED,
        linewidth=1.3,
        label=wrapped(_ceiling_label(method), LEGEND),
    )


# What draws buy ---------------------------------------------------------------------


def draws(results: Results, theme: Theme = LIGHT) -> Figure:
    """TPR at 1 % FPR against the number of answers an attacker may average over."""
    with themed(theme):
        shown = [pair for pair in looks(results) if pair[0] in noisy(results)]
        labels = [named(results, method) for method, _ in shown]
        figure = blank(WIDTH, 3.7 + legend_height(labels))
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        for number, (label, (method, style)) in enumerate(
            zip(labels, shown, strict=True)
        ):
            # side by side, so that no bar hides another
            aside = 1.03 ** (number - (len(shown) - 1) / 2)
            _draw_draws(axes, label, headline(method)["by_draws"], style, aside, theme)
        _draws_axes(axes, shown)
        legend_below(figure, axes)
        return figure


def _draw_draws(
    axes: Axes, label: str, steps: list[dict], style: Style, aside: float, theme: Theme
) -> None:
    places = [ends(step["point"], "tpr") for step in steps]
    x = [step["draws"] * aside for step in steps]
    y = [middle for middle, _, _ in places]
    bars = [[m - low for m, low, _ in places], [high - m for m, _, high in places]]
    look: dict[str, Any] = {"color": style.colour(theme), "linestyle": style.line}
    name = wrapped(label, LEGEND)
    axes.errorbar(x, y, bars, marker=style.marker, elinewidth=1.1, label=name, **look)


def _draws_axes(axes: Axes, shown: Sequence[tuple[dict, Style]]) -> None:
    counts = {s["draws"] for method, _ in shown for s in headline(method)["by_draws"]}
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted(counts)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g} %"))
    # a marker at 100 % is whole
    axes.set_ylim(0, 1.04 * axes.get_ylim()[1])
    axes.set_xlabel("Answers per record, each with fresh noise")
    axes.set_ylabel("True-positive rate at 1 % FPR")


# Scores -----------------------------------------------------------------------------


def scores(results: Results, theme: Theme = LIGHT) -> Figure:
    """Histograms of the strongest attack's scores, canaries in and out of a model."""
    with themed(theme):
        methods = looks(results)
        columns = {1: 1, 2: 2, 4: 2}.get(len(methods), 3)
        rows = -(-len(methods) // columns)
        width = WIDE if columns == 3 else WIDTH
        figure = blank(width, 0.5 + 2.6 * rows)
        figure.set_layout_engine("constrained")
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, (method, style) in zip(grid, methods, strict=False):
            _draw_scores(axes, headline(method)["histogram"], style, theme)
            attack = strongest(headline(method))["label"]
            axes.set_title(wrapped(f"{named(results, method)}: {attack}", 44))
            axes.set_xlabel("Score")
            axes.set_ylabel("Canaries × models")
        for axes in grid[len(methods) :]:
            axes.set_axis_off()
        _scores_key(figure, theme)
        return figure


def _draw_scores(axes: Axes, histogram: dict, style: Style, theme: Theme) -> None:
    edges = histogram["edges"]
    colour = style.colour(theme)
    axes.stairs(histogram["members"], edges, fill=True, color=colour, alpha=0.55)
    axes.stairs(histogram["non_members"], edges, color=theme.ink, linewidth=1.3)
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)


def _scores_key(figure: Figure, theme: Theme) -> None:
    handles = [
        Patch(color=theme.muted, alpha=0.55, linewidth=0),
        Line2D([], [], color=theme.ink, linewidth=1.3),
    ]
    names = ["canary was in the training set", "canary was not"]
    figure.legend(handles, names, loc="outside lower center", ncols=2)
