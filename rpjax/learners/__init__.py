"""Learners: named triples of pure functions, and wrappers that return learners."""

from rpjax.learners.base import Batch, Implementation, Info, Learner, Mechanism, State
from rpjax.learners.dpsgd import dpsgd
from rpjax.learners.ensemble import ensemble, side_by_side
from rpjax.learners.inputs import Inputs
from rpjax.learners.label_noise import LabelNoise
from rpjax.learners.supervised import supervised
from rpjax.learners.transfer import Pretrained, trainable_after

__all__ = [
    "Batch",
    "Implementation",
    "Info",
    "Inputs",
    "LabelNoise",
    "Learner",
    "Mechanism",
    "Pretrained",
    "State",
    "dpsgd",
    "ensemble",
    "side_by_side",
    "supervised",
    "trainable_after",
]
