"""What is proved: accountants, closed forms and guarantees, float64 on the host."""

from rpjax.privacy import dpsgd, gdp, residual
from rpjax.privacy.certificate import Alternative, Guarantee, no_guarantee
from rpjax.privacy.dpsgd_certificate import dpsgd_guarantee, stated_epsilon
from rpjax.privacy.feature_certificate import feature_guarantee

__all__ = [
    "Alternative",
    "Guarantee",
    "dpsgd",
    "dpsgd_guarantee",
    "feature_guarantee",
    "gdp",
    "no_guarantee",
    "residual",
    "stated_epsilon",
]
