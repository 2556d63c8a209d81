"""A loss that knows its classes: each record's own part, and its class's weight.

The two are kept apart because clipping would undo the second. A gradient that is longer
than the clip norm C comes out with norm C whatever it was multiplied with before, so
DP-SGD multiplies with the class weight after clipping. One record then moves the sum by
C times the largest weight at most, and the noise is scaled to that. (Which is the same
as a clip norm of C w_c for class c.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rpjax.counts import ClassLosses, Counts, Release
from rpjax.errors import InputError

Losses = Callable[[Array, Array], Array]
"""(logits (b, k), labels (b,)) -> losses (b,), each from its own logits and label."""


class Phase(NamedTuple):
    """Class weights from step `start` on, until the next phase starts."""

    start: int
    weights: tuple[float, ...]


class Tally(NamedTuple):
    """A batch by classes: sums of its valid records' losses, and how many, (k,) each.

    Summed over all devices that share the batch.
    """

    losses: Array
    counts: Array


@dataclass(frozen=True)
class Loss:
    """What a learner minimises: the mean over records of weight times loss.

    The mean is over the records of a batch (DP-SGD: the expected batch size), never
    over the sum of their weights, which would make records depend on each other.

    name: in words.
    values: each record's own loss, before its weight.
    phases: class weights by step, the first from step 0; none means weight one.
    sources: the counts, and class losses, that it was made of.
    coupling: (tally of the batch) -> weights (k,), instead of phases: of losses that
        are defined on a batch. No record is then by itself, which DP-SGD refuses.

    Called with (logits, labels) it gives `values`, checked against the classes.
    """

    name: str
    values: Losses
    phases: tuple[Phase, ...] = ()
    sources: tuple[Counts | ClassLosses, ...] = ()
    coupling: Callable[[Tally], Array] | None = None

    def __post_init__(self) -> None:
        starts = [phase.start for phase in self.phases]
        if starts and (starts[0] != 0 or sorted(set(starts)) != starts):
            raise InputError(f"phases start at {starts}; they must rise from 0")
        for phase in self.phases:
            for weight in phase.weights:
                if not 0 < weight < math.inf:
                    raise InputError(
                        f"class weight is {weight}; it must be finite and > 0"
                    )
        sizes = {len(phase.weights) for phase in self.phases}
        sizes |= {len(source.values) for source in self.sources}
        if len(sizes) > 1:
            raise InputError(
                f"{self.name}: weights, counts and class losses are of {sorted(sizes)} "
                "classes; give one for each class to all"
            )

    def __call__(self, logits: Array, labels: Array) -> Array:
        """Each record's own loss (b,), without weights."""
        wanted = self.classes
        if wanted is not None and logits.shape[-1] != wanted:
            raise InputError(
                f"{self.name}: made for {wanted} classes, but there are "
                f"{logits.shape[-1]} logits"
            )
        return self.values(logits, labels)

    @property
    def classes(self) -> int | None:
        """K, where the loss knows it."""
        if self.phases:
            return len(self.phases[0].weights)
        return len(self.sources[0].values) if self.sources else None

    @property
    def private(self) -> bool:
        """Whether DP-SGD may use it; see `legality`."""
        return self.coupling is None and all(s.private for s in self.sources)

    @property
    def releases(self) -> tuple[Release, ...]:
        """The known mechanisms behind released counts, each release once.

        Counts that are one and the same object were released once; two of equal values
        may have been released twice, and count so.
        """
        own = {id(s): s for s in self.sources if isinstance(s, Counts)}
        return tuple(s.release for s in own.values() if s.release is not None)

    @property
    def unaccounted(self) -> bool:
        """Whether figures were released for it by a mechanism that is not known."""
        return any(
            source.source == "released" and getattr(source, "release", None) is None
            for source in self.sources
        )

    @property
    def legality(self) -> str:
        """What it is under DP-SGD, in words."""
        if self.coupling is not None:
            return "not private: weights come from the batch, which couples its records"
        used = {source.source for source in self.sources}
        if "data" in used:
            return "not private: counts or losses of the training data are data"
        if "released" in used:
            return "per example, with figures released by a mechanism of their own"
        return "per example" + (", with public counts" if used else "")

    def weights_at(self, step: int | Array) -> Array:
        """Class weights (k,) at this step, which may be traced."""
        table = np.array([phase.weights for phase in self.phases], np.float32)
        starts = np.array([phase.start for phase in self.phases], np.int32)
        # the number of later phases that have begun
        return jnp.asarray(table)[jnp.sum(jnp.asarray(starts[1:]) <= step)]

    def refuse_unless_private(self) -> None:
        """What a DP-SGD learner asks before it takes a loss.

        Raises:
            InputError: it is made of unreleased figures of the training data, or
                couples the records of a batch.
        """
        if self.coupling is not None:
            raise InputError(
                f"loss is {self.name}, whose weights come from the records of a batch: "
                "not private under DP-SGD; give it counts, and msfe class_losses, that "
                "are public or released"
            )
        if not self.private:
            raise InputError(
                f"loss is {self.name}, made of counts or losses with source 'data': "
                "not private under DP-SGD; take public ones, or release them "
                "(rpjax.privacy.histogram)"
            )


def per_record(
    loss: Losses, losses: Array, labels: Array, step: int | Array, tally: Tally | None
) -> Array:
    """Each record's weight (b,), for the mean over the batch.

    losses: (b,). tally: of the whole batch; used by a coupling alone.
    """
    if not isinstance(loss, Loss):
        return jnp.ones_like(losses)
    if loss.coupling is not None:
        assert tally is not None
        return loss.coupling(tally)[labels]
    return loss.weights_at(step)[labels] if loss.phases else jnp.ones_like(losses)


def unweighted(
    base: Losses,
) -> tuple[str, Losses, tuple[Counts | ClassLosses, ...]]:
    """Name, values and sources of a loss that is to be given class weights.

    Raises:
        InputError: it has weights of its own.
    """
    if not isinstance(base, Loss):
        name = getattr(base, "__name__", "loss of its own").replace("_", "-")
        return name, base, ()
    if base.phases or base.coupling is not None:
        raise InputError(f"base is {base.name}, which has class weights of its own")
    return base.name, base.values, base.sources


def largest_weights(phases: Sequence[Phase]) -> tuple[tuple[int, float], ...]:
    """(start, largest weight) of each phase: what sensitivities are multiplied with."""
    return tuple((phase.start, max(phase.weights)) for phase in phases)
