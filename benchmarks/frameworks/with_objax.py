"""Objax: `PrivateGradValues` and its own momentum, one jitted step a batch.

Batches are padded to one size; an empty slot's loss has a weight of 0.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import objax

from benchmarks.dpsgd import with_objax
from benchmarks.dpsgd.with_objax import normalised
from benchmarks.frameworks.course import Course, Trainer

versions = with_objax.versions


def begin(course: Course) -> Trainer:
    """See `benchmarks.frameworks.course.Framework`."""
    course.check_device(jax.default_backend() != "cpu")
    images, labels = map(jnp.asarray, course.images())
    net = with_objax.Net(course)
    step, momenta = with_objax.stepper(course, net, course.slots)

    def steps(batches: Sequence[np.ndarray]) -> None:
        for batch in batches:
            where, valid = course.padded(batch)
            step(images, labels, jnp.asarray(where), jnp.asarray(valid, jnp.float32))
        jax.block_until_ready(list(momenta().values()))

    answer = objax.Jit(lambda images: net(normalised(images)), net.vars())
    return Trainer(steps, lambda images: np.asarray(answer(jnp.asarray(images))), {})


def epsilon(course: Course, steps: int) -> tuple[float, str]:
    """See `benchmarks.frameworks.course.Framework`."""
    found = objax.privacy.dpsgd.analyze_dp(
        course.sampling_probability,
        course.noise_multiplier,
        steps,
        delta=course.delta,
    )
    return float(found), "RDP"
