"""The report as one HTML page: no scripts, nothing loaded, light, dark and print."""

import json
from typing import Any

from rpjax.report import by_class, classes, grids, limits, pages, tables, words
from rpjax.report.drawing import DARK, LIGHT, styles
from rpjax.report.figures import all_figures
from rpjax.report.results import Results


def page(results: Results) -> str:
    """The whole page, from a checked results dictionary."""
    return pages.render("page.html.j2", _contents(results))


def _contents(results: Results) -> dict[str, object]:
    marks = pages.marks(styles(results))
    recalls = classes.grid(results)
    return {
        "results": results,
        "title": words.title(results),
        "setting": words.setting(results),
        "summary": words.summary(results),
        "methods": [
            {
                "data": method,
                "mark": mark,
                "verdict": words.verdict(method),
                "guarantee": " ".join(tables.guarantee(method).lines()),
                "attacks": attacks(method),
                "classes": by_class.folded(method["exposure"], _asked),
            }
            for method, mark in zip(results["methods"], marks, strict=True)
        ],
        "table": tables.html(results, marks),
        "notes": tables.notes(results),
        "classes": recalls and grids.html(recalls),
        "classes_note": classes.note(results) if recalls else "",
        "figures": pages.drawings(
            all_figures(results, LIGHT),
            all_figures(results, DARK),
            words.captions(results),
        ),
        "class_notes": by_class.notes(results),
        "threats": words.threats(results),
        "limits": limits.limits(results),
        "reproduction": words.reproduction(results),
        "config": json.dumps(results["config"], indent=2, ensure_ascii=False),
    }


def attacks(method: dict) -> list[dict[str, Any]]:
    """Every attack on every query of a method, as cells; the largest AUC first."""
    by_auc = lambda attack: -attack["auc"]["value"]
    return [
        {
            "threat": entry["threat"],
            "label": attack["label"],
            "auc": tables.auc(attack["auc"]),
            "balanced": tables.percent(attack["balanced_accuracy"]),
            "rates": _rates(attack),
            "threshold": attack["threshold_from"],
        }
        for entry in method["exposure"]
        for attack in sorted(entry["attacks"], key=by_auc)
    ]


def _asked(entry: dict) -> str:
    return f"{entry['threat']}: {entry['query']}"


def _rates(attack: dict) -> list[tuple[str, tables.Cell]]:
    """TPR at 1 % and 0.1 % FPR, as far as they are there."""
    return [
        (f"{100 * entry['target_fpr']:g} %", tables.tpr(entry))
        for entry in attack["tpr_at"]
        if entry["target_fpr"] <= tables.HEADLINE_FPR
    ]
