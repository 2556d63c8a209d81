"""rpjax: the compiled training program that `fit` runs, an epoch in one call.

The program draws its own Poisson batches, of the same probability as the others'. It
is computed as `fit` would compute a training so long.
"""

from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.dpsgd import with_rpjax
from benchmarks.frameworks import in_jax
from benchmarks.frameworks.course import Course, Trainer
from benchmarks.workloads import resident
from rpjax.data.records import numbered
from rpjax.training.loop import sampler_for
from rpjax.training.run import spending

versions = with_rpjax.versions


def begin(course: Course) -> Trainer:
    """See `benchmarks.frameworks.course.Framework`."""
    course.check_device(jax.default_backend() != "cpu")
    learner = with_rpjax.learner(course, "poisson")
    sampler = sampler_for(learner, course.records, course.batch_size)
    images, labels = course.images()
    feed, state, choice = resident(
        *(learner, numbered(images, labels), sampler),
        steps=course.steps,
        seed=course.seed,
    )
    params = jax.tree.map(
        lambda value, own: jax.device_put(value, own.sharding),
        *(course.tree("parameters"), state.params),
    )
    held, logits = [state._replace(params=params)], in_jax.logits_of(course)
    done = 0

    def steps(batches: Sequence[np.ndarray]) -> None:
        nonlocal done
        last = done + len(batches)
        while done < last:
            block, start = divmod(done, sampler.block)
            count = min(last - done, sampler.block - start)
            held[0], _ = feed.steps(held[0], block, start, count)
            done += count
        jax.block_until_ready(held[0])

    return Trainer(
        steps,
        lambda images: logits(held[0].params, images),
        {"computed": str(choice), "compile_seconds": feed.clock.compile_seconds},
    )


def epsilon(course: Course, steps: int) -> tuple[float, str]:
    """See `benchmarks.frameworks.course.Framework`."""
    learner = with_rpjax.learner(course, "poisson")
    sampler = sampler_for(learner, course.records, course.batch_size)
    spent = spending(learner, sampler, tuple(course.image_shape), course.delta)
    return float(spent(steps)), "PLD, batches cut at random"
