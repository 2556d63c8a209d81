"""Losses of one record, and what imbalanced classes add: weights, margins, shifts.

==================  ========================================  =======================
loss                a record's loss; w its class's weight     under DP-SGD
==================  ========================================  =======================
`cross_entropy`     -log softmax(f)_y                         per example
`focal`             (1 - p_y)^g times that                    per example
`class_weighted`    w_c = N / (K n_c)                         weights after clipping
`class_balanced`    w_c ~ (1 - beta) / (1 - beta^n_c)         weights after clipping
`ldam`              true logit less a margin ~ n_c^(-1/4)     per example
`deferred`          any, weighted from some step on           weights after clipping
`logit_adjusted`    cross-entropy of f + tau log pi           per example
`balanced_softmax`  the same with tau = 1                     per example
`mfe`               sum of the classes' mean losses           with given counts only
`msfe`              sum of their squares                      with released losses only
==================  ========================================  =======================

All but the first two know class counts, and a DP-SGD learner takes them only if these
are public or released with noise (`rpjax.counts.Counts`).
"""

from rpjax.learners.losses.classwise import mean_by_class, mfe, msfe
from rpjax.learners.losses.loss import Loss, Losses, Phase, Tally, per_record
from rpjax.learners.losses.margins import (
    adjusted,
    balanced_softmax,
    focal,
    ldam,
    logit_adjusted,
    margins,
)
from rpjax.learners.losses.plain import correct, cross_entropy, squared_error
from rpjax.learners.losses.weighted import (
    class_balanced,
    class_weighted,
    deferred,
    effective_number_weights,
    inverse_weights,
)

__all__ = [
    "Loss",
    "Losses",
    "Phase",
    "Tally",
    "adjusted",
    "balanced_softmax",
    "class_balanced",
    "class_weighted",
    "correct",
    "cross_entropy",
    "deferred",
    "effective_number_weights",
    "focal",
    "inverse_weights",
    "ldam",
    "logit_adjusted",
    "margins",
    "mean_by_class",
    "mfe",
    "msfe",
    "per_record",
    "squared_error",
]
