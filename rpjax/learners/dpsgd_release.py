"""What a step of DP-SGD releases: clipped, summed over devices, noised, divided.

By a rule, one clip norm for everybody (`by_rule`); or one for each class, from noisy
counts of the same batch (`by_groups`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from rpjax import noise as rp_noise
from rpjax.annotations import PyTree
from rpjax.errors import InputError
from rpjax.gradients import (
    GroupClipping,
    Moving,
    Rule,
    clipped_sum,
    group_noise,
    group_noised,
    group_sum,
)
from rpjax.gradients.clipped import Clipped, EngineName
from rpjax.gradients.examples import Loss as ExampleLoss
from rpjax.learners.base import Batch, Info, State
from rpjax.learners.dpsgd_settings import Settings
from rpjax.learners.losses import Losses
from rpjax.learners.reduction import summed
from rpjax.learners.supervised import figures
from rpjax.noise import Source as NoiseSource


class Asked(NamedTuple):
    """How the gradients of a batch are computed: what `clipped_sum` takes.

    loss: of a prepared record. params: those that are trained.
    """

    loss: ExampleLoss
    params: PyTree
    engine: EngineName
    microbatch: int | None
    prepare: Callable[[PyTree], PyTree]


class Released(NamedTuple):
    """The noisy mean gradient, and what else a step knows after it.

    stats: the state's next statistics. sums: figures of the batch, summed over devices,
        not private. facts: released ones, such as the clip norm.
    """

    gradient: PyTree
    stats: PyTree
    sums: Info
    facts: Info


def by_rule(
    settings: Settings,
    rule: Rule,
    asked: Asked,
    state: State,
    batch: Batch,
    axis: str | None,
) -> Released:
    """One bound for everybody; of a rule that moves, the noisy count too."""
    after = None
    if settings.weighted is not None:
        after = settings.weighted.weights_at(state.step)[batch.labels]
    clipped = clipped_sum(
        asked.loss, rule, asked.engine, asked.microbatch, asked.prepare
    )(asked.params, batch, batch.valid, after)
    sums = _sums(clipped, batch, rule.threshold, settings.loss)
    if isinstance(rule, Moving):
        sums["votes"] = jnp.sum(rule.votes(clipped.norms) * batch.valid)
    # every device adds the same draw to the same sum: the noise enters once
    total, sums = summed((clipped.total, sums), axis)
    if isinstance(rule, Moving):
        votes = sums.pop("votes")
        gradient, moved = _with_count(settings, rule, state, total, votes)
        return Released(gradient, moved, sums, state.stats)
    scale = settings.noise_multiplier * settings.sensitivity(rule, state.step)
    gradient = noised(
        *(total, state.secret, state.step, scale, settings.batch_size, settings.noise)
    )
    return Released(gradient, state.stats, sums, {})


def by_groups(
    settings: Settings,
    rule: GroupClipping,
    asked: Asked,
    state: State,
    batch: Batch,
    axis: str | None,
) -> Released:
    """A bound for each class, from noisy counts of the same batch."""
    sigma = settings.noise_multiplier
    size = ravel_pytree(asked.params)[0].size
    noise = group_noise(rule, sigma, size, state.secret, state.step, settings.noise)
    bounds, clipped = group_sum(
        asked.loss, rule, asked.engine, asked.microbatch, asked.prepare
    )(asked.params, batch, batch.labels, batch.valid, noise.counts, axis)
    classes = clipped.aux.shape[-1]
    if classes != rule.groups:
        raise InputError(
            f"groups is {rule.groups}; a record's group is its class, of which the net "
            f"knows {classes}"
        )
    sums = _sums(clipped, batch, bounds[batch.labels], settings.loss)
    total, sums = summed((clipped.total, sums), axis)
    noisy = group_noised(total, bounds, noise.normals, rule, sigma)
    gradient = jax.tree.map(lambda leaf: leaf / settings.batch_size, noisy)
    facts = {"least_clip_norm": jnp.min(bounds), "largest_clip_norm": jnp.max(bounds)}
    return Released(gradient, state.stats, sums, facts)


def _sums(clipped: Clipped, batch: Batch, threshold: Any, loss: Losses) -> Info:
    """Figures of a batch before the update, as sums over its records."""
    norms, finite = clipped.norms, jnp.isfinite(clipped.norms)
    over, valid = norms > threshold, batch.valid
    count = lambda which: jnp.sum(which, dtype=jnp.float32)
    return figures(clipped.aux, batch, loss) | {
        "clipped": count(over & valid),
        "non_finite": count(~finite & valid),
    }


def _with_count(
    settings: Settings, rule: Moving, state: State, total: PyTree, votes: Array
) -> tuple[PyTree, PyTree]:
    """The noisy mean gradient, and where the noisy count moves the rule."""
    sigma, size = settings.noise_multiplier, settings.batch_size
    if sigma == 0:
        gradient = jax.tree.map(lambda t: t / size, total)
    else:
        own = rule.gradient_noise_multiplier(sigma, size)
        own = own * settings.sensitivity(rule, state.step)
        count = rule.count_noise(size)
        # in units of their noise the two are one vector, and get one draw
        scaled = (jax.tree.map(lambda t: t / own, total), votes / count)
        draw = (state.secret, state.step, 1.0, 1, settings.noise)
        noisy, noisy_votes = noised(scaled, *draw)
        gradient = jax.tree.map(lambda t: t * own / size, noisy)
        votes = noisy_votes * count
    return gradient, rule.moved_by(votes, size)


def noised(
    total: PyTree,
    secret: Array,
    step: Array,
    scale: Any,
    batch_size: int,
    source: NoiseSource = "threefry",
) -> PyTree:
    """``(total + scale n) / batch_size`` with standard normal n of this step."""
    noisy = rp_noise.noised(total, secret, step, scale, source)
    return jax.tree.map(lambda leaf: leaf / batch_size, noisy)
