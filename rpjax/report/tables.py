"""One row per method, and its three renderings: terminal, Markdown, HTML."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape
from rich import box
from rich.table import Table
from rich.text import Text

from rpjax.report import formats
from rpjax.report.results import (
    Results,
    attacked,
    below_resolution,
    confidence,
    deployed,
    largest_tpr,
    noise_off,
    strongest,
)

HEADLINE_FPR = 0.01


class Cell(NamedTuple):
    """A number, its interval, and what has to be said beside them."""

    value: str
    interval: str = ""
    note: str = ""

    def lines(self) -> list[str]:
        """The parts that are there."""
        return [part for part in self if part]


class Row(NamedTuple):
    """What one method achieved, in words ready to print."""

    method: Cell
    accuracy: Cell
    gap: Cell
    attack: Cell
    tpr: Cell
    noise_off: Cell
    guarantee: Cell
    time: Cell
    memory: Cell


HEADINGS = Row(
    method=Cell("Method"),
    accuracy=Cell("Test accuracy"),
    gap=Cell("Gap"),
    attack=Cell("Attack AUC"),
    tpr=Cell("TPR @ 1 % FPR"),
    noise_off=Cell("AUC, noise off"),
    guarantee=Cell("Guarantee"),
    time=Cell("Time"),
    memory=Cell("Memory"),
)


def rows(results: Results) -> list[Row]:
    """The rows, in the order of the file; every rendering starts from these."""
    return [_row(method) for method in results["methods"]]


def _row(method: dict) -> Row:
    utility, cost = method["utility"], method["cost"]
    return Row(
        method=Cell(method["label"]),
        accuracy=percent(utility["test_accuracy"]),
        gap=percent(utility["generalization_gap"]),
        attack=_attack(deployed(method)),
        tpr=_tpr(deployed(method)),
        noise_off=_attack(noise_off(method)),
        guarantee=guarantee(method),
        time=Cell(formats.ratio(cost["relative_time"])),
        memory=Cell(formats.ratio(cost["relative_memory"])),
    )


def percent(estimate: dict) -> Cell:
    """A fraction as a cell, in percent."""
    interval = formats.percent_interval(estimate["low"], estimate["high"])
    return Cell(formats.percent(estimate["value"]), interval)


def auc(estimate: dict, note: str = "") -> Cell:
    """An AUC as a cell."""
    interval = formats.auc_interval(estimate["low"], estimate["high"])
    return Cell(formats.auc(estimate["value"]), interval, note)


def tpr(entry: dict, note: str = "") -> Cell:
    """A true-positive rate as a cell; a poorly resolved one says so."""
    interval = formats.percent_interval(entry["low"], entry["high"])
    tag = f"† {entry['false_positives']} FP" if below_resolution(entry) else ""
    return Cell(
        formats.percent(entry["tpr"]), interval, " ".join(filter(None, (tag, note)))
    )


def _attack(exposure: dict | None) -> Cell:
    if exposure is None:
        return Cell(formats.NONE)
    attack = strongest(exposure)
    return auc(attack["auc"], short(attack["label"]))


def _tpr(exposure: dict | None) -> Cell:
    """The largest over all attacks; another attack than the AUC's is named."""
    found = exposure and largest_tpr(exposure, HEADLINE_FPR)
    if not exposure or not found:
        return Cell(formats.NONE)
    attack, entry = found
    other = attack["name"] != strongest(exposure)["name"]
    return tpr(entry, short(attack["label"]) if other else "")


def short(label: str) -> str:
    """A label without its remark in brackets.

    >>> short("Shadow models (Salem et al., top-3 MLP)")
    'Shadow models'
    """
    return label.partition(" (")[0]


def guarantee(method: dict) -> Cell:
    """What is proved, never without delta and adjacency."""
    proof = method["guarantee"]
    if proof["epsilon"] is not None:
        epsilon = formats.upper_bound(proof["epsilon"])
        bound = f"ε = {epsilon} at δ = {formats.small(proof['delta'])}"
        return Cell(f"{bound},", note=proof["adjacency"])
    if proof["mu"] is not None:
        bound = f"μ = {formats.upper_bound(proof['mu'])} (Gaussian DP),"
        return Cell(bound, note=proof["adjacency"])
    return Cell("none")


def neighbours(results: Results) -> list[str | None]:
    """Each method's adjacency; None where nothing is proved."""
    return [method["guarantee"]["adjacency"] for method in results["methods"]]


def incomparable(adjacencies: Iterable[str | None]) -> str | None:
    """What has to stand beside epsilons of several methods; None where nothing has to.

    adjacencies: of those that state an epsilon; None is one that states none.

    >>> incomparable(["replace one record", None, "replace one record"])
    >>> incomparable(["add a record", "replace a record"])[:56]
    'Epsilons of different neighbours are not comparable: add'
    """
    found = dict.fromkeys(each for each in adjacencies if each is not None)
    if len(found) < 2:
        return None
    return (
        f"Epsilons of different neighbours are not comparable: {'; '.join(found)} are "
        "different promises, even where the number is the same."
    )


