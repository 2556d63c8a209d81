"""jax-privacy: `clipped_grad` and `gaussian_privatizer`, one jitted step a batch.

Batches are padded to one size, and `is_padding_example` tells which slots are empty.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax_privacy.accounting import accountants, analysis

from benchmarks.dpsgd import in_jax, with_jax_privacy
from benchmarks.frameworks.course import Course, Trainer
from benchmarks.frameworks.in_jax import logits_of
from rpjax.learners import Inputs

versions = with_jax_privacy.versions


def begin(course: Course) -> Trainer:
    """See `benchmarks.frameworks.course.Framework`."""
    course.check_device(jax.default_backend() != "cpu")
    gradients, tx = with_jax_privacy.private(course, in_jax.loss_of(course))
    images, labels = map(jnp.asarray, course.images())
    params = jax.tree.map(jnp.asarray, course.tree("parameters"))
    held, logits = [(params, tx.init(params))], logits_of(course)

    @jax.jit
    def step(state: Any, images: Any, labels: Any, where: Any, valid: Any) -> Any:
        params, opt_state = state
        pixels = Inputs().normalised(images[where])
        private = gradients(params, pixels, labels[where], is_padding_example=~valid)
        updates, opt_state = tx.update(private, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def steps(batches: Sequence[np.ndarray]) -> None:
        for batch in batches:
            held[0] = step(held[0], images, labels, *course.padded(batch))
        jax.block_until_ready(held[0])

    return Trainer(steps, lambda images: logits(held[0][0], images), {})


def epsilon(course: Course, steps: int) -> tuple[float, str]:
    """See `benchmarks.frameworks.course.Framework`."""
    accountant = analysis.DpsgdTrainingAccountant(accountants.PldAccountantConfig())
    told = analysis.DpParams(
        noise_multipliers=course.noise_multiplier,
        num_samples=course.records,
        delta=course.delta,
        batch_size=course.batch_size,
    )
    return float(accountant.compute_epsilon(steps, told)), "PLD"
