"""Where residual perturbation is provable and useful: public trunk, noise once, head.

A public frozen trunk turns images into short vectors; they are clipped and released
with noise drawn once per record (exact mu-GDP, mu = 2R/pi, for replacing one record's
image); a head is trained on the release for as long as one likes. See docs/features.md.
"""

from rpjax.features.drawn_trunk import digits_trunk, drawn_trunk
from rpjax.features.filter_trunks import photograph_trunk, random_trunk
from rpjax.features.heads import Head, fit_head, stand_ins, zero_shot
from rpjax.features.moments import Moments, moments
from rpjax.features.release import Released, release
from rpjax.features.trunk import Sample, Trunk

__all__ = [
    "Head",
    "Moments",
    "Released",
    "Sample",
    "Trunk",
    "digits_trunk",
    "drawn_trunk",
    "fit_head",
    "moments",
    "photograph_trunk",
    "random_trunk",
    "release",
    "stand_ins",
    "zero_shot",
]
