"""What is proved: accountants, closed forms and guarantees, float64 on the host."""

from rpjax.privacy import dpsgd, gdp, residual
from rpjax.privacy.certificate import (
    Alternative,
    Guarantee,
    dpsgd_guarantee,
    feature_guarantee,
    no_guarantee,
)

__all__ = [
    "Alternative",
    "Guarantee",
    "dpsgd",
    "dpsgd_guarantee",
    "feature_guarantee",
    "gdp",
    "no_guarantee",
    "residual",
]
