"""Saving a training's state and picking it up again, through orbax."""

import contextlib
import gc
import json
import logging
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from rpjax import distributed
from rpjax.errors import InputError, StorageError
from rpjax.learners import Implementation
from rpjax.locks import Lock
from rpjax.training.history import Log

# what orbax raises of a write that failed, whether at once or in the background
UNWRITTEN = (OSError, ValueError, RuntimeError)


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
        self.lock = distributed.together(self._locked, only_first=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, cleanup_tmp_directories=True
        )
        self.manager: Any = ocp.CheckpointManager(self.folder, options=options)
        self.args = ocp.args

    def _locked(self) -> Lock:
        place = self.folder.with_name(f".{self.folder.name}.lock")
        return Lock(place, f"the checkpoint folder {self.folder}")

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
        except UNWRITTEN as error:
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
        self._abandon(error)
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
        except UNWRITTEN as error:
            raise self._unwritten(error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Let others have the folder; what is still being written may be lost."""
        try:
            if self.manager is not None:
                self.manager.close()
        except UNWRITTEN as error:  # `finish` reports what could not be written
            self._abandon(error)
        if self.lock:
            self.lock.release()

    def _abandon(self, error: BaseException | None) -> None:
        """End what a failed save left behind, while that can still be done in silence.

        orbax ends a save at its first error, with other writes under way. Ended only
        by the interpreter's shutdown, they would write tracebacks of their own after
        the one line that says what went wrong.
        """
        _wait_for_writers()
        with contextlib.suppress(*UNWRITTEN):
            self.manager.close()
        self.manager = None
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        _collect_in_silence()


def newest(folder: Path) -> PyTree:
    """The newest state in a folder as host arrays, whatever devices it was on.

    Nested dictionaries by the fields' names, without the training's facts: for another
    training to start from, and not for this one to go on.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    import orbax.checkpoint as ocp

    steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit()]
    if not steps:
        raise InputError(f"{folder} holds no checkpoint; train again with --overwrite")
    place = folder.absolute() / str(max(steps)) / "state"
    handler: Any = ocp.PyTreeCheckpointHandler()
    try:
        shapes = handler.metadata(place).tree
        plain = ocp.RestoreArgs(restore_type=np.ndarray)
        return handler.restore(
            place, restore_args=jax.tree.map(lambda _: plain, shapes)
        )
    except (ValueError, KeyError, OSError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the checkpoint in {place} cannot be read ({reason})") from (
            error
        )
    finally:
        handler.close()


def _wait_for_writers() -> None:
    """Until orbax's threads have ended; in a function, so that none is held on to."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            with contextlib.suppress(Exception):  # of its own writes
                thread.join(60)


def _collect_in_silence() -> None:
    """Collect what fails as it is cleaned up, such as writes without an event loop."""
    log, hook = logging.getLogger("asyncio"), sys.unraisablehook
    disabled, log.disabled = log.disabled, True
    sys.unraisablehook = lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook, log.disabled = hook, disabled
