"""The figures: accuracy against attack, ROC curves, classes, training, cost."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from rpjax.report import by_class, formats, imbalance
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
    nothing,
    padded,
    roc_axes,
    thinned,
)
from rpjax.report.drawing import LIGHT, Style, Theme, blank, styles, themed
from rpjax.report.placement import Box, box_of, place_labels, wrapped
from rpjax.report.results import (
    Results,
    attacked,
    deployed,
    largest_auc,
    noise_off,
    strongest,
)

MOST_LABELS = 8


def all_figures(results: Results, theme: Theme = LIGHT) -> dict[str, Figure]:
    """All figures by name, in the order of the report, as far as there is one."""
    makers: dict[str, Callable[[Results, Theme], Figure]] = {
        **({"tradeoff": tradeoff, "roc": roc} if attacked(results) else {}),
        **({"by_class": classes} if by_class.panels(results, deployed) else {}),
        **({"class_counts": class_counts} if imbalance.table(results) else {}),
        "training": training,
        "cost": cost,
    }
    return {name: make(results, theme) for name, make in makers.items()}


def classes(results: Results, theme: Theme = LIGHT) -> Figure:
    """AUC within each class of the strongest attack on the deployed model."""
    return by_class.figure(results, deployed, theme)


def class_counts(results: Results, theme: Theme = LIGHT) -> Figure:
    """Training records of each class, where a split thinned them out."""
    return imbalance.class_counts_figure(imbalance.table(results), theme)


# Accuracy against attack ------------------------------------------------------------


def tradeoff(results: Results, theme: Theme = LIGHT) -> Figure:
    """Test accuracy against the AUC of the strongest attack on the deployed query.

    A hollow marker is the same method with its noise switched off (T4), where that was
    measured. Bars are the intervals of results.json. Up to eight methods are named
    beside their points, more in a legend.
    """
    with themed(theme):
        shown = [
            (method["label"], style, _place(method, entry))
            for method, style in zip(results["methods"], styles(results), strict=True)
            if (entry := deployed(method))
        ]
        labels = [label for label, _, _ in shown]
        many = len(shown) > MOST_LABELS
        below = legend_height(labels) if many else 0.0
        figure, axes = _tradeoff_figure(below)
        if not shown:
            return nothing(figure, axes, "No method was attacked.")
        places = [place for _, _, place in shown]
        _tradeoff_axes(axes, places, theme)
        drawn = [box_of(axes, [(0.5, y) for y in axes.get_ylim()], 1)]
        for _, style, place in shown:
            drawn += _draw_method(axes, style, place, theme)
        if any(len(place) > 6 for place in places):
            _hollow_key(figure, axes, theme)
        if many:
            _point_legend(figure, shown, theme)
        else:
            place_labels(axes, [(p[0], p[3]) for p in places], labels, drawn, theme)
        return figure


def _tradeoff_figure(below: float) -> tuple[Figure, Axes]:
    """A figure whose axes keep their size above `below` inches of legend."""
    height = 4.6 + below
    figure = blank(WIDTH, height)
    box = (0.105, (0.53 + below) / height, 0.885, 3.75 / height)
    return figure, figure.add_axes(box)


def _point_legend(figure: Figure, shown: Sequence[tuple], theme: Theme) -> None:
    handles = [
        Line2D([], [], color=s.colour(theme), marker=s.marker, linestyle="none")
        for _, s, _ in shown
    ]
    labels = [wrapped(label, LEGEND) for label, _, _ in shown]
    figure.legend(handles, labels, loc="lower center", ncols=2)


def _place(method: dict, entry: dict) -> tuple[float, ...]:
    """AUC and its ends, accuracy and its ends, then the AUC with the noise off."""
    accuracy = method["utility"]["test_accuracy"]
    quiet = noise_off(method)
    off = (largest_auc(quiet),) if quiet else ()
    return (*ends(strongest(entry)["auc"]), *ends(accuracy), *off)


def _tradeoff_axes(axes: Axes, places: list[tuple[float, ...]], theme: Theme) -> None:
    across = [0.5, *(x for place in places for x in (*place[:3], *place[6:]))]
    upward = [y for place in places for y in place[3:6]]
    axes.set_xlim(*padded(across, 0.06))
    axes.set_ylim(*padded(upward, 0.02))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.4g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g} %"))
    axes.set_xlabel("AUC of the strongest attack (0.5 = guessing)")
    axes.set_ylabel("Test accuracy")
    axes.axvline(0.5, color=theme.muted, linewidth=1.2, zorder=1)


def _draw_method(
    axes: Axes, style: Style, place: tuple[float, ...], theme: Theme
) -> list[Box]:
    """Draw one method; give the boxes that labels should not cover."""
    x, left, right, y, low, high, *off = place
    colour = style.colour(theme)
    bars: dict[str, Any] = {"color": colour, "linewidth": 1.2, "zorder": 2}
    axes.plot([left, right], [y, y], **bars)
    axes.plot([x, x], [low, high], **bars)
    axes.plot(x, y, style.marker, color=colour, markersize=8, zorder=4)
    boxes = [
        box_of(axes, [(left, y), (right, y)], 1),
        box_of(axes, [(x, low), (x, high)], 1),
        box_of(axes, [(x, y)], 7),
    ]
    for quiet in off:
        axes.plot([x, quiet], [y, y], ":", color=colour, linewidth=1.6, zorder=2)
        axes.plot(
            quiet,
            y,
            style.marker,
            markerfacecolor=theme.paper,
            markeredgecolor=colour,
            markeredgewidth=1.6,
            markersize=8,
            zorder=3,
        )
        boxes += [
            box_of(axes, [(x, y), (quiet, y)], 1),
            box_of(axes, [(quiet, y)], 7),
        ]
    return boxes


def _hollow_key(figure: Figure, axes: Axes, theme: Theme) -> None:
    """Say above the axes what filled and hollow mean."""
    look: dict[str, Any] = {
        "color": theme.muted,
        "markeredgewidth": 1.6,
        "markersize": 8,
    }
    hollow: dict[str, Any] = {**look, "markerfacecolor": theme.paper}
    axes.plot([], [], "o", label="as deployed", **look)
    axes.plot([], [], "o", label="noise switched off, weights known (T4)", **hollow)
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (0.995, 1.0)}
    figure.legend(handles, labels, ncols=2, handletextpad=0.2, **place)


# ROC curves -------------------------------------------------------------------------


def roc(results: Results, theme: Theme = LIGHT) -> Figure:
    """ROC of the strongest attack per method, both axes logarithmic.

    Axes run from one false positive to 1; rates of zero lie on the edge. In the grey
    zone fewer than ten false positives stand behind a point.
    """
    with themed(theme):
        shown = [
            (method, style, entry)
            for method, style in zip(results["methods"], styles(results), strict=True)
            if (entry := deployed(method))
        ]
        labels = [_roc_label(method, entry) for method, _, entry in shown]
        figure = blank(WIDTH, 5.0 + legend_height([ZONE, *labels]))
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        if not shown:
            return nothing(figure, axes, "No method was attacked.")
        outsiders = [entry["non_members"] for _, _, entry in shown]
        floor = 1 / max(2, *outsiders)
        roc_axes(axes, floor, FEW / max(1, min(outsiders)), theme)
        for label, (_, style, entry) in zip(labels, shown, strict=True):
            _draw_roc(axes, label, entry, style, floor, theme)
        legend_below(figure, axes)
        return figure


def _roc_label(method: dict, entry: dict) -> str:
    return f"{method['label']}, AUC {formats.auc(strongest(entry)['auc']['value'])}"


def _draw_roc(
    axes: Axes, label: str, entry: dict, style: Style, floor: float, theme: Theme
) -> None:
    curve = strongest(entry)["roc"]
    kept = thinned(curve["fpr"], curve["tpr"], floor)
    fpr, tpr = (lifted(curve[key], kept, floor) for key in ("fpr", "tpr"))
    axes.plot(
        fpr,
        tpr,
        color=style.colour(theme),
        linestyle=style.line,
        drawstyle="steps-post",
        marker=style.marker,
        markevery=marks(fpr),
        label=wrapped(label, LEGEND),
    )


# Training curves --------------------------------------------------------------------


def training(results: Results, theme: Theme = LIGHT) -> Figure:
    """Loss and accuracy on the training batches, against epochs."""
    with themed(theme):
        methods = results["methods"]
        labels = [method["label"] for method in methods]
        figure = blank(WIDTH, 2.9 + legend_height(labels))
        figure.set_layout_engine("constrained")
        loss, accuracy = figure.subplots(1, 2)
        for method, style in zip(methods, styles(results), strict=True):
            _draw_history(loss, method, "loss", style, theme)
            _draw_history(accuracy, method, "accuracy", style, theme)
        loss.set_ylim(bottom=0)
        accuracy.set_ylim(0, 1.04)
        accuracy.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g} %"))
        for axes, title in ((loss, "Training loss"), (accuracy, "Training accuracy")):
            axes.set_title(title)
            axes.set_xlabel("Epoch")
        legend_below(figure, loss)
        return figure


def _draw_history(
    axes: Axes, method: dict, key: str, style: Style, theme: Theme
) -> None:
    history = method["training"]["history"]
    count = len(history["epoch"])
    axes.plot(
        history["epoch"],
        history[key],
        color=style.colour(theme),
        linestyle=style.line,
        marker=style.marker,
        markersize=5,
        markevery=[count - 1] if count else None,
        linewidth=1.6,
        label=wrapped(method["label"], LEGEND),
    )


# Cost -------------------------------------------------------------------------------


def cost(results: Results, theme: Theme = LIGHT) -> Figure:
    """Time per epoch and memory, as multiples of plain training."""
    with themed(theme):
        methods = results["methods"]
        labels = [wrapped(method["label"], 30) for method in methods]
        lines = sum(1.1 + 0.6 * label.count("\n") for label in labels)
        figure = blank(WIDTH, 1.0 + 0.36 * lines)
        figure.set_layout_engine("constrained")
        time, memory = figure.subplots(1, 2, sharey=True)
        look = styles(results)
        _draw_bars(time, methods, "relative_time", look, theme)
        _draw_bars(memory, methods, "relative_memory", look, theme)
        time.set_title("Time per epoch")
        memory.set_title("Memory")
        time.set_yticks(range(len(methods)), labels)
        time.set_ylim(len(methods) - 0.4, -0.6)
        return figure


def _draw_bars(
    axes: Axes, methods: Sequence[dict], key: str, look: Sequence[Style], theme: Theme
) -> None:
    values = [method["cost"][key] for method in methods]
    colours = [style.colour(theme) for style in look]
    lengths = [0.0 if value is None else float(value) for value in values]
    axes.barh(range(len(values)), lengths, height=0.62, color=colours)
    for row, value in enumerate(values):
        text = "not measured" if value is None else formats.ratio(value)
        offset: dict[str, Any] = {
            "textcoords": "offset points",
            "va": "center",
            "fontsize": 9,
        }
        end = 1.0 if value is None else lengths[row]
        axes.annotate(text, (end, row), (5, 0), **offset)
    axes.axvline(1.0, color=theme.muted, linewidth=1, linestyle=(0, (2, 2)))
    axes.set_xlim(0, 1.28 * max(*lengths, 1.0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
