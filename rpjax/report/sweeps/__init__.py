"""Views of sweep.json: a table, a curve, a heat map, a page.

>>> from rpjax.report import sweeps
>>> merged = sweeps.load("sweep/sweep.json")         # doctest: +SKIP
>>> sweeps.write(merged, Path("sweep"))              # doctest: +SKIP
"""

from rpjax.report.sweeps.content import load
from rpjax.report.sweeps.curves import curve
from rpjax.report.sweeps.maps import heat_map
from rpjax.report.sweeps.tables import table
from rpjax.report.sweeps.write import write

__all__ = ["curve", "heat_map", "load", "table", "write"]
