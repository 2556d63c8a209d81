"""What can be refuted: lower bounds on epsilon from membership scores, on the host.

`audit` is the protocol, whose number is a bound. The modules hold its parts, each with
the conditions under which it is one: `one_run`, `f_dp` and `rates`; `ratios` and
`bayesian` give no bounds. Scores are plain arrays of any framework.
"""

from rpjax.audits import bayesian, f_dp, one_run, rates, ratios
from rpjax.audits.designs import Coins, balanced, independent
from rpjax.audits.protocol import Audit, Figure, Plan, Tested, audit, shuffled

__all__ = [
    "Audit",
    "Coins",
    "Figure",
    "Plan",
    "Tested",
    "audit",
    "balanced",
    "bayesian",
    "f_dp",
    "independent",
    "one_run",
    "rates",
    "ratios",
    "shuffled",
]
