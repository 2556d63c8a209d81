"""Views of attacks.json: what attacks found, and bounds beside proofs.

>>> from rpjax.report import audits
>>> results = audits.load("out/attacks.json")        # doctest: +SKIP
>>> audits.write(results, Path("out"))               # doctest: +SKIP
"""

from rpjax.report.audits.content import SCHEMA, check, load
from rpjax.report.audits.figures import all_figures
from rpjax.report.audits.html import page
from rpjax.report.audits.markdown import text
from rpjax.report.audits.tables import table
from rpjax.report.audits.write import write

__all__ = ["SCHEMA", "all_figures", "check", "load", "page", "table", "text", "write"]
