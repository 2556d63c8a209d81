"""What each record adds to a released gradient, alone and among others.

Two steps from one state draw the same noise, so that their difference is a matter of
records alone. If every record's gradient is its own and the divisor is a constant, the
contributions of records that come alone add up to that of all of them together. How
they fail to do so tells what went wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rpjax.learners import Batch, State
from rpjax.verification.probe import ROUNDING, Claim, Probe, Vector
from rpjax.verification.verdict import Finding, Why

Kind = Literal[
    "sum",
    "true_size",
    "together",
    "counted_wrong",
    "padding",
    "images",
    "labels",
    "mixed",
]

FACTORS = (1.0, 4.0, 16.0, 64.0, 256.0)

WHY: dict[Kind, Why] = {
    "sum": Why("", ""),
    "true_size": Why(
        "the sum is divided by the number of records that the batch really holds",
        "divide by the expected batch size, a constant: the true number is private, "
        "and dividing by it changes every record's share and the noise's",
    ),
    "together": Why(
        "gradients are averaged or summed first and clipped together afterwards",
        "clip every record's gradient, then sum: rpjax.gradients.clipped_grad",
    ),
    "counted_wrong": Why(
        "some records are counted twice, or left out, depending on their slot: "
        "microbatches overlap, or their padding counts",
        "give each slot to one microbatch, and mark what fills the last as invalid",
    ),
    "padding": Why(
        "empty slots count as records: the mask of valid slots is not applied",
        "give a slot that is not valid weight 0 before the sum",
    ),
    "images": Why(
        "one record's image changes the others' gradients: a layer with statistics of "
        "the batch, as BatchNorm has in train mode",
        "use norm='group' (GroupNorm, LayerNorm), or BatchNorm with fixed statistics",
    ),
    "labels": Why(
        "the loss mixes records: one record's label changes the others' gradients",
        "use a loss that is one number for each record, from its own logits and label "
        "alone: no means, maxima or weights over the batch",
    ),
    "mixed": Why(
        "the gradients of the records that count depend on one another: by statistics "
        "of the batch (BatchNorm in train mode), or by a loss that mixes records",
        "use norm='group', and a loss that is one number for each record, from its own "
        "logits and label alone",
    ),
}


@dataclass(frozen=True)
class Contributions:
    """What records add to the gradient of one state, in units of the sum.

    claim: of the mechanism. empty: what an empty batch releases, noise.
    alone: of each record by itself (m, p); together: of all m.
    elsewhere: of all m in other slots. few: of the first two. others: of all but one.
    crowd: how often one record counts that stands in every slot; slots: how many.
    exchanged: by how much a release changes when an empty slot's image, label or both
        are exchanged; ideally 0. emptied: likewise that of an empty batch.
    again: by how much the same step differs from itself.
    """

    claim: Claim
    empty: Vector
    alone: Float[np.ndarray, "m p"]
    together: Vector
    elsewhere: Vector
    few: Vector
    others: Vector
    crowd: float
    slots: int
    exchanged: dict[str, float]
    emptied: float
    again: float

    @property
    def tolerance(self) -> float:
        """What rounding may do to the sum of all."""
        return 2e-3 * self.claim.sensitivity + self.rounding + 4 * self.again

    @property
    def rounding(self) -> float:
        """What the noise leaves unknown of a contribution."""
        return 8 * ROUNDING * float(np.linalg.norm(self.empty))

    @property
    def repeatable(self) -> bool:
        """Whether a step comes out the same again, so that steps can be compared."""
        return self.again <= 1e-5 * self.claim.sensitivity + self.rounding

    @property
    def unrest(self) -> float:
        """By how much a step may differ from itself: 0 but for some accelerators."""
        return min(4 * self.again, self.tolerance)

    @property
    def finite(self) -> bool:
        """Whether all of it is numbers."""
        return bool(np.isfinite(self.empty).all() and np.isfinite(self.alone).all())

    @property
    def norms(self) -> Float[np.ndarray, " m"]:
        """Of each record alone."""
        return _length(self.alone)

    @property
    def farthest(self) -> float:
        """How far one record moves the sum, alone or among others."""
        among = (self.few - self.alone[0], self.together - self.others)
        return float(max(self.norms.max(), *map(_length, among)))

    @property
    def gap(self) -> float:
        """How far the parts are from the whole."""
        return float(np.linalg.norm(self.together - self.alone.sum(0)))

    @property
    def shift(self) -> float:
        """How far they are from the whole in other slots."""
        return float(np.linalg.norm(self.elsewhere - self.alone.sum(0)))

    @property
    def every_slot(self) -> bool:
        """Whether a record counts once in every slot."""
        allowed = 0.3 + self.rounding / self.claim.sensitivity
        return abs(self.crowd - self.slots) <= allowed

    @property
    def kind(self) -> Kind:
        """What the batch does to its records."""
        if not np.isfinite(self.empty).all() and np.isfinite(self.alone).any():
            return "true_size"
        if self.emptied > self.tolerance:
            return "padding"
        if self.exchanged["label"] > self.unrest:
            return "labels"
        if self.exchanged["both"] > self.unrest:
            return "images"
        if max(self.gap, self.shift) > self.tolerance:
            return self._coupled()
        return "sum" if self.every_slot else "counted_wrong"

    def _coupled(self) -> Kind:
        """Why the parts do not add up, from the whole as a combination of them."""
        for whole in (self.together, self.elsewhere):
            weights, rest = self._weights(whole)
            size = float(_length(whole))
            explained = rest <= max(self.tolerance, 0.02 * size)
            whole_numbers = all(map(_once_or_so, weights))
            if explained and np.ptp(weights) < 0.05 and weights.mean() < 0.95:
                return "true_size"
            if explained and whole_numbers and np.abs(weights - 1).max() > 0.4:
                return "counted_wrong"
        sizes = [float(_length(whole)) for whole in (self.together, self.few)]
        if max(sizes) <= 1.01 * float(self.norms.max()) + self.tolerance:
            return "together"
        return "mixed"

    def _weights(self, whole: Vector) -> tuple[Float[np.ndarray, " m"], float]:
        """Weights with which the parts, and the noise, give the whole; and the rest."""
        parts = np.vstack([self.alone, self.empty])
        sizes = np.maximum(np.linalg.norm(parts, axis=1), 1e-30)
        design = (parts / sizes[:, None]).T
        found = np.linalg.lstsq(design, whole, rcond=1e-6)[0]
        rest = float(np.linalg.norm(design @ found - whole))
        return found[:-1] / sizes[:-1], rest


def _once_or_so(weight: float) -> bool:
    """Whether a record counts n or 1/n times as much as it does alone."""
    inverse = 1 / weight if abs(weight) > 0.05 else 0.0
    off = min(abs(weight - round(weight)), abs(inverse - round(inverse)))
    return bool(off < 0.05)


def _length(vectors: Float[np.ndarray, "... p"]) -> Float[np.ndarray, "..."]:
    lengths: np.ndarray = np.asarray(np.linalg.norm(vectors, axis=-1))
    return lengths


def measured(probe: Probe, state: State) -> Contributions:
    """The contributions of the probe's records in one state."""
    claim = probe.claim(state)
    size, at = claim.batch_size, probe.at
    release = lambda batch: probe.released(state, batch) * size
    with np.errstate(all="ignore"):
        empty = release(probe.holding())
        alone = np.array([release(probe.holding(slot)) - empty for slot in at])
        whole = release(probe.holding(*at))
        others, shifted = _shifted(probe)
        unseen = at[0] if len(at) < 2 else at[1]
        seen = probe.holding(*(slot for slot in at if slot != unseen))
        base = release(seen)
        change = lambda batch, **leaves: release(batch._replace(**leaves))
        new = _replacement(probe.batch, unseen)
        image, label = {"images": new.images}, {"labels": new.labels}
        distance = lambda a, b: float(np.abs(a - b).max()) if a.size else 0.0
        return Contributions(
            claim=claim,
            empty=empty,
            alone=alone,
            together=whole - empty,
            elsewhere=release(shifted._replace(valid=others)) - empty,
            few=release(probe.holding(*at[:2])) - empty,
            others=base - empty,
            crowd=_crowd(probe, state, empty),
            slots=len(probe.batch.valid),
            exchanged={
                "image": distance(change(seen, **image), base),
                "label": distance(change(seen, **label), base),
                "both": distance(change(seen, **image, **label), base),
            },
            emptied=distance(change(probe.holding(), **image, **label), empty),
            again=distance(release(probe.holding(*at)), whole),
        )


