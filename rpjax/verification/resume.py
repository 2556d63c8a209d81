"""Whether a training that was killed goes on as if it had not been."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rpjax.learners import State
from rpjax.training.checkpoints import Checkpoints
from rpjax.training.history import Log
from rpjax.verification.probe import Probe
from rpjax.verification.verdict import Finding, Why

STEPS = 2


def resume(probe: Probe, unrest: float) -> Finding:
    """Steps from a state that was written to disk and read again.

    unrest: by how much the same step may differ from itself; 0 but for accelerators.
    """
    batch = probe.holding(*probe.at)
    half = _on(probe, probe.first, STEPS)
    through, again = _on(probe, half, STEPS), _on(probe, _reread(half), STEPS)
    exact = _same(through, again)
    off = float(
        np.abs(probe.released(through, batch) - probe.released(again, batch)).max()
    )
    return Finding.judged(
        "resume",
        f"{STEPS} steps after a checkpoint",
        "the same bit for bit" if exact else f"they differ by up to {off:.2g}",
        "the same bit for bit",
        exact or (unrest > 0 and off <= unrest),
        Why(
            "a step depends on something that is not in the state, such as a generator "
            "of the host: a resumed training is another one",
            "draw everything from the root key and from state.secret, by the step's "
            "number",
        ),
    )


def _on(probe: Probe, state: State, steps: int) -> State:
    for _ in range(steps):
        _, state = probe.step(state, probe.holding(*probe.at))
    return state


def _reread(state: State) -> State:
    """The state from a checkpoint of its own."""
    with tempfile.TemporaryDirectory() as folder:
        keeper = Checkpoints(Path(folder) / "state", {}, 60.0)
        keeper.save(1, state, Log(), None)
        keeper.finish()
        keeper = Checkpoints(Path(folder) / "state", {}, 60.0)
        try:
            saved = keeper.restore(state, 1)
        finally:
            keeper.close()
    assert saved is not None
    back: State = jax.tree.map(jnp.asarray, saved.state)
    return back


def _same(one: State, other: State) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
