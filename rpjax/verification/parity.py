"""The sum of a batch against a Python loop over its records, in plain autodiff.

The loop differentiates the loss of what `predict` answers, one record after another,
clips by the rule that the mechanism names, and adds up in float64. Where training sees
other pixels than `predict` (augmentation, forward noise), the loop is the learner's own
step on one record at a time, and another engine if the learner leaves that open.
"""

from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array

from rpjax.annotations import PyTree
from rpjax.gradients import Clipping
from rpjax.gradients.clipping import rule
from rpjax.learners import Implementation, State
from rpjax.learners.losses import Loss, Losses
from rpjax.verification.contributions import WHY, Contributions
from rpjax.verification.probe import Probe, Vector, flat, names, recorded
from rpjax.verification.sensitivity import too_long
from rpjax.verification.verdict import Finding, Why

QUESTION = "the batch against a loop over its records"
COARSE = ("bfloat16", "float16")


def parity(
    probe: Probe,
    states: list[State],
    measured: list[Contributions],
    loss: Losses | None,
) -> Finding:
    """Whether the engine's sum is that of a loop.

    loss: (logits (b, k), labels (b,)) -> losses (b,); None if it is not known.
    """
    state, found = states[0], measured[0]
    if found.kind != "sum":
        words, why = "they differ", WHY[found.kind]
        return Finding("parity", QUESTION, words, "no difference", False, *why)
    if not found.finite:
        return Finding.skipped("parity", QUESTION, "gradients are not finite")
    if found.farthest > found.claim.sensitivity + found.tolerance:
        words, why = "they are longer", too_long(probe, found)
        return Finding("parity", QUESTION, words, "no difference", False, *why)
    if loss is None or _inputs_vary(probe, state):
        return _engines(probe, state, found)
    return _by_predict(probe, states, measured, loss)


def _inputs_vary(probe: Probe, state: State) -> bool:
    """Whether the same record gives another gradient at another step."""
    only = probe.holding(probe.at[0])

    def alone(at: State) -> Vector:
        difference: Vector = probe.released(at, only) - probe.released(
            at, probe.holding()
        )
        return difference

    one, other = alone(state), alone(state._replace(step=state.step + 1))
    scale = np.abs(one).max() + 1e-3 * np.abs(probe.released(state, only)).max()
    return bool(np.abs(one - other).max() > 1e-2 * scale)


# ------------------------------------------------------------------ by another program


def _by_predict(
    probe: Probe, states: list[State], measured: list[Contributions], loss: Losses
) -> Finding:
    gradient, allowed, worst = _gradient(probe, loss), 5e-3, 0.0
    if _coarse(probe):
        allowed = 0.1
    off: set[str] = set()
    for state, found in zip(states, measured, strict=True):
        if not found.finite:
            continue
        for alone, slot in zip(found.alone, probe.at, strict=True):
            after = class_weights(loss, state, probe.batch.labels[slot])
            expected = _clipped(probe, found, gradient(state, slot), alone, after)
            slack = found.tolerance + allowed * found.scale
            distance = float(np.linalg.norm(alone - expected))
            worst = max(worst, distance / max(found.scale, 1e-30))
            if distance > slack:
                off |= _differing(probe, alone, expected)
    return Finding.judged(
        "parity",
        QUESTION,
        f"they differ by {worst:.2g} of the longest",
        f"at most {allowed:.2g}, and rounding",
        not off,
        Why(
            "the engine's clipped gradients are not those of the loss, most of all in "
            f"{', '.join(sorted(off)[:4])}: a layer's rule is wrong, the clipping is "
            "another one than the mechanism names, or the loss is another",
            "try engine='vmap'; if that agrees, the other engine has no right rule for "
            "the layer. Tell verify a loss of your own by loss=...",
        ),
    )


