"""Saving a training's state and picking it up again, through orbax."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from rpjax.errors import InputError

History = dict[str, list[float]]


class Checkpoints:
    """The checkpoints of one training in one folder; the last two are kept.

    facts: settings that a training cannot change on its way, such as its seed.

    orbax writes each under a temporary name and renames it, so that a process which is
    killed leaves the one before intact.
    """

    def __init__(
        self, folder: Path, facts: dict[str, Any], every_seconds: float = 60.0
    ) -> None:
        import orbax.checkpoint as ocp  # slow to import, and only needed here

        self.folder, self.every = folder.absolute(), every_seconds
        self.facts = facts
        self.last = time.monotonic()
        self.manager = ocp.CheckpointManager(
            self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=2)
        )
        self.args = ocp.args

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self.last >= self.every

    def save(self, step: int, state: PyTree, history: History) -> None:
        """Write the state at `step`, in the background."""
        self.last = time.monotonic()
        if step in self.manager.all_steps():
            return
        self.manager.save(
            step,
            args=self.args.Composite(
                state=self.args.StandardSave(state),
                history=self.args.JsonSave(
                    {"history": json.dumps(history), "facts": json.dumps(self.facts)}
                ),
            ),
        )

    def restore(self, like: PyTree, steps: int) -> tuple[PyTree, History] | None:
        """The newest state, shaped `like` a given one, and its history; None if none.

        A state with more than `steps` steps is refused: a guarantee counts them.
        """
        step = self.manager.latest_step()
        if step is None:
            return None
        if step > steps:
            raise InputError(
                f"steps is {steps}; the checkpoint in {self.folder} has taken {step}: "
                "ask for at least as many, or start with --overwrite"
            )
        try:
            saved: Any = self.manager.restore(
                step,
                args=self.args.Composite(
                    state=self.args.StandardRestore(like),
                    history=self.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"the checkpoint of step {step} in {self.folder} cannot be read "
                f"({reason}); remove that step's folder or start with --overwrite"
            ) from error
        self._check(json.loads(saved["history"]["facts"]))
        # orbax binds arrays to one device; those of the host go where they are needed
        state = jax.tree.map(jnp.asarray, jax.device_get(saved["state"]))
        return state, json.loads(saved["history"]["history"])

    def _check(self, before: dict[str, Any]) -> None:
        for name, value in self.facts.items():
            if before.get(name) != value:
                raise InputError(
                    f"{name} is {value!r}; the checkpoint in {self.folder} was trained "
                    f"with {before.get(name)!r}: keep it, or start with --overwrite"
                )

    def close(self) -> None:
        """Wait until everything is on disk."""
        self.manager.wait_until_finished()
        self.manager.close()
