"""A row for each method and setting: means over seeds, and what is proved of each."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from rpjax.report import formats
from rpjax.report.grids import Grid, Row
from rpjax.report.sweeps.content import Sweep, proofs, shown, states, varied
from rpjax.report.tables import Cell

HEADINGS = {
    "test_accuracy": "Test acc.",
    "balanced_accuracy": "Balanced",
    "generalization_gap": "Gap",
    "attack_auc": "AUC",
}
NOTE = "Mean over seeds ± standard deviation; in brackets the mean's 95 % interval."


def table(sweep: Sweep) -> Table:
    """The table for a terminal; below it, what is missing."""
    content = grid(sweep)
    view = Table(
        box=box.SIMPLE_HEAD,
        caption="\n".join(notes(sweep)),
        caption_justify="left",
        caption_style="dim",
    )
    for number, heading in enumerate(content.headings):
        view.add_column(Text(heading), no_wrap=number >= content.numbers)
    for row in content.rows:
        view.add_row(*(Text("\n".join(cell.lines())) for cell in row.cells))
    return view


def grid(sweep: Sweep) -> Grid:
    """The table, as its renderings take it."""
    axes = varied(sweep)
    headings = (
        *("Method", *(axis.name for axis in axes), "ε", "σ", "Seeds"),
        *(HEADINGS[name] for name in shown(sweep)),
    )
    rows = []
    for row in sweep["summary"]:
        privacy, metrics = row["privacy"], row["metrics"]
        cells = [
            Cell(row["method"]),
            *(Cell(axis.labels()[axis.of(row)]) for axis in axes),
            Cell(_epsilon(privacy)),
            Cell(_noise(privacy)),
            Cell(str(metrics["test_accuracy"]["n"])),
            *(_cell(name, metrics.get(name)) for name in shown(sweep)),
        ]
        rows.append(Row(tuple(cells)))
    return Grid(headings, rows, numbers=1 + len(axes))


def notes(sweep: Sweep) -> list[str]:
    """What stands below the table."""
    return [NOTE, *proofs(sweep), *states(sweep)]


def _epsilon(privacy: dict[str, Any]) -> str:
    found = privacy["epsilon"]
    return "none" if found is None else formats.upper_bound(found)


def _noise(privacy: dict[str, Any]) -> str:
    found = privacy["noise_multiplier"]
    return formats.NONE if found is None else f"{found:.4g}"


def _cell(name: str, spread: dict[str, Any] | None) -> Cell:
    if spread is None:
        return Cell(formats.NONE)
    auc = name == "attack_auc"
    text = formats.auc(spread["mean"]) if auc else formats.percent(spread["mean"])
    if spread["deviation"] is None:
        return Cell(text)
    deviation, low, high = (spread[key] for key in ("deviation", "low", "high"))
    if auc:
        return Cell(f"{text} ± {deviation:.3f}", formats.auc_interval(low, high))
    interval = formats.percent_interval(low, high)
    return Cell(f"{text} ± {100 * deviation:.1f}", interval)
