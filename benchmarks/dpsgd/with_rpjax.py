"""rpjax: the compiled training program that `fit` runs, many steps in one call.

ways: "plain", or an engine of DP-SGD. Batches come from a shuffled order, so that every
slot is valid, as in the other libraries' steps; a Poisson batch has more slots, which
`python -m benchmarks steps` times. What is left to "auto" is computed as a training of
`steps` would.
"""

import importlib.metadata
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.dpsgd.in_jax import momentum_apart, network, peak, sgd
from benchmarks.dpsgd.task import Task, Training
from benchmarks.workloads import resident
from rpjax import keys
from rpjax.data.records import numbered
from rpjax.data.sampling import shuffled
from rpjax.learners import Learner, dpsgd, supervised
from rpjax.learners.base import Batch, State
from rpjax.privacy.dpsgd import Sampling


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "rpjax")}


def start(task: Task) -> Training:
    """See `benchmarks.dpsgd.task.Library`."""
    images, labels = task.images()
    feed, state, choice = resident(
        learner(task),
        numbered(images, labels),
        shuffled(task.records, task.batch_size),
        steps=task.steps,
        seed=task.seed,
    )
    cost = feed.clock.cost(feed.program)
    facts = {"memory_bytes": cost.memory_bytes, "compile_seconds": cost.compile_seconds}
    return Training(
        feed.stopwatch(state),
        task.records // task.batch_size,
        peak,
        {**facts, "computed": str(choice)},
    )


def clipped_sum_differs_by(task: Task) -> float:
    """See `benchmarks.dpsgd.task.Library`."""
    with jax.default_device(jax.devices("cpu")[0]):
        own, (images, labels) = learner(task), map(jnp.asarray, task.images())
        params = jax.tree.map(jnp.asarray, task.tree("parameters"))
        secret = jnp.zeros(8, jnp.uint32)
        state = State(jnp.int32(0), params, {}, sgd(task).init(params), secret)
        count = len(labels)
        ids, valid = np.arange(count, dtype=np.int32), np.ones(count, bool)
        batch = Batch(images, labels.astype(jnp.int32), jnp.asarray(ids), valid)
        after, _ = jax.jit(partial(own.step, keys.root(task.seed)))(state, batch)
        return momentum_apart(after.opt_state, task)


def learner(task: Task, sampling: Sampling = "shuffled") -> Learner:
    model = network(task)
    if task.way == "plain":
        return supervised(model, sgd(task))
    return dpsgd(
        model,
        sgd(task),
        clip_norm=task.clip_norm,
        noise_multiplier=task.noise_multiplier,
        batch_size=task.batch_size,
        engine=task.way,
        sampling=sampling,
    )
