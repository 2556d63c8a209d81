"""The learning rate, step by step: a rise where one is asked for, and what follows."""

from typing import Literal

import optax

from rpjax.errors import InputError


def steps_of_warmup(group: str, epochs: float, per_epoch: float, steps: int) -> int:
    """The steps in which the learning rate rises: fewer than all.

    group: of the configuration, for the refusal. per_epoch: steps in an epoch.
    """
    found = round(epochs * per_epoch)
    if found >= steps:
        raise InputError(
            f"{group}.warmup is {epochs:g} epochs, {found} steps, and the training has "
            f"{steps}; it must be shorter"
        )
    return found


def rising(
    rate: float, schedule: Literal["cosine", "constant"], first: int, steps: int
) -> optax.Schedule:
    """A learning rate that rises for the first steps, reaches `rate` and goes on.

    Step t, from 0, has (t + 1) / first of it, so that none is without effect (Kurakin
    et al., arXiv 2201.12328); what follows is constant, or a cosine to step `steps`.
    """
    after = (
        optax.constant_schedule(rate)
        if schedule == "constant"
        else optax.cosine_decay_schedule(rate, steps - first)
    )
    if not first:
        return after
    rise = optax.linear_schedule(rate / first, rate, max(1, first - 1))
    return optax.join_schedules([rise, after], [first])


def checked_rate(learning_rate: float | None) -> float:
    """The learning rate, if it is one."""
    if learning_rate is None or not learning_rate > 0:
        raise InputError(f"learning_rate is {learning_rate}; it must be > 0")
    return learning_rate
