"""What a training wrote down of itself: one row of means for each block of steps."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

History = dict[str, list[float]]


@dataclass
class Log:
    """The history, and the sums of the block that is not finished yet.

    Steps are added one after another in float64, so that a history does not depend on
    how many of them ran in one call, or on where a training was interrupted.
    """

    history: History = field(default_factory=lambda: {"step": [], "epoch": []})
    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def add(self, infos: dict[str, np.ndarray]) -> dict[str, float]:
        """Take note of some steps, (steps, *members) each; their means."""
        per_step = {
            name: np.asarray(values, np.float64).reshape(len(values), -1).mean(1)
            for name, values in infos.items()
        }
        for name, values in per_step.items():
            for value in values:
                self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.steps += len(next(iter(per_step.values())))
        return {name: float(values.mean()) for name, values in per_step.items()}

    def close(self, step: int, epoch: float) -> None:
        """End the block with a row, at `step` steps and `epoch` epochs."""
        if not self.steps:
            return
        row = {name: total / self.steps for name, total in self.sums.items()}
        for name, value in {"step": step, "epoch": epoch, **row}.items():
            self.history.setdefault(name, []).append(value)
        self.sums, self.steps = {}, 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON, whose numbers read back exactly."""
        return {"history": self.history, "sums": self.sums, "steps": self.steps}

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Log":
        """What `as_dict` gave."""
        return cls(values["history"], values["sums"], values["steps"])
