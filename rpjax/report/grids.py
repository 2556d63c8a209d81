"""A table of a report, once, and its renderings in HTML and Markdown."""

from collections.abc import Iterable
from typing import NamedTuple

from markupsafe import Markup

from rpjax.report.tables import Cell, html_cell, markdown_text


class Row(NamedTuple):
    """Cells from left to right.

    strong: the row that the verdict speaks of; grey: columns that are too poorly
    resolved to be read closely.
    """

    cells: tuple[Cell, ...]
    strong: bool = False
    grey: frozenset[int] = frozenset()


class Grid(NamedTuple):
    """A table: its headings and its rows; columns from `numbers` on hold numbers."""

    headings: tuple[str, ...]
    rows: list[Row]
    numbers: int = 1


def html(grid: Grid) -> Markup:
    """The table in HTML; each cell knows its heading, for narrow screens."""
    head = Markup("").join(
        Markup('<th scope="col">{}</th>').format(text) for text in grid.headings
    )
    body = Markup("\n").join(_html_row(grid.headings, row) for row in grid.rows)
    return Markup(
        '<table class="grid stacked">\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n'
        "</tbody>\n</table>"
    ).format(head, body)


def _html_row(headings: tuple[str, ...], row: Row) -> Markup:
    first, *rest = row.cells
    cells = [Markup('<th scope="row">{}</th>').format(html_cell(first))]
    for column, cell in enumerate(rest, start=1):
        look = Markup(' class="few"') if column in row.grey else ""
        cells.append(
            Markup('<td data-label="{}"{}>{}</td>').format(
                headings[column], look, html_cell(cell)
            )
        )
    look = Markup(' class="strong"') if row.strong else ""
    return Markup("<tr{}>{}</tr>").format(look, Markup("").join(cells))


def markdown(grid: Grid) -> str:
    """The table in Markdown; the row of the verdict has its first cell in bold."""
    rules = ["---"] * grid.numbers
    rules += ["---:"] * (len(grid.headings) - grid.numbers)
    lines = [_line(map(markdown_text, grid.headings)), _line(rules)]
    return "\n".join([*lines, *(_markdown_row(row) for row in grid.rows)])


def _markdown_row(row: Row) -> str:
    first, *rest = (markdown_text(" ".join(cell.lines())) for cell in row.cells)
    return _line([f"**{first}**" if row.strong else first, *rest])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
