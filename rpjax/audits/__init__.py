"""What can be refuted: lower bounds on epsilon from membership scores, on the host.

Each module states the conditions under which its numbers are bounds. Scores are plain
arrays of any framework.
"""

from rpjax.audits import bayesian, f_dp, one_run, rates, ratios
from rpjax.audits.designs import Coins, balanced, independent

__all__ = [
    "Coins",
    "balanced",
    "bayesian",
    "f_dp",
    "independent",
    "one_run",
    "rates",
    "ratios",
]
