"""A framework's end of the comparison: one training, epoch after epoch, as asked."""

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.dpsgd.child import serve
from benchmarks.frameworks.course import Course, Framework

CHUNK = 256


class Pupil:
    """A training after its first step.

    Batches are drawn before the clock starts, except rpjax's, whose program draws them.
    """

    def __init__(self, framework: Framework, course: Course) -> None:
        self.course = course
        images, labels = course.images()
        self.test = course.test()
        # as many, so that looking costs no more than it must
        self.train = images[: len(self.test[1])], labels[: len(self.test[1])]
        self.begun = course.epoch(1)
        began = time.perf_counter()
        self.trainer = framework.begin(course)
        self.first_step_seconds = time.perf_counter() - began
        self.before = self.figures()
        self.first_step_seconds += self.seconds(self.begun[:1])

    def epoch(self, number: int) -> dict[str, Any]:
        """Seconds of its steps; loss and accuracy after them.

        The first epoch's are those of its other steps, for as many as an epoch has: its
        first step compiled, and was timed apart.
        """
        batches = self.begun[1:] if number == 1 else self.course.epoch(number)
        each = self.seconds(batches) / len(batches)
        return {"seconds": each * self.course.epoch_steps, **self.figures()}

    def seconds(self, batches: list[np.ndarray]) -> float:
        began = time.perf_counter()
        self.trainer.steps(batches)
        return time.perf_counter() - began

    def figures(self) -> dict[str, float]:
        logits = self.trainer.logits
        return {
            "train_loss": loss(answers(logits, self.train[0]), self.train[1]),
            "test_accuracy": accuracy(answers(logits, self.test[0]), self.test[1]),
        }


def answers(logits: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> Any:
    """Logits of all images, asked for in chunks of one size, so compiled once."""
    found = []
    for first in range(0, len(images), CHUNK):
        chunk = images[first : first + CHUNK]
        whole = chunk[np.arange(CHUNK) % len(chunk)]
        found.append(np.asarray(logits(whole), np.float64)[: len(chunk)])
    return np.concatenate(found)


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy."""
    most = logits.max(1)
    total = most + np.log(np.exp(logits - most[:, None]).sum(1))
    return float(np.mean(total - logits[np.arange(len(labels)), labels]))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(1) == labels))


def answered(asked: dict[str, Any], name: str, held: dict[str, Pupil]) -> Any:
    """What one request gives."""
    framework: Framework = importlib.import_module(f"benchmarks.frameworks.{name}")  # type: ignore[assignment]
    if asked["request"] == "begin":
        held["pupil"] = pupil = Pupil(framework, Course(**asked["task"]))
        return {
            "first_step_seconds": pupil.first_step_seconds,
            "versions": framework.versions(),
            **pupil.trainer.facts,
            **pupil.before,
        }
    if asked["request"] == "epoch":
        return held["pupil"].epoch(asked["number"])
    if asked["request"] == "epsilon":
        return framework.epsilon(held["pupil"].course, asked["steps"])
    raise ValueError(f"{asked['request']} is no request")


def main(name: str, threads: int) -> None:
    """Answer for this module of `benchmarks.frameworks`."""
    held: dict[str, Pupil] = {}
    serve(lambda asked: answered(asked, name, held), threads)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
