"""The audit's report as one HTML page, in the look of the other report."""

import json
from typing import Any

from markupsafe import Markup

from rpjax.report import by_class, grids, pages
from rpjax.report.audits import tables, words
from rpjax.report.audits.captions import captions, limits
from rpjax.report.audits.content import headline, point, strongest
from rpjax.report.audits.figures import all_figures
from rpjax.report.drawing import DARK, LIGHT, styles
from rpjax.report.results import Results
from rpjax.report.tables import guarantee


def page(results: Results) -> str:
    """The whole page, from a checked attacks dictionary."""
    return pages.render("audits/page.html.j2", _contents(results))


def _contents(results: Results) -> dict[str, object]:
    marks = pages.marks(styles(results))
    methods = [
        {
            "data": method,
            "mark": mark,
            "verdict": words.verdict(method),
            "guarantee": " ".join(guarantee(method).lines()),
            "kinds": _kinds(method),
            "classes": by_class.folded(_ordered(method), _kind),
            "exposed": grids.html(tables.exposed(headline(method))),
            "exposed_kind": words.kind_name(headline(method)["kind"]),
        }
        for method, mark in zip(results["methods"], marks, strict=True)
    ]
    return {
        "results": results,
        "title": words.title(results),
        "setting": words.setting(results),
        "distrust": words.distrust(results),
        "controls": words.controls(results),
        "methods": methods,
        "threats": words.threats(results),
        "attack_notes": words.attack_notes(results),
        "class_notes": by_class.notes(results),
        "audits": _grid(tables.audits(results)),
        "audit_notes": words.audit_notes(results),
        "audit_figures": _grid(tables.figures(results)),
        "claims": _grid(tables.claims(results)),
        "figures": pages.drawings(
            all_figures(results, LIGHT), all_figures(results, DARK), captions(results)
        ),
        "contrast": _grid(tables.contrast(results)),
        "limits": limits(results),
        "warnings": words.warnings(results),
        "reproduction": words.reproduction(results),
        "config": json.dumps(results["config"], indent=2, ensure_ascii=False),
    }


def _grid(grid: grids.Grid) -> Markup | None:
    """A table in HTML; None where it has no rows."""
    return grids.html(grid) if grid.rows else None


def _kinds(method: dict) -> list[dict[str, Any]]:
    """The table of attacks for each kind of canaries; the headline one is open."""
    return [
        {
            "name": words.kind_name(entry["kind"]),
            "open": entry is headline(method),
            "summary": _summary(entry),
            "members": entry["members"],
            "non_members": entry["non_members"],
            "table": grids.html(tables.attacks(entry)),
        }
        for entry in method["exposure"]
    ]


def _ordered(method: dict) -> list[dict]:
    """The kinds of canaries, the headline one first."""
    first = headline(method)
    return [first, *(entry for entry in method["exposure"] if entry is not first)]


def _kind(entry: dict) -> str:
    return words.kind_name(entry["kind"])


def _summary(entry: dict) -> str:
    attack = strongest(entry)
    cell = tables.rate(point(attack))
    return f"{attack['label']} finds {cell.value} at 1 % FPR"
