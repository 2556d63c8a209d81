"""Recall class by class, where a run looked at that: unequal classes."""

from rpjax.report import formats
from rpjax.report.grids import Grid, Row
from rpjax.report.results import Results
from rpjax.report.tables import Cell, percent

# of more classes, the rarest
MOST = 30


def grid(results: Results) -> Grid | None:
    """Recalls on the test set, by class and method, and balanced accuracy last.

    None where no run has them.
    """
    data, found = results["data"], _looked_at(results)
    if not found:
        return None
    trained = data["member_class_counts"]
    rarest = sorted(range(len(trained)), key=lambda label: trained[label])[:MOST]
    rows = [
        (
            Cell(data["class_names"][label]),
            Cell(f"{trained[label]}"),
            Cell(f"{found[0][1]['test_records'][label]}"),
            *(_cell(own["recalls"][label]) for _, own in found),
        )
        for label in sorted(rarest)
    ]
    balanced = (
        Cell("Balanced accuracy"),
        Cell(f"{sum(trained)}"),
        Cell(f"{data['test_records']}"),
        *(_cell(own["balanced_accuracy"]) for _, own in found),
    )
    headings = ("Class", "Training records", "Test records", *(n for n, _ in found))
    return Grid(headings, [Row(cells) for cells in rows] + [Row(balanced, True)])


def _looked_at(results: Results) -> list[tuple[str, dict]]:
    """Label and class figures of the methods that have them."""
    found = [(m["label"], m["utility"].get("classes")) for m in results["methods"]]
    return [(label, own) for label, own in found if own is not None]


def _cell(estimate: dict | None) -> Cell:
    return Cell(formats.NONE) if estimate is None else percent(estimate)


def note(results: Results) -> str:
    """What a reader of the table has to know."""
    data, config = results["data"], results["config"]
    lines = [
        "Recall of each class on the test records, with exact intervals; balanced "
        "accuracy is their mean, with the interval of a bootstrap within classes."
    ]
    if data["classes"] > MOST:
        lines.append(f"The {MOST} rarest of {data['classes']} classes are shown.")
    lines.append(f"Loss: {config['loss']['name'].replace('_', ' ')}.")
    lines.append(
        "The training records of each class are counted as they are: for the owner "
        "of the report alone, where counts are not public."
    )
    return " ".join(lines)
