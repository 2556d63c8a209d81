"""Per-example gradients, clipped and summed: three engines, one answer."""

from rpjax.gradients.clipped import Clipped, ClippedGrad, clipped_grad, clipped_sum
from rpjax.gradients.clipping import (
    Adaptive,
    Automatic,
    Clipping,
    Flat,
    Normalised,
    PerLayer,
    Rule,
)
from rpjax.gradients.examples import Examples, Loss

__all__ = [
    "Adaptive",
    "Automatic",
    "Clipped",
    "ClippedGrad",
    "Clipping",
    "Examples",
    "Flat",
    "Loss",
    "Normalised",
    "PerLayer",
    "Rule",
    "clipped_grad",
    "clipped_sum",
]
