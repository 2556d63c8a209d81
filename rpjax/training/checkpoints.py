"""Saving a training's state and picking it up again, through orbax."""

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from rpjax.errors import InputError, StorageError
from rpjax.learners import Implementation
from rpjax.locks import Lock
from rpjax.training.history import Log


class Saved(NamedTuple):
    """What a training goes on from; how: what it was computed with, if known."""

    state: PyTree
    log: Log
    how: Implementation | None


class Checkpoints:
    """The checkpoints of one training in one folder; the last two are kept.

    facts: settings that a training cannot change on its way, such as its seed.

    orbax writes each under a temporary name and renames it, in the background and each
    process its own part, so that a process which is killed leaves the one before
    intact. What such a process leaves half written is removed by the next.
    """

    def __init__(
        self, folder: Path, facts: dict[str, Any], every_seconds: float
    ) -> None:
        import orbax.checkpoint as ocp  # slow to import, and only needed here

        self.folder, self.every = folder.absolute(), every_seconds
        # as they are read back
        self.facts: dict[str, Any] = json.loads(json.dumps(facts))
        self.last = time.monotonic()
        self.lock = None
        if jax.process_index() == 0:
            place = self.folder.with_name(f".{self.folder.name}.lock")
            self.lock = Lock(place, f"the checkpoint folder {self.folder}")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, cleanup_tmp_directories=True
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)
        self.args = ocp.args

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self.last >= self.every

    def save(
        self, step: int, state: PyTree, log: Log, how: Implementation | None
    ) -> None:
        """Write the state at `step`, in the background."""
        self.last = time.monotonic()
        if step in self.manager.all_steps():
            return
        facts = {
            "history": json.dumps(log.as_dict()),
            "facts": json.dumps(self.facts),
            "how": json.dumps(how),
        }
        args = self.args.Composite(
            state=self.args.StandardSave(state), history=self.args.JsonSave(facts)
        )
        try:
            # of the one before: an error in the background shows here
            self.manager.wait_until_finished()
            self.manager.save(step, args=args)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritten(error) from error

    def restore(self, like: PyTree, steps: int) -> Saved | None:
        """The newest state, shaped and placed `like` a given one; None if none.

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
        described = self._read(step, history=self.args.JsonRestore())["history"]
        self._check(json.loads(described["facts"]))
        state = self._read(step, state=self.args.StandardRestore(like))["state"]
        if all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(state)):
            # orbax binds arrays to one device; those of the host go where they are
            # needed
            state = jax.tree.map(jnp.asarray, jax.device_get(state))
        how = json.loads(described.get("how", "null"))
        log = Log.of(json.loads(described["history"]))
        return Saved(state, log, Implementation(*how) if how else None)

    def _read(self, step: int, **items: Any) -> Any:
        try:
            return self.manager.restore(step, args=self.args.Composite(**items))
        except (ValueError, KeyError, OSError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"the checkpoint of step {step} in {self.folder} cannot be read "
                f"({reason}); remove that step's folder to go on from the one before, "
                "or start with --overwrite"
            ) from error

    def _check(self, before: dict[str, Any]) -> None:
        for name, value in self.facts.items():
            if before.get(name) != value:
                raise InputError(
                    f"{name} is {value!r}; the checkpoint in {self.folder} was trained "
                    f"with {before.get(name)!r}: keep it, or start with --overwrite"
                )

    def _unwritten(self, error: Exception) -> StorageError:
        free = shutil.disk_usage(self.folder).free
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return StorageError(
            f"a checkpoint could not be written to {self.folder}, which has "
            f"{free / 2**20:,.0f} MiB free ({reason}); the one before is intact: make "
            "room, then go on with --resume"
        )

    def finish(self) -> None:
        """Wait until everything is on disk, and let others have the folder."""
        try:
            self.manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unwritten(error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Let others have the folder; what is still being written may be lost."""
        # `finish` reports what could not be written
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self.manager.close()
        if self.lock:
            self.lock.release()
