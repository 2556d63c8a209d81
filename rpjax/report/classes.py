"""Recall class by class, where a run looked at that: unequal classes."""

from typing import NamedTuple

from rpjax.report import formats
from rpjax.report.results import Results
from rpjax.report.tables import Cell, percent

# of more classes, the rarest
MOST = 30


class Classes(NamedTuple):
    """A table: a row for each class, and the balanced accuracy last."""

    headings: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    note: str


def table(results: Results) -> Classes | None:
    """Recalls on the test set, by class and method; None where no run has them."""
    data, methods = results["data"], results["methods"]
    found = [(m["label"], m["utility"].get("classes")) for m in methods]
    found = [(label, own) for label, own in found if own is not None]
    if not found:
        return None
    trained = data["member_class_counts"]
    shown = sorted(range(len(trained)), key=lambda label: trained[label])[:MOST]
    rows = [
        (
            Cell(data["class_names"][label]),
            Cell(f"{trained[label]}"),
            Cell(f"{found[0][1]['test_records'][label]}"),
            *(_cell(own["recalls"][label]) for _, own in found),
        )
        for label in sorted(shown)
    ]
    balanced = (
        Cell("Balanced accuracy"),
        Cell(f"{sum(trained)}"),
        Cell(f"{data['test_records']}"),
        *(_cell(own["balanced_accuracy"]) for _, own in found),
    )
    headings = ("Class", "Training records", "Test records", *(n for n, _ in found))
    return Classes(headings, [*rows, balanced], _note(results, len(shown)))


def _cell(estimate: dict | None) -> Cell:
    return Cell(formats.NONE) if estimate is None else percent(estimate)


def _note(results: Results, shown: int) -> str:
    data, config = results["data"], results["config"]
    lines = [
        "Recall of each class on the test records, with exact intervals; balanced "
        "accuracy is their mean, with the interval of a bootstrap within classes."
    ]
    if shown < data["classes"]:
        lines.append(f"The {shown} rarest of {data['classes']} classes are shown.")
    lines.append(f"Loss: {config['loss']['name'].replace('_', ' ')}.")
    lines.append(
        "The training records of each class are counted as they are: for the owner "
        "of the report alone, where counts are not public."
    )
    return " ".join(lines)