def _gradient(probe: Probe, loss: Losses) -> Callable[[State, int], Vector]:
    """(state, slot) -> the gradient of one record by the optimiser's parameters."""

    def value(params: PyTree, state: State, image: Array, label: Array) -> Array:
        logits = probe.learner.predict(
            probe.root,
            state._replace(params=params),
            image[None],
            jnp.zeros(1, jnp.int32),
            False,
        )
        losses: Array = loss(logits, label[None])[0]
        return losses

    program = jax.jit(jax.grad(value))

    def gradient(state: State, slot: int) -> Vector:
        batch = probe.batch
        found = program(state.params, state, batch.images[slot], batch.labels[slot])
        leaves = dict(zip(names(found), jax.tree.leaves(found), strict=True))
        own = [n in probe.trained for n in probe.names]
        parts = [
            np.ravel(leaves[name]) * mine
            for name, mine in zip(probe.names, own, strict=True)
        ]
        return np.concatenate(parts).astype(np.float64)

    return gradient


def _coarse(probe: Probe) -> bool:
    """Whether the net computes in fewer bits than float32."""
    images, state = probe.batch.images[:1], probe.first
    ids = jnp.zeros(1, jnp.int32)
    traced = jax.make_jaxpr(
        lambda state: probe.learner.predict(probe.root, state, images, ids, False)
    )(state)
    return any(kind in str(traced) for kind in COARSE)


def class_weights(loss: Losses | None, state: State, labels: Array) -> np.ndarray:
    """What multiplies records' gradients after clipping, in the shape of `labels`."""
    if not isinstance(loss, Loss) or not loss.phases:
        return np.ones(labels.shape)
    return np.asarray(loss.weights_at(state.step)[labels], np.float64)


def _clipped(
    probe: Probe,
    found: Contributions,
    gradient: Vector,
    alone: Vector,
    after: np.ndarray,
) -> Vector:
    """The gradient, bounded as the mechanism says, times the weight of its class.

    A rule whose further settings no mechanism tells is taken at its word for lengths.
    """
    clipping = probe.learner.mechanism.clipping
    if clipping == "automatic" or clipping not in get_args(Clipping):
        length = max(float(np.linalg.norm(gradient)), 1e-30)
        return np.asarray(gradient * np.linalg.norm(alone) / length)
    parts = probe.parts(gradient)
    squares = {n: jnp.float32(part @ part)[None] for n, part in parts.items()}
    nest = traverse_util.unflatten_dict(squares, sep="/")
    bound = rule(clipping, found.claim.clip_norm)  # type: ignore[arg-type]
    weights = bound.weights(nest)
    by_name = traverse_util.flatten_dict(weights, sep="/")
    return np.concatenate(
        [after * float(by_name[name][0]) * part for name, part in parts.items()]
    )


def _differing(probe: Probe, one: Vector, other: Vector) -> set[str]:
    parts = probe.parts(one - other)
    sizes = {name: float(np.linalg.norm(part)) for name, part in parts.items()}
    largest = max(sizes.values())
    return {name for name, size in sizes.items() if size >= 0.5 * largest}


# ------------------------------------------------------------------- by its own engines


def _engines(probe: Probe, state: State, found: Contributions) -> Finding:
    """The step of the engine "vmap", if the learner leaves its engine open."""
    learner = probe.learner
    if "engine" not in learner.open or learner.using is None:
        return Finding.skipped(
            "parity",
            QUESTION,
            "training sees other pixels than predict, and the engine is fixed; see "
            "isolation for the learner's own sums",
        )
    plain = learner.using(Implementation(engine="vmap"))
    step = jax.jit(lambda state, batch: plain.step(probe.root, state, batch)[0])
    batch, size = probe.holding(*probe.at), found.claim.batch_size
    expected = np.asarray(flat(recorded(step(state, batch))), np.float64)
    off = float(np.linalg.norm(probe.released(state, batch) - expected)) * size
    allowed = found.tolerance + 5e-3 * found.scale
    return Finding.judged(
        "parity",
        "the batch by the engine vmap",
        f"they differ by {off / found.claim.sensitivity:.2g} clip norms",
        f"at most {allowed / found.claim.sensitivity:.2g}",
        off <= allowed,
        Why(
            "the engines disagree: a layer has a wrong rule",
            "use engine='vmap'",
        ),
    )
