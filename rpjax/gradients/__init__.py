"""Per-example gradients, clipped and summed: three engines, one answer."""

from rpjax.gradients.clipped import (
    Clipped,
    ClippedGrad,
    clipped_grad,
    clipped_sum,
    gradient_norms,
)
from rpjax.gradients.clipping import (
    Adaptive,
    Automatic,
    Clipping,
    Flat,
    Moving,
    Normalised,
    PerLayer,
    Rule,
)
from rpjax.gradients.examples import Examples, Loss
from rpjax.gradients.groups import (
    GroupClipping,
    GroupStep,
    GroupSum,
    group_noise,
    group_noised,
    group_step,
    group_sum,
)
from rpjax.gradients.scaled import Global, GlobalAdaptive

__all__ = [
    "Adaptive",
    "Automatic",
    "Clipped",
    "ClippedGrad",
    "Clipping",
    "Examples",
    "Flat",
    "Global",
    "GlobalAdaptive",
    "GroupClipping",
    "GroupStep",
    "GroupSum",
    "Loss",
    "Moving",
    "Normalised",
    "PerLayer",
    "Rule",
    "clipped_grad",
    "clipped_sum",
    "gradient_norms",
    "group_noise",
    "group_noised",
    "group_step",
    "group_sum",
]
