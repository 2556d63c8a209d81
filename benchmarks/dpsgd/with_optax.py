"""optax: `contrib.differentially_private_aggregate` over gradients from `vmap`."""

import importlib.metadata
from functools import partial

import jax
import optax
from optax.contrib import differentially_private_aggregate

from benchmarks.dpsgd import in_jax
from benchmarks.dpsgd.task import Task


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "optax")}


def private(task: Task, loss: in_jax.Loss) -> in_jax.Private:
    """Gradients of single records, as optax's documentation asks for them."""
    alone = lambda params, pixels, label: loss(params, pixels[None], label[None])
    private_mean = differentially_private_aggregate(
        task.clip_norm, task.noise_multiplier, key=jax.random.key(task.seed)
    )
    per_example = jax.vmap(jax.grad(alone), (None, 0, 0))
    return per_example, optax.chain(private_mean, in_jax.sgd(task))


start = partial(in_jax.start, private=private)
clipped_sum_differs_by = partial(in_jax.clipped_sum_differs_by, private=private)
