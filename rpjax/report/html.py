"""The report as one HTML page: no scripts, nothing loaded, light, dark and print."""

import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from rpjax.report import formats, limits, tables, words
from rpjax.report.drawing import DARK, LIGHT, inline_svg, styles
from rpjax.report.figures import all_figures
from rpjax.report.results import Results

TEMPLATE = Path(__file__).with_name("page.html.j2")


def page(results: Results) -> str:
    """The whole page, from a checked results dictionary."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": formats.seconds,
        "size": formats.size,
        "bound": formats.upper_bound,
        "small": formats.small,
        "cell": tables.html_cell,
    }
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    return _unbroken(template.render(_contents(results))) + "\n"


def _unbroken(text: str) -> str:
    """Keep a number and its unit, and an equation, on one line; commands stay as is."""
    parts = re.split(r"(<pre>.*?</pre>|<style.*?</style>)", text, flags=re.DOTALL)
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace(" %", "\xa0%").replace(" = ", "\xa0=\xa0")
    return "".join(parts)


def _contents(results: Results) -> dict[str, object]:
    marks = _marks(results)
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
            }
            for method, mark in zip(results["methods"], marks, strict=True)
        ],
        "table": tables.html(results, marks),
        "notes": tables.notes(results),
        "figures": _figures(results),
        "threats": words.threats(results),
        "limits": limits.limits(results),
        "reproduction": words.reproduction(results),
        "config": json.dumps(results["config"], indent=2, ensure_ascii=False),
    }


def _marks(results: Results) -> list[Markup]:
    """The marker of each method, in its two colours."""
    mark = Markup(
        '<span class="mark" style="--on-light:{};--on-dark:{}" aria-hidden="true">'
        "{}</span>"
    )
    return [mark.format(s.light, s.dark, s.symbol) for s in styles(results)]


def _figures(results: Results) -> list[dict[str, Any]]:
    """Each figure in both themes; the style sheet shows the one that fits."""
    light, dark = all_figures(results, LIGHT), all_figures(results, DARK)
    captions = words.captions(results)
    return [
        {
            "name": name,
            "caption": captions[name],
            "light": _drawing(light[name], f"{name}-light", captions[name]),
            "dark": _drawing(dark[name], f"{name}-dark", captions[name]),
        }
        for name in light
    ]


def _drawing(figure: Figure, prefix: str, caption: str) -> Markup:
    return Markup(inline_svg(figure, prefix, str(escape(caption))))


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


def _rates(attack: dict) -> list[tuple[str, tables.Cell]]:
    """TPR at 1 % and 0.1 % FPR, as far as they are there."""
    return [
        (f"{100 * entry['target_fpr']:g} %", tables.tpr(entry))
        for entry in attack["tpr_at"]
        if entry["target_fpr"] <= tables.HEADLINE_FPR
    ]
