"""Exposure class by class, in both reports: the tables, the sentences, the figure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rpjax.report import formats, grids, tables
from rpjax.report.axes import WIDTH, ends, nothing, padded
from rpjax.report.drawing import LIGHT, Style, Theme, blank, styles, themed
from rpjax.report.grids import Grid, Row
from rpjax.report.placement import wrapped
from rpjax.report.results import Results, by_class
from rpjax.report.tables import Cell
from rpjax.report.tables import markdown_text as plain

SIGNIFICANT = 0.05
# so many classes have room for a name each in a narrow panel
MOST_NAMED = 20
PANEL_HEIGHT = 1.95
CAPTION = (
    "AUC of each method's strongest attack within each class, with intervals that hold "
    "together for all classes of a panel. Solid line: guessing; dashed: the attack's "
    "AUC on all records. Classes without a mark have too few records."
)


def grid(table: dict) -> Grid:
    """The classes of one exposure: counts, AUC, members found."""
    headings = ("Class", "Records", "Members", "Non-members", "AUC", "Members found")
    worst = table["most_exposed"]
    rows = [
        Row(
            (
                Cell(str(found["label"])),
                Cell(str(found["records"])),
                Cell(str(found["members"])),
                Cell(str(found["non_members"])),
                _area(found),
                _rate(found),
            ),
            strong=worst is not None and found["label"] == worst["label"],
        )
        for found in table["classes"]
    ]
    return Grid(headings, rows)


def _area(found: dict) -> Cell:
    if found["auc"] is None:
        return Cell(formats.NONE, note="; ".join(found["missing"]))
    return tables.auc(found["auc"])


def _rate(found: dict) -> Cell:
    point = found["tpr_at"]
    if point is None:
        known = found["auc"] is not None
        return Cell(formats.NONE, note="; ".join(found["missing"]) if known else "")
    interval = formats.percent_interval(point["low"], point["high"])
    return Cell(
        formats.percent(point["tpr"]),
        interval,
        f"@ {100 * point['target_fpr']:g} % FPR",
    )


def notes(results: Results) -> list[str]:
    """What a reader of the tables has to know; nothing where there are none."""
    entries = (entry for m in results["methods"] for entry in m["exposure"])
    found = [table for entry in entries if (table := by_class(entry))]
    if not found:
        return []
    levels = dict.fromkeys(
        (t["intervals"], t["confidence"], t["confidence_each"])
        for t in found
        if t["intervals"] > 1
    )
    told = [
        "The more classes, the further the most extreme of them strays by chance: of "
        f"{count} intervals of {_level(joint)} each, {count * (1 - joint):.2g} would "
        f"miss on average. So each is widened to {_level(each)} (Bonferroni), and all "
        f"{count} hold together with {_level(joint)} confidence: those of the AUC, and "
        "for themselves those of the members found."
        for count, joint, each in levels
    ]
    told.append(
        "One attack for all classes: the strongest on all records. Members found: at "
        "the lowest of four false-positive rates at which the class's own non-members "
        "allow ten false positives. The p-value of the most exposed class counts that "
        "it was chosen among classes, but not how many methods and queries are looked "
        "at."
    )
    return told


def _level(confidence: float) -> str:
    return f"{100 * confidence:.4g} %"


def sentence(table: dict) -> str:
    """Which class is most exposed, and whether that may be chance."""
    worst = table["most_exposed"]
    if worst is None:
        return "Fewer than two classes have records enough to be compared."
    chance = worst["p_value"] > SIGNIFICANT
    verdict = "which may be chance" if chance else "more than chance explains"
    return (
        f"Class {worst['label']} stands out most: AUC {formats.auc(worst['auc'])} "
        f"against {formats.auc(worst['others'])} in the others, {verdict} "
        f"(p = {formats.small(worst['p_value'])})."
    )


def folded(entries: Sequence[dict], named: Callable[[dict], str]) -> list[dict]:
    """A method's tables in HTML, each with its name and its sentence."""
    return [
        {
            "query": named(entry),
            "sentence": sentence(table),
            "table": grids.html(grid(table)),
        }
        for entry in entries
        if (table := by_class(entry))
    ]


