"""Which parameters learn, and which stay as they are."""

from collections.abc import Iterable

import jax
import numpy as np

from rpjax.learners import State
from rpjax.verification.contributions import WHY, Contributions
from rpjax.verification.probe import Probe, Vector, names
from rpjax.verification.verdict import Finding, Why

SHOWN = 4


def parameters(
    probe: Probe, measured: list[Contributions], walk: list[State], released: Vector
) -> list[Finding]:
    """Whether trained parameters have gradients, and frozen ones stay.

    walk: states that follow each other. released: between the first two.
    """
    every = names(probe.first.params)
    return [
        _with_gradient(probe, measured),
        _frozen(probe, set(every) - probe.trained, walk, released),
        _moves(probe, walk, released),
    ]


def _with_gradient(probe: Probe, measured: list[Contributions]) -> Finding:
    claimed = probe.trained
    vectors = [v for found in measured for v in (*found.alone, found.together)]
    seen = {n for v in vectors for n, part in probe.parts(v).items() if np.any(part)}
    without, absent = claimed - seen, claimed - set(probe.names)
    cause = f"{_list(without)} never got a gradient from any of {len(vectors)} batches"
    if absent:
        cause = f"{_list(absent)} never reached the optimiser"
    why = Why(
        f"{cause}: the loss does not depend on them, a stop_gradient cuts them off, or "
        "the engine has left them out",
        "find out why, or freeze them by trainable=..., so that no noise is added",
    )
    if measured[0].kind == "padding":
        why = WHY["padding"]
    return Finding.judged(
        "parameters",
        "trained parameters with a gradient",
        f"{len(claimed - without)} of {len(claimed)}",
        "all",
        not without,
        why,
    )


def _frozen(
    probe: Probe, frozen: set[str], walk: list[State], released: Vector
) -> Finding:
    if not frozen:
        return Finding.skipped("parameters", "frozen parameters", "none are frozen")
    first, last = (_by_name(walk[i].params) for i in (0, -1))
    moved = {n for n in frozen if not np.array_equal(first[n], last[n])}
    noisy = {
        n for n, part in probe.parts(released).items() if n in frozen and np.any(part)
    }
    why = Why(
        f"{_list(moved | noisy)} should be frozen and receive noise: it is added to "
        "all parameters and not to the trained ones alone",
        "take the trained part of the parameters first; clip, sum, noise and update "
        "nothing else",
    )
    return Finding.judged(
        "parameters",
        "frozen parameters that move or receive noise",
        _list(moved | noisy) or "none",
        "none",
        not moved | noisy,
        why,
    )


def _moves(probe: Probe, walk: list[State], released: Vector) -> Finding:
    """Whether parameters move by what was released, and by nothing else."""
    start, end = (_by_name(state.params) for state in walk[:2])
    off = {
        n
        for n, part in probe.parts(released).items()
        if n in start and not _near(end[n] - start[n], -part, start[n])
    }
    why = Why(
        f"{_list(off)} move by something else than the update of the optimiser",
        "change parameters by optax.apply_updates alone; whatever else touches them "
        "has seen the data without noise",
    )
    return Finding.judged(
        "parameters",
        "moved by anything but what was released",
        _list(off) or "none",
        "none",
        not off,
        why,
    )


def _near(moved: np.ndarray, expected: Vector, start: np.ndarray) -> bool:
    scale = np.abs(start).max() + np.abs(expected).max()
    return bool(np.abs(moved.ravel() - expected).max() <= 1e-5 * scale)


def _by_name(params: object) -> dict[str, np.ndarray]:
    leaves = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params))
    return dict(zip(names(params), leaves, strict=True))


def _list(found: Iterable[str]) -> str:
    ordered = sorted(found)
    rest = len(ordered) - SHOWN
    return ", ".join(ordered[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
