"""Logits of rpjax's own flax net, for rpjax and for jax-privacy."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.dpsgd.in_jax import network
from benchmarks.dpsgd.task import Task
from rpjax.learners import Inputs


def logits_of(task: Task) -> Callable[[Any, np.ndarray], np.ndarray]:
    """(parameters, images) -> logits."""
    model = network(task, convolution="xla")

    @jax.jit
    def logits(params: Any, images: jax.Array) -> jax.Array:
        pixels = Inputs().normalised(images)
        return model.apply({"params": params}, None, pixels, False)

    return lambda params, images: np.asarray(logits(params, images))
