"""Writing the audit's report: each file appears whole or not at all."""

import csv
import io
from pathlib import Path

from rpjax.report.audits.content import check
from rpjax.report.audits.figures import all_figures
from rpjax.report.audits.html import page
from rpjax.report.audits.markdown import text
from rpjax.report.drawing import png, svg
from rpjax.report.results import Results
from rpjax.report.write import put

COLUMNS = (
    *("method", "kind", "rank", "record", "label"),
    *("tpr", "tpr_low", "tpr_high", "tpr_n"),
    *("fpr", "fpr_low", "fpr_high", "fpr_n", "effect"),
)


def write(results: Results, out: Path) -> list[Path]:
    """Write attacks.html, attacks.md, most_exposed.csv, figures/attacks_*.png, *.svg.

    Everything is made before the first file is written; files of an earlier report are
    replaced.

    Args:
        results: the contents of an attacks.json.
        out: a folder, made if needed.

    Returns:
        The files, the HTML page first.

    Raises:
        InputError: the contents are incomplete, or `out` cannot be written to.
    """
    check(results)
    contents = {
        "attacks.html": page(results).encode(),
        "attacks.md": text(results).encode(),
        "most_exposed.csv": listed(results).encode(),
    }
    for name, figure in all_figures(results).items():
        contents[f"figures/attacks_{name}.png"] = png(figure)
        contents[f"figures/attacks_{name}.svg"] = svg(figure).encode()
    return put(contents, out)


def listed(results: Results) -> str:
    """All listed canaries of all methods and kinds, as comma-separated values."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(COLUMNS)
    for method in results["methods"]:
        for entry in method["exposure"]:
            for rank, found in enumerate(entry["most_exposed"], start=1):
                rows.writerow(
                    [
                        *(method["name"], entry["kind"], rank),
                        *(found["record"], found["label"]),
                        *_numbers(found["tpr"]),
                        *_numbers(found["fpr"]),
                        found["effect"],
                    ]
                )
    return stream.getvalue()


def _numbers(estimate: dict) -> list[float | int | None]:
    return [estimate[key] for key in ("value", "low", "high", "n")]
