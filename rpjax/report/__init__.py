"""Views of results.json: tables, figures, a page; nothing is computed or trained here.

>>> from rpjax import report
>>> results = report.load("out/results.json")        # doctest: +SKIP
>>> report.write(results, Path("out"))               # doctest: +SKIP
"""

from rpjax.report import audits, sweeps
from rpjax.report.drawing import DARK, LIGHT, Theme
from rpjax.report.figures import all_figures, cost, roc, tradeoff, training
from rpjax.report.html import page
from rpjax.report.imbalance import class_counts_figure
from rpjax.report.markdown import text
from rpjax.report.results import SCHEMA, Results, check, load
from rpjax.report.tables import Row, rows, table
from rpjax.report.write import write

__all__ = [
    "DARK",
    "LIGHT",
    "SCHEMA",
    "Results",
    "Row",
    "Theme",
    "all_figures",
    "audits",
    "check",
    "class_counts_figure",
    "cost",
    "load",
    "page",
    "roc",
    "rows",
    "sweeps",
    "table",
    "text",
    "tradeoff",
    "training",
    "write",
]
