"""What can be refuted: lower bounds on epsilon from membership scores, on the host.

Each module states the conditions under which its numbers are bounds. Scores are plain
arrays of any framework.
"""

from rpjax.audits import f_dp, one_run
from rpjax.audits.designs import Coins, balanced, independent

__all__ = [
    "Coins",
    "balanced",
    "f_dp",
    "independent",
    "one_run",
]
