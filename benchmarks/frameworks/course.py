"""What every framework is told to train: one net, one data set, Poisson batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks.dpsgd.task import Task


@dataclass(frozen=True, kw_only=True)
class Course(Task):
    """A task that is seen through to its end, in a form that JSON knows.

    data: also holds `test_images` and `test_labels`.
    steps: of the whole training; epoch_steps: of an epoch, so many that a record is
        seen once on average.
    slots: which a Poisson batch practically never outgrows, for who needs fixed shapes.
    delta: at which epsilon is told.
    """

    epoch_steps: int
    slots: int
    delta: float

    @property
    def sampling_probability(self) -> float:
        return self.batch_size / self.records

    def epoch(self, number: int) -> list[np.ndarray]:
        """Positions of each batch of an epoch: every record by its own coin."""
        rng = np.random.default_rng((self.seed, number))
        return [
            np.flatnonzero(rng.random(self.records) < self.sampling_probability)
            for _ in range(self.epoch_steps)
        ]

    def padded(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in as many slots as there are, and which slots hold a record."""
        if len(batch) > self.slots:
            raise RuntimeError(f"a batch of {len(batch)} in {self.slots} slots")
        rest = self.slots - len(batch)
        valid = np.arange(self.slots) < len(batch)
        return np.pad(batch, (0, rest)).astype(np.int32), valid

    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """Test images and int64 labels."""
        with np.load(self.data) as file:
            return file["test_images"], file["test_labels"].astype(np.int64)


class Trainer(NamedTuple):
    """A training before its first step.

    steps: (batches) -> takes a step on each and waits for the device.
    logits: (images) -> theirs, of the parameters as they are now; always asked for as
        many images.
    facts: what is known of how it computes.
    """

    steps: Callable[[Sequence[np.ndarray]], None]
    logits: Callable[[np.ndarray], np.ndarray]
    facts: dict[str, Any]


class Framework(Protocol):
    """A module that trains by DP-SGD in one framework."""

    def versions(self) -> dict[str, str]:
        """Of the packages that matter."""
        ...

    def begin(self, course: Course) -> Trainer:
        """A training, compiled where the framework compiles ahead."""
        ...

    def epsilon(self, course: Course, steps: int) -> tuple[float, str]:
        """What the framework's own accountant says, and which that is."""
        ...
