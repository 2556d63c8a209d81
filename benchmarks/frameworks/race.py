"""Frameworks begin, then train an epoch each in turns, every one in its own process."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.benchmark import Row, Watch
from benchmarks.dpsgd.child import Child
from benchmarks.dpsgd.contenders import Contender
from benchmarks.dpsgd.trial import child_of
from benchmarks.frameworks.course import Course
from benchmarks.frameworks.entrants import RPJAX
from benchmarks.timing import ratio, summary
from rpjax.report import formats

SAME_START = 1e-3
"""How far, relative to rpjax's, a loss before the first step may be off."""
ENVIRONMENT = {"TF_ENABLE_ONEDNN_OPTS": "0"}
"""Of every process. TensorFlow 2.15.1 overwrites its own heap in the per-example
gradients of ResNet-18 by oneDNN's kernels, and ends; by its own kernels it trains."""
CURVES = ("seconds", "train_loss", "test_accuracy")


class Race(NamedTuple):
    """What is the same for all.

    name: of what is trained, for whoever watches.
    pythons: of each environment the interpreter, or a line on why there is none.
    """

    name: str
    pythons: Mapping[str, Path | str]
    course: Course

    @property
    def epochs(self) -> int:
        return self.course.steps // self.course.epoch_steps


def rows(
    race: Race, entrants: Sequence[Contender], together: bool, watch: Watch
) -> dict[Contender, Row]:
    """A row of each, in their order.

    together: all at once, epochs in turns; or one after the other, where the memory is
    too small for all.
    """
    groups = [list(entrants)] if together else [[one] for one in entrants]
    found: dict[Contender, Row] = {}
    for group in groups:
        with ExitStack() as stack:
            begun = {
                one: stack.enter_context(_begun(race, one, watch)) for one in group
            }
            _in_turns(race, begun, watch)
            found |= {one: row for one, (row, _) in begun.items()}
    base = found.get(RPJAX, {})
    return {one: _finished(row, base) for one, row in found.items()}


@contextmanager
def _begun(
    race: Race, one: Contender, watch: Watch
) -> Iterator[tuple[Row, Child | None]]:
    """The row so far, and the process while it lives, if it trains."""
    row: Row = {"reason": None, **{f"{name}_by_epoch": [] for name in CURVES}}
    with ExitStack() as stack:
        child = None
        watch(f"{race.name}: compiling {one}")
        try:
            child = stack.enter_context(
                child_of(
                    *(race.pythons, one, race.course.threads, ENVIRONMENT),
                    program="benchmarks.frameworks.child",
                )
            )
            facts = child("begin", replace(race.course, way=one.way))
            _add(row, {name: facts.pop(name) for name in CURVES[1:]})
            own, accountant = child("epsilon", steps=race.course.steps)
            row |= {**facts, "epsilon_own": own, "accountant_own": accountant}
        except RuntimeError as error:
            row["reason"], child = str(error), None
        yield row, child


def _in_turns(
    race: Race, begun: Mapping[Contender, tuple[Row, Child | None]], watch: Watch
) -> None:
    """Every epoch of each; every other round goes backwards."""
    began = time.monotonic()
    for epoch in range(1, race.epochs + 1):
        left = "" if epoch == 1 else _left(began, epoch, race.epochs)
        for one in list(begun)[:: -1 if epoch % 2 == 0 else 1]:
            row, child = begun[one]
            if child is None or row["reason"]:
                continue
            watch(f"{race.name}: epoch {epoch} of {race.epochs}{left}, {one}")
            try:
                _add(row, child("epoch", number=epoch))
            except RuntimeError as error:
                row["reason"] = str(error)


def _left(began: float, epoch: int, epochs: int) -> str:
    each = (time.monotonic() - began) / (epoch - 1)
    return f" ({formats.seconds(each * (epochs - epoch + 1))} left)"


def _add(row: Row, told: Row) -> None:
    for name, value in told.items():
        row[f"{name}_by_epoch"].append(value)


def _finished(row: Row, base: Row) -> Row:
    """With what follows from its curves and from rpjax's."""
    if row["reason"] is None and (reason := _elsewhere(row, base)):
        row["reason"] = reason
    if row["reason"] is not None:
        return row
    times = row["seconds_by_epoch"]
    total = row["first_step_seconds"] + sum(times)
    return {
        **row,
        **summary(times),
        "relative": _over(times, base),
        "total_seconds": total,
        "first_step_share": row["first_step_seconds"] / total,
    }


def _elsewhere(row: Row, base: Row) -> str | None:
    """Why this net is not rpjax's, if it is not."""
    if not base.get("train_loss_by_epoch"):
        return None
    own, same = row["train_loss_by_epoch"][0], base["train_loss_by_epoch"][0]
    if abs(own - same) <= SAME_START * same:
        return None
    return f"its loss before the first step is {own:.6g}, and rpjax's {same:.6g}"


def _over(times: Sequence[float], base: Row) -> float | None:
    own = base.get("seconds_by_epoch", ())
    return ratio(times, own) if len(own) == len(times) else None