def _crowd(probe: Probe, state: State, empty: Vector) -> float:
    """How often a record counts that stands in every slot."""
    size, slots = probe.claim(state).batch_size, len(probe.batch.valid)
    repeat = lambda leaf: jnp.broadcast_to(leaf[probe.at[0]], leaf.shape)
    batch, slot = Batch(*map(repeat, probe.batch)), jnp.arange(slots)
    one, every = (
        probe.released(state, batch._replace(valid=valid)) * size - empty
        for valid in (slot == 0, slot >= 0)
    )
    return float(one @ every / (one @ one)) if one.any() else float(slots)


def _shifted(probe: Probe) -> tuple[jnp.ndarray, Batch]:
    """The same records, each some slots further on."""
    slots = len(probe.batch.valid)
    by = max(1, slots // (2 * len(probe.at)))
    valid = np.roll(np.asarray(probe.holding(*probe.at).valid), by)
    roll = lambda leaf: jnp.roll(leaf, by, axis=0)
    return jnp.asarray(valid), Batch(*map(roll, probe.batch))


def _replacement(batch: Batch, slot: int) -> Batch:
    """The batch with another image and another label in this slot."""
    labels = np.asarray(batch.labels)
    other = labels[labels != labels[slot]]
    label = other[0] if other.size else labels[slot] + 1
    image = 255 - np.asarray(batch.images[slot])
    return batch._replace(
        images=batch.images.at[slot].set(jnp.asarray(image)),
        labels=batch.labels.at[slot].set(jnp.asarray(label)),
    )


def alone(
    probe: Probe, state: State, slots: Sequence[int] | None = None
) -> list[Vector]:
    """What records release by themselves, without noise."""
    empty = probe.released(state, probe.holding())
    chosen = probe.at if slots is None else slots
    return [probe.released(state, probe.holding(s)) - empty for s in chosen]


def saturated(probe: Probe) -> State:
    """A state in which gradients are long enough to be clipped, if one is found."""
    best, longest = probe.moved(FACTORS[0]), 0.0
    for factor in FACTORS:
        state = probe.moved(factor)
        claim = probe.claim(state)
        with np.errstate(all="ignore"):
            few = np.array(alone(probe, state, probe.at[:2])) * claim.batch_size
        shortest = float(_length(few).min())
        if np.isfinite(few).all() and shortest > longest:
            best, longest = state, shortest
        if longest >= 0.999 * claim.sensitivity:
            break
    return best


# ---------------------------------------------------------------------------- findings


def isolation(found: Contributions) -> list[Finding]:
    """Whether a record changes what the others contribute."""
    why = WHY[found.kind]
    moved, allowed = max(found.exchanged.values()), found.unrest
    unit = found.claim.sensitivity
    return [
        Finding.judged(
            "isolation",
            "the others' gradients when one record is exchanged",
            "they stay exactly" if moved == 0 else f"they move by up to {moved:.2g}",
            "they stay exactly",
            moved <= allowed and found.emptied <= allowed,
            why if found.kind != "sum" else WHY["images"],
        ),
        Finding.judged(
            "isolation",
            "contributions alone and together",
            f"they differ by {found.gap / unit:.2g} clip norms",
            f"at most {found.tolerance / unit:.2g}",
            found.gap <= found.tolerance,
            why if found.kind != "sum" else WHY["mixed"],
        ),
        Finding.judged(
            "isolation",
            "the same records in other slots",
            f"they differ by {found.shift / unit:.2g} clip norms",
            f"at most {found.tolerance / unit:.2g}",
            found.shift <= found.tolerance,
            why if found.kind != "sum" else WHY["counted_wrong"],
        ),
        Finding.judged(
            "isolation",
            f"one record in all of {found.slots} slots",
            f"counts {found.crowd:.6g} times",
            f"{found.slots} times",
            found.every_slot,
            why if found.kind != "sum" else WHY["counted_wrong"],
        ),
    ]
