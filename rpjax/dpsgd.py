"""DP-SGD: a learner, and the pieces that it is made of for a loop of one's own.

``rpjax.dpsgd(model, tx, ...)`` is the learner (`rpjax.learners.dpsgd`), and the module
holds the pieces: clipped gradients, noise, batches, accounting, and `verify`. They keep
to the protocols of jax-privacy 2.0, so that parts of the two interchange.
"""

import functools
import sys
import types
from typing import Any

from rpjax.batches import PoissonBatches, is_padding_example, padded
from rpjax.gradients import (
    Adaptive,
    Automatic,
    Clipped,
    ClippedGrad,
    Flat,
    Normalised,
    PerLayer,
    clipped_grad,
    clipped_sum,
)
from rpjax.learners.dpsgd import dpsgd as learner
from rpjax.noise import NoiseState, gaussian_noise
from rpjax.privacy.dpsgd import epsilon, event, noise_multiplier_for, steps_for
from rpjax.verification import check_isolation, verify

__all__ = [
    "Adaptive",
    "Automatic",
    "Clipped",
    "ClippedGrad",
    "Flat",
    "NoiseState",
    "Normalised",
    "PerLayer",
    "PoissonBatches",
    "check_isolation",
    "clipped_grad",
    "clipped_sum",
    "epsilon",
    "event",
    "gaussian_noise",
    "is_padding_example",
    "learner",
    "noise_multiplier_for",
    "padded",
    "steps_for",
    "verify",
]


class _Callable(types.ModuleType):
    """This module, which can be called like the learner that it is named after."""

    @functools.wraps(learner)
    def __call__(self, *args: Any, **options: Any) -> Any:
        return learner(*args, **options)


sys.modules[__name__].__class__ = _Callable
