"""rpjax: residual perturbation and DP-SGD in JAX; train, prove, attack, compare.

A model is a pure Linen module whose blocks take keys; a learner is a triple of pure
functions; `fit` trains any learner and returns a run; a run can be evaluated, asked for
its guarantee, and attacked. Importing rpjax touches no device.
"""

from rpjax import (
    attacks,
    audits,
    data,
    distributed,
    dpsgd,
    features,
    gradients,
    intervals,
    keys,
    learners,
    models,
    privacy,
    verification,
)
from rpjax.averaging import averaged
from rpjax.data import Dataset, Records
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.learners import (
    Inputs,
    LabelNoise,
    Learner,
    Pretrained,
    ensemble,
    side_by_side,
    supervised,
    trainable_after,
)
from rpjax.perturbations import Additive, Multiplicative
from rpjax.training import Budget, Query, Run, answers, fit, pmap, reporter
from rpjax.version import __version__

__all__ = [
    "Additive",
    "Augmentation",
    "Budget",
    "Dataset",
    "InputError",
    "Inputs",
    "LabelNoise",
    "Learner",
    "Multiplicative",
    "Pretrained",
    "Query",
    "Records",
    "Run",
    "__version__",
    "answers",
    "attacks",
    "audits",
    "averaged",
    "data",
    "distributed",
    "dpsgd",
    "ensemble",
    "features",
    "fit",
    "gradients",
    "intervals",
    "keys",
    "learners",
    "models",
    "pmap",
    "privacy",
    "reporter",
    "side_by_side",
    "supervised",
    "trainable_after",
    "verification",
]
