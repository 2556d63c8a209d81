"""What a contender is told to do: one net, one batch, one kind of step."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

LEARNING_RATE, MOMENTUM = 0.1, 0.9


@dataclass(frozen=True)
class Task:
    """A training by DP-SGD, in a form that JSON knows.

    way: how the library is to do it: an engine, a mode, a convolution.
    model: the net's name; stages, widths, groups, stem: what it is, for all to build.
    records: that batches are taken from in turns, `batch_size` at a time.
    steps: of the training for which a library may choose how to compute.
    accelerator: whether the others compute on one, so that this one must too.
    data: an .npz file of `images` (uint8), `labels`, the net's `parameters/...` and
        `expected/...`, the sum of clipped gradients of its first `records`.
    """

    way: str
    model: str
    stages: tuple[int, ...]
    widths: tuple[int, ...]
    groups: int
    stem: int
    image_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    records: int
    dtype: str
    clip_norm: float
    noise_multiplier: float
    threads: int
    accelerator: bool
    steps: int
    seed: int
    data: str
    learning_rate: float = LEARNING_RATE
    momentum: float = MOMENTUM

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and int64 labels; those of the file over and over, if they are few."""
        with np.load(self.data) as file:
            where = np.arange(self.records) % len(file["images"])
            return file["images"][where], file["labels"][where].astype(np.int64)

    def tree(self, name: str) -> dict[str, Any]:
        """A tree of the file, as rpjax's nets have it."""
        made: dict[str, Any] = {}
        with np.load(self.data) as file:
            for path in file.files:
                first, *inner = path.split("/")
                if first == name:
                    branch = made
                    for word in inner[:-1]:
                        branch = branch.setdefault(word, {})
                    branch[inner[-1]] = file[path]
        return made

    def check_device(self, accelerator: bool) -> None:
        """RuntimeError where a library would compute on something slower."""
        if self.accelerator and not accelerator:
            raise RuntimeError("it sees no accelerator here, and rpjax does")

    def batches(self) -> list[np.ndarray]:
        """Positions of each batch in the order in which they are taken."""
        order = np.random.default_rng(self.seed).permutation(self.records)
        whole = self.records // self.batch_size * self.batch_size
        return list(order[:whole].reshape(-1, self.batch_size))


class Training(NamedTuple):
    """A training that is ready to begin.

    seconds: (steps) -> seconds for so many, after waiting for the device.
    most: steps that it can take at once.
    peak: () -> the most bytes of the accelerator that were in use, None on a CPU.
    facts: what is known of its program before it runs.
    """

    seconds: Any
    most: int
    peak: Any
    facts: dict[str, Any]


class Library(Protocol):
    """A module that trains by DP-SGD in one library."""

    def versions(self) -> dict[str, str]:
        """Of the packages that matter."""
        ...

    def start(self, task: Task) -> Training:
        """A training, compiled where the library compiles, without a step taken."""
        ...

    def clipped_sum_differs_by(self, task: Task) -> float:
        """l2 norm of (sum of clipped gradients - expected), over that of expected.

        Of a step on a CPU without noise: its first momentum is the sum over the batch
        size.
        """
        ...


def flat(tree: dict[str, Any], prefix: str) -> dict[str, np.ndarray]:
    """A tree as entries of an .npz file."""
    found: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        path = f"{prefix}/{name}"
        found |= (
            flat(value, path) if isinstance(value, dict) else {path: np.asarray(value)}
        )
    return found


def apart(sums: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """l2 norm of the difference over that of `expected`, over all entries."""
    if sums.keys() != expected.keys():
        raise ValueError("the nets have different parameters")
    square = lambda values: sum(float(np.sum(np.square(v))) for v in values)
    wide = {name: own.astype(np.float64) for name, own in expected.items()}
    wrong = square(sums[name] - own for name, own in wide.items())
    return (wrong / square(wide.values())) ** 0.5
