"""jax-privacy: `clipped_grad` and `gaussian_privatizer` before the optimiser."""

import importlib.metadata
from functools import partial

import jax
import optax
from jax_privacy import clipped_grad
from jax_privacy.noise_addition import gaussian_privatizer

from benchmarks.dpsgd import in_jax
from benchmarks.dpsgd.task import Task


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "jax-privacy")}


def private(task: Task, loss: in_jax.Loss) -> in_jax.Private:
    """The clipped sum over the batch size, and noise of its sensitivity."""
    gradient = clipped_grad(
        loss,
        l2_clip_norm=task.clip_norm,
        batch_argnums=(1, 2),
        normalize_by=float(task.batch_size),
        microbatch_size=16 if task.way.endswith("16 at a time") else None,
    )
    noise = gaussian_privatizer(
        stddev=task.noise_multiplier * gradient.sensitivity(),
        prng_key=jax.random.key(task.seed),
    )
    return gradient, optax.chain(noise, in_jax.sgd(task))


start = partial(in_jax.start, private=private)
clipped_sum_differs_by = partial(in_jax.clipped_sum_differs_by, private=private)