def notes(results: Results) -> list[str]:
    """What a reader of the table has to know."""
    table = rows(results)
    attacks = (
        "Attack AUC: the strongest attack on the deployed model; 0.5 is guessing. "
        "TPR @ 1 % FPR: the largest over the attacks. "
    )
    found = [
        f"Brackets: {confidence(results)} intervals. "
        "Gap: training minus test accuracy. "
        + (attacks if attacked(results) else "")
        + "Time (per epoch) and memory are relative to plain training."
    ]
    if warning := incomparable(neighbours(results)):
        found.append(warning)
    if any(row.noise_off.interval for row in table):
        found.append(
            "Noise off: the attacker has the weights and switches the noise off (T4)."
        )
    if any("†" in row.tpr.note for row in table):
        found.append(
            "† So few false positives (FP) stand behind this rate that only its order "
            "of magnitude counts."
        )
    return found


# Terminal ---------------------------------------------------------------------------


def table(results: Results, width: int = 100) -> Table:
    """The table for a terminal.

    Args:
        results: a checked results dictionary.
        width: columns of the terminal. Below 98 the AUC without noise moves into the
            column of the attack, so that no number is broken over two lines.
    """
    view = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        caption="\n".join(notes(results)),
        caption_justify="left",
        caption_style="dim",
    )
    columns = _columns(attacked(results), apart=width >= 98)
    for heading, (low, high), _ in columns:
        view.add_column(Text(heading), min_width=low, max_width=high, overflow="fold")
    for row in rows(results):
        view.add_row(*(Text("\n".join(lines(row))) for _, _, lines in columns))
        view.add_row()
    return view


Column = tuple[str, tuple[int, int], Callable[[Row], list[str]]]


def _columns(attacked: bool, apart: bool) -> list[Column]:
    """Heading, least and greatest width, and the lines of a row."""
    off = lambda row: [f"off {row.noise_off.value}"]
    attack: list[Column] = [
        ("Attack AUC", (14, 14), lambda row: row.attack.lines()),
        ("Noise off", (14, 14), lambda row: row.noise_off.lines()),
    ]
    together: list[Column] = [
        ("AUC,\nnoise off", (14, 14), lambda row: row.attack.lines() + off(row)),
    ]
    tpr: Column = ("TPR @\n1 % FPR", (12, 12), lambda row: row.tpr.lines())
    exposed = [*(attack if apart else together), tpr] if attacked else []
    return [
        ("Method", (14, 24), lambda row: row.method.lines()),
        ("Test acc.,\ngap", (12, 12), _accuracy_and_gap),
        *exposed,
        ("Guarantee", (14, 26), lambda row: row.guarantee.lines()),
        ("Time,\nmemory", (6, 6), lambda row: [row.time.value, row.memory.value]),
    ]


def _accuracy_and_gap(row: Row) -> list[str]:
    gap = ["gap " + row.gap.value, row.gap.interval]
    return row.accuracy.lines() + [line for line in gap if line]


# Markdown and HTML ------------------------------------------------------------------


def markdown(results: Results) -> str:
    """The table in Markdown, its notes below it."""
    lines = [_markdown_row(HEADINGS), _markdown_rule()]
    lines += [_markdown_row(row) for row in rows(results)]
    return (
        "\n".join(lines) + "\n\n" + "\n".join(f"{n}  " for n in notes(results)) + "\n"
    )


def _markdown_row(row: Row) -> str:
    cells = (" ".join(cell.lines()) for cell in row)
    return f"| {' | '.join(map(markdown_text, cells))} |"


def _markdown_rule() -> str:
    words = ("method", "guarantee")
    rules = ("---" if field in words else "---:" for field in Row._fields)
    return f"| {' | '.join(rules)} |"


def markdown_text(text: str) -> str:
    r"""Text that cannot end a table cell or start a tag.

    >>> markdown_text("a|b <c>")
    'a\\|b &lt;c&gt;'
    """
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|")
    escaped = escaped.replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.split())


def html(results: Results, marks: Sequence[str] | None = None) -> Markup:
    """The table in HTML, without notes; each cell knows its heading for narrow screens.

    Args:
        results: a checked results dictionary.
        marks: per method, markup to set before its label (the marker of the figures).
    """
    marks = [""] * len(results["methods"]) if marks is None else marks
    head = Markup("").join(
        Markup('<th scope="col">{}</th>').format(cell.value) for cell in HEADINGS
    )
    body = Markup("\n").join(
        _html_row(row, mark) for row, mark in zip(rows(results), marks, strict=True)
    )
    return Markup(
        '<table class="methods stacked">\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n'
        "</tbody>\n</table>"
    ).format(head, body)


def _html_row(row: Row, mark: str) -> Markup:
    first = Markup('<th scope="row">{} {}</th>').format(mark, row.method.value)
    rest = Markup("").join(
        Markup('<td data-label="{}">{}</td>').format(heading.value, html_cell(cell))
        for heading, cell in zip(HEADINGS[1:], row[1:], strict=True)
    )
    return Markup("<tr>{}{}</tr>").format(first, rest)


def html_cell(cell: Cell) -> Markup:
    """Number, interval and note, each in a span of its own."""
    kinds = zip(("value", "interval", "note"), cell, strict=True)
    spans = (
        Markup('<span class="{}">{}</span>').format(kind, escape(part))
        for kind, part in kinds
        if part
    )
    return Markup(" ").join(spans)
