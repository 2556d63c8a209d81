"""Where residual perturbation is provable and useful: public trunk, noise once, head.

A public frozen trunk turns images into short vectors; they are clipped and released
with noise drawn once per record (exact mu-GDP, mu = 2R/pi, for replacing one record's
image); a head is trained on the release for as long as one likes. See docs/features.md.
"""

from rpjax.features.accuracy import EPSILONS, curve, trunk_named
from rpjax.features.drawn import digits_trunk, drawn_trunk, narrowed
from rpjax.features.estimates import Moments, moments
from rpjax.features.filters import photograph_trunk, random_trunk
from rpjax.features.heads import Head, fit_head, stand_ins, zero_shot
from rpjax.features.releasing import Released, release, releases
from rpjax.features.trunk import Sample, Trunk

__all__ = [
    "EPSILONS",
    "Head",
    "Moments",
    "Released",
    "Sample",
    "Trunk",
    "curve",
    "digits_trunk",
    "drawn_trunk",
    "fit_head",
    "moments",
    "narrowed",
    "photograph_trunk",
    "random_trunk",
    "release",
    "releases",
    "stand_ins",
    "trunk_named",
    "zero_shot",
]