def markdown(results: Results, named: Callable[[dict], str]) -> str:
    """The section in Markdown; empty where there is nothing to tell.

    named: an exposure in a few words.
    """
    told = notes(results)
    if not told:
        return ""
    parts = ["## Exposure by class", "\n".join(f"- {plain(note)}" for note in told)]
    for method in results["methods"]:
        for entry in method["exposure"]:
            if table := by_class(entry):
                name = f"{method['label']}, by class: {named(entry)}"
                parts.append(f"### {plain(name)}")
                parts.append(plain(sentence(table)))
                parts.append(grids.markdown(grid(table)))
    return "\n\n".join(parts)


# Figure -----------------------------------------------------------------------------


class Panel(NamedTuple):
    """A method's label and look, the AUC on all records, the classes."""

    label: str
    style: Style
    whole: float
    table: dict


Chosen = Callable[[dict], dict | None]


def panels(results: Results, chosen: Chosen) -> list[Panel]:
    """The methods of which a class has an interval.

    chosen: of a method, the exposure that is shown.
    """
    found = []
    for method, style in zip(results["methods"], styles(results), strict=True):
        entry = chosen(method)
        table = entry and by_class(entry)
        if entry and table and table["intervals"]:
            whole = next(
                a["auc"]["value"]
                for a in entry["attacks"]
                if a["name"] == table["attack"]
            )
            found.append(Panel(method["label"], style, whole, table))
    return found


def figure(results: Results, chosen: Chosen, theme: Theme = LIGHT) -> Figure:
    """AUC by class with intervals, one panel for each method."""
    shown = panels(results, chosen)
    with themed(theme):
        many = max((len(p.table["classes"]) for p in shown), default=0) > MOST_NAMED
        columns = 1 if many or len(shown) < 2 else 2
        rows = max(1, -(-len(shown) // columns))
        drawn = blank(WIDTH, 0.35 + PANEL_HEIGHT * rows)
        drawn.set_layout_engine("constrained")
        axes = drawn.subplots(
            rows, columns, sharex=True, sharey=True, squeeze=False
        ).ravel()
        if not shown:
            return nothing(drawn, axes[0], "No class has records enough.")
        areas = [c["auc"] for p in shown for c in p.table["classes"] if c["auc"]]
        axes[0].set_ylim(*padded([0.5, *(y for area in areas for y in ends(area))], 0))
        for own, panel in zip(axes, shown, strict=False):
            _draw_panel(own, panel, many, theme)
        for own in axes[len(shown) :]:
            own.set_axis_off()
        _name_axes(list(axes), columns, len(shown))
        return drawn


def _draw_panel(axes: Axes, panel: Panel, many: bool, theme: Theme) -> None:
    label, style, whole, table = panel
    colour = style.colour(theme)
    axes.axhline(0.5, color=theme.muted, linewidth=1.2, zorder=1)
    axes.axhline(whole, color=colour, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for found in table["classes"]:
        area, x = found["auc"], found["label"]
        if area is not None:
            axes.plot([x, x], [area["low"], area["high"]], color=colour, linewidth=1.4)
            axes.plot(x, area["value"], style.marker, color=colour, markersize=5)
    axes.set_title(f"{wrapped(label, 44)}{_told(table)}", loc="left", fontsize=9)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.3g}"))
    axes.grid(axis="x", visible=False)
    count = len(table["classes"])
    axes.set_xlim(-0.7, count - 0.3)
    if many:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xticks(range(count))


def _told(table: dict) -> str:
    worst = table["most_exposed"]
    if worst is None:
        return ""
    p = formats.small(worst["p_value"])
    return f"\nmost exposed: class {worst['label']}, p = {p}"


def _name_axes(axes: Sequence[Axes], columns: int, panels: int) -> None:
    """Names at the left and at the bottom; the last panel of a column has its own."""
    for index, own in enumerate(axes[:panels]):
        if index % columns == 0:
            own.set_ylabel("AUC")
        if index + columns >= panels:
            own.set_xlabel("Class")
            own.tick_params(axis="x", labelbottom=True)
