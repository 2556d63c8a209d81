"""Being asked to stop: SIGTERM to any process of a training stops all in step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax
import numpy as np


class Notice:
    """Takes note of SIGTERM while it is entered, where `active`.

    Python delivers signals to the main thread only; elsewhere nothing is caught, and
    SIGTERM does what it did before.
    """

    def __init__(self, active: bool) -> None:
        main = threading.current_thread() is threading.main_thread()
        self.active = active and main
        self.arrived = False

    def __enter__(self) -> "Notice":
        if self.active:
            self.before: Any = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.arrived = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.active:
            signal.signal(signal.SIGTERM, self.before)


def agreed(stop: bool, save: bool, steps: int) -> tuple[bool, bool, int]:
    """What all processes do next: stop if any was told to, else as the first says.

    Processes must take the same steps per call and save at the same step, while clocks
    differ and a signal may reach only one of them.
    """
    if jax.process_count() == 1:
        return stop, save, steps
    from jax.experimental import multihost_utils

    mine = np.array([stop, save, steps], np.int32)
    votes = np.asarray(multihost_utils.process_allgather(mine))
    return bool(votes[:, 0].any()), bool(votes[0, 1]), int(votes[0, 2])
