"""What is proved: accountants, closed forms and guarantees, float64 on the host."""

from rpjax.privacy import (
    depth,
    documents,
    dpsgd,
    gdp,
    histogram,
    labels,
    multiplicative,
    participation,
    residual,
    shuffling,
    theorem,
)
from rpjax.privacy.algebra import compose, least_noise, repeated
from rpjax.privacy.certificate import Alternative, Guarantee, no_guarantee
from rpjax.privacy.curves import Curve, Gaussian, Mixture, Numerical, Point, Renyi
from rpjax.privacy.dpsgd_certificate import dpsgd_guarantee, stated_epsilon
from rpjax.privacy.feature_certificate import feature_guarantee

__all__ = [
    "Alternative",
    "Curve",
    "Gaussian",
    "Guarantee",
    "Mixture",
    "Numerical",
    "Point",
    "Renyi",
    "compose",
    "depth",
    "documents",
    "dpsgd",
    "dpsgd_guarantee",
    "feature_guarantee",
    "gdp",
    "histogram",
    "labels",
    "least_noise",
    "multiplicative",
    "no_guarantee",
    "participation",
    "repeated",
    "residual",
    "shuffling",
    "stated_epsilon",
    "theorem",
]
