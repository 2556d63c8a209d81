"""Figures that compare methods: accuracy against attack, single canaries, bounds."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from rpjax.report import by_class
from rpjax.report.audits.content import headline, noisy, point, strongest
from rpjax.report.audits.curves import draws, looks, named, roc, scores
from rpjax.report.audits.words import NOT_AUDITED, kind_name, proved
from rpjax.report.axes import (
    LEGEND,
    WIDTH,
    ends,
    legend_below,
    legend_height,
    padded,
)
from rpjax.report.drawing import LIGHT, Style, Theme, blank, themed
from rpjax.report.placement import Box, box_of, place_labels, wrapped
from rpjax.report.results import Results

WIDEST_LINEAR = 25.0


def all_figures(results: Results, theme: Theme = LIGHT) -> dict[str, Figure]:
    """All figures by name, in the order of the report; some need noise, or audits."""
    audits = any(method["audits"] for method in results["methods"])
    makers: dict[str, Callable[[Results, Theme], Figure]] = {
        "roc": roc,
        **({"draws": draws} if noisy(results) else {}),
        "tradeoff": tradeoff,
        "vulnerability": vulnerability,
        **({"by_class": classes} if by_class.panels(results, headline) else {}),
        **({"bounds": bounds} if audits else {}),
        "scores": scores,
    }
    return {name: make(results, theme) for name, make in makers.items()}


# Accuracy against attack ------------------------------------------------------------


def tradeoff(results: Results, theme: Theme = LIGHT) -> Figure:
    """Test accuracy against TPR at 1 % FPR of the strongest attack on each kind.

    Filled: the kind of which most are found; hollow: the others.
    """
    with themed(theme):
        figure = blank(WIDTH, 4.6)
        axes = figure.add_axes((0.105, 0.53 / 4.6, 0.885, 3.75 / 4.6))
        places = {method["name"]: _places(method) for method in results["methods"]}
        _tradeoff_axes(axes, [p for own in places.values() for p in own])
        drawn: list[Box] = []
        for method, style in looks(results):
            drawn += _draw_places(axes, places[method["name"]], style, theme)
        points = [(own[0][0], own[0][3]) for own in places.values()]
        labels = [method["label"] for method in results["methods"]]
        place_labels(axes, points, labels, drawn, theme)
        if any(len(own) > 1 for own in places.values()):
            _kinds_key(figure, theme)
        return figure


Place = tuple[float, float, float, float, float, float]


def _places(method: dict) -> list[Place]:
    """TPR and its ends, accuracy and its ends, of each kind; the headline one first."""
    first = headline(method)
    others = [entry for entry in method["exposure"] if entry is not first]
    accuracy = ends(method["utility"]["test_accuracy"])
    return [
        (*ends(point(strongest(entry)), "tpr"), *accuracy) for entry in [first, *others]
    ]


def _tradeoff_axes(axes: Axes, places: list[Place]) -> None:
    axes.set_xlim(*padded([x for p in places for x in p[:3]], 0.02))
    axes.set_ylim(*padded([y for p in places for y in p[3:]], 0.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.4g} %"))
    axes.set_xlabel("True-positive rate at 1 % FPR of the strongest attack")
    axes.set_ylabel("Test accuracy")


def _draw_places(
    axes: Axes, places: list[Place], style: Style, theme: Theme
) -> list[Box]:
    """Draw one method; give the boxes that labels should not cover."""
    colour = style.colour(theme)
    boxes = []
    for number, (x, left, right, y, low, high) in enumerate(places):
        bars: dict[str, Any] = {"color": colour, "linewidth": 1.1, "zorder": 2}
        axes.plot([left, right], [y, y], **bars)
        axes.plot([x, x], [low, high], **bars)
        look: dict[str, Any] = {"markeredgecolor": colour, "markeredgewidth": 1.5}
        look["markerfacecolor"] = theme.paper if number else colour
        front = 3 if number else 4
        axes.plot(x, y, style.marker, markersize=8, zorder=front, **look)
        boxes += [
            box_of(axes, [(left, y), (right, y)], 1),
            box_of(axes, [(x, low), (x, high)], 1),
            box_of(axes, [(x, y)], 7),
        ]
    return boxes


def _kinds_key(figure: Figure, theme: Theme) -> None:
    """Say above the axes what filled and hollow mean."""
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 8}
    look |= {"color": theme.muted, "markeredgewidth": 1.5}
    handles = [
        Line2D([], [], **look),
        Line2D([], [], markerfacecolor=theme.paper, **look),
    ]
    names = ["worst kind of canaries", "other kinds"]
    place: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (0.995, 1.0)}
    figure.legend(handles, names, ncols=2, handletextpad=0.2, **place)


# Single canaries --------------------------------------------------------------------


def vulnerability(results: Results, theme: Theme = LIGHT) -> Figure:
    """Effect sizes of single canaries, largest first; those without spread left out."""
    with themed(theme):
        labels = [named(results, method) for method in results["methods"]]
        figure = blank(WIDTH, 3.7 + legend_height(labels))
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        for label, (method, style) in zip(labels, looks(results), strict=True):
            known = [e for e in headline(method)["effects"] if e is not None]
            axes.plot(
                range(1, len(known) + 1),
                sorted(known, reverse=True),
                style.marker,
                color=style.colour(theme),
                linestyle=style.line,
                markevery=max(1, len(known) // 12),
                markersize=5.5,
                label=wrapped(label, LEGEND),
            )
        axes.axhline(0, color=theme.muted, linewidth=1)
        axes.set_xlabel("Canaries, the most exposed first")
        axes.set_ylabel("Effect size")
        legend_below(figure, axes)
        return figure


def classes(results: Results, theme: Theme = LIGHT) -> Figure:
    """AUC within each class of canaries, of the kind of which most are found."""
    return by_class.figure(results, headline, theme)


# Bounds against proofs --------------------------------------------------------------


def bounds(results: Results, theme: Theme = LIGHT) -> Figure:
    """Each audit's lower bound on epsilon, and what is proved, method by method.

    A point with an arrow: epsilon is at least that. A bar: it is at most that, for the
    neighbours that are named beside it.
    """
    with themed(theme):
        rows = sum(max(1, len(m["audits"])) + 1 for m in results["methods"])
        figure = blank(WIDTH, 1.2 + 0.31 * rows)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        _bound_scale(axes, _largest(results))
        heads: list[tuple[float, str]] = []
        ticks: list[tuple[float, str]] = []
        row = 0.0
        for method, style in looks(results):
            heads.append((row, wrapped(method["label"], LEGEND)))
            own = [_audited(audit) for audit in method["audits"]] or [NOT_AUDITED]
            ticks += [(row + k, text) for k, text in enumerate(own, start=1)]
            _draw_bounds(axes, method, style, row, theme)
            row += len(own) + 1.3
        _bound_rows(axes, heads, ticks, row)
        _bounds_key(figure, theme)
        return figure


def _audited(audit: dict) -> str:
    name = f"{audit['threat']}, {kind_name(audit['canaries'])}: {audit['attack_label']}"
    return wrapped(name, LEGEND)


def _largest(results: Results) -> float:
    found = [a["epsilon"] for m in results["methods"] for a in m["audits"]]
    proved = (m["guarantee"]["epsilon"] for m in results["methods"])
    return float(max(1.0, *found, *(e for e in proved if e is not None)))


def _bound_scale(axes: Axes, top: float) -> None:
    """Limits; a vacuous proof must not press the bounds into one point."""
    if top <= WIDEST_LINEAR:
        axes.set_xlim(-0.02 * top, 1.12 * top)
        return
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.1, 4 * top)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _bound_rows(
    axes: Axes,
    heads: list[tuple[float, str]],
    ticks: list[tuple[float, str]],
    end: float,
) -> None:
    """Names at the left: of methods in bold, below each what was audited."""
    places, names = zip(*sorted(heads + ticks), strict=True)
    axes.set_yticks(places, names)
    bold = {at for at, _ in heads}
    for at, label in zip(places, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if at in bold else "normal")
    axes.set_ylim(end - 0.6, -0.7)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("ε")


def _draw_bounds(
    axes: Axes, method: dict, style: Style, row: float, theme: Theme
) -> None:
    """One method below the row of its name, which says what is proved."""
    colour = style.colour(theme)
    for number, audit in enumerate(method["audits"], start=1):
        at = (audit["epsilon"], row + number)
        arrow = {"arrowstyle": "<-", "color": colour, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", at, (26, 0), textcoords="offset points", arrowprops=arrow)
        axes.plot(*at, style.marker, color=colour, zorder=3)
    proof = proved(method)
    said = ", ".join(proof.lines())
    axes.text(
        *(0.012, row, f"proved: {said}" if proof.note else said),
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=8.5,
        color=theme.muted,
    )
    if method["guarantee"]["epsilon"] is not None:
        last = row + max(1, len(method["audits"]))
        x = [method["guarantee"]["epsilon"]] * 2
        axes.plot(x, [row + 0.55, last + 0.45], color=theme.ink, linewidth=2.4)


def _bounds_key(figure: Figure, theme: Theme) -> None:
    look: dict[str, Any] = {"linestyle": "none", "color": theme.muted}
    handles = [
        Line2D([], [], marker="o", **look),
        Line2D([], [], marker="|", markersize=11, markeredgewidth=2.4, **look),
    ]
    names = ["at least, by an audit", "at most, as proved"]
    figure.legend(handles, names, loc="outside lower center", ncols=2)
