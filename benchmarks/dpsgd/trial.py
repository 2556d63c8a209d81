"""Contenders started, checked and timed in turns, each in its own process."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.benchmark import Row, Watch
from benchmarks.dpsgd.child import Child
from benchmarks.dpsgd.contenders import PLAIN, Contender
from benchmarks.dpsgd.largest import largest, of_memory
from benchmarks.dpsgd.task import Task
from benchmarks.timing import Clock, in_turns, ratio, steps_of, summary
from rpjax.errors import InputError

ALL_MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}


class Trial(NamedTuple):
    """What is the same for all.

    pythons: of each peer the interpreter, or a line on why there is none.
    task: what is timed; checked: what is compared with the loop.
    tolerance: how far from the loop's sum is still rounding.
    """

    pythons: Mapping[str, Path | str]
    task: Task
    checked: Task
    tolerance: float
    rounds: int
    turn_seconds: float


def rows(
    trial: Trial, others: Sequence[Contender], together: bool, watch: Watch
) -> dict[Contender, Row]:
    """A row of each, first that of rpjax's plain step, to which all are relative.

    together: all at once, so that any two can be compared within a round; or one at a
    time beside the plain step, where the memory is too small for all.
    """
    groups = [list(others)] if together else [[one] for one in others] or [[]]
    found: dict[Contender, Row] = {}
    base: list[float] = []
    with _started(trial, PLAIN, watch) as (plain, clock):
        if clock is None:
            raise InputError(f"rpjax's plain step cannot be timed: {plain['reason']}")
        for group in groups:
            own, times = _beside(trial, clock, group, watch)
            found |= own
            base += times
    found = {PLAIN: plain | _timed(trial, base, base), **found}
    for row in found.values():
        for name in ("memory_bytes", "peak_bytes_in_use"):
            row[f"relative_{name}"] = _over(row.get(name), plain.get(name))
    return found


def _beside(
    trial: Trial, plain: Clock, group: Sequence[Contender], watch: Watch
) -> tuple[dict[Contender, Row], list[float]]:
    """Rows of a group that takes turns with the plain step, and the latter's times."""
    with ExitStack() as stack:
        started = {one: _started(trial, one, watch) for one in group}
        own = {one: stack.enter_context(begun) for one, begun in started.items()}
        clocks = {str(one): clock for one, (_, clock) in own.items() if clock}
        times = in_turns({str(PLAIN): plain, **clocks}, trial.rounds, watch)
    base = times[str(PLAIN)]
    rows = {
        one: row | (_timed(trial, times[str(one)], base) if clock else {})
        for one, (row, clock) in own.items()
    }
    return rows, base


def largest_batch(trial: Trial, one: Contender) -> int | None:
    """The largest batch with which it takes steps, each tried in a fresh process."""

    def fits(size: int) -> bool:
        task = dataclasses.replace(
            trial.task, way=one.way, batch_size=size, records=size
        )
        with _child(trial, one, ALL_MEMORY) as child:
            try:
                child("fits", task)
            except RuntimeError as error:
                if of_memory(error):
                    return False
                raise
        return True

    return largest(fits, trial.task.batch_size)


@contextmanager
def _started(
    trial: Trial, one: Contender, watch: Watch
) -> Iterator[tuple[Row, Clock | None]]:
    """What is known of a contender after a few steps, and its clock while it lives."""
    with ExitStack() as stack:
        row: Row = {"reason": None}
        clock = None
        watch(f"compiling {one}")
        try:
            child = stack.enter_context(_child(trial, one))
            facts = child("start", dataclasses.replace(trial.task, way=one.way))
            most = facts.pop("most")
            row |= facts
            if one.way != "plain":
                watch(f"checking {one}")
                row |= _checked(trial, child, one)
            timed = steps_of(
                lambda steps: child("seconds", steps=steps), most, trial.turn_seconds
            )
            clock, row["steps_per_turn"] = timed
        except RuntimeError as error:
            row["reason"] = str(error)
        yield row, clock


def _checked(trial: Trial, child: Child, one: Contender) -> Row:
    task = dataclasses.replace(trial.checked, way=one.way)
    apart = child("clipped_sum_differs_by", task)
    if not apart <= trial.tolerance:
        raise RuntimeError(
            f"its sum of clipped gradients is wrong by {apart:.2g} of its norm; "
            f"at most {trial.tolerance:.2g} is rounding"
        )
    return {"clipped_sum_differs_by": apart, "tolerance": trial.tolerance}


def _child(
    trial: Trial, one: Contender, environment: Mapping[str, str] | None = None
) -> Child:
    return child_of(trial.pythons, one, trial.task.threads, environment)


def child_of(
    pythons: Mapping[str, Path | str],
    one: Contender,
    threads: int,
    environment: Mapping[str, str] | None = None,
    **program: str,
) -> Child:
    """A contender's process; RuntimeError with the reason why there is none."""
    python = pythons[one.peer] if one.peer else Path(sys.executable)
    if isinstance(python, str):
        raise RuntimeError(python)
    if one.module is None:
        raise RuntimeError("installed, but no step of it is written here")
    return Child(python, one.module, threads, environment, **program)


def _timed(trial: Trial, own: Sequence[float], base: Sequence[float]) -> Row:
    row = summary(own)
    return {
        **row,
        "examples_per_second": trial.task.batch_size / row["seconds"],
        "relative": ratio(own, base),
    }


def _over(value: int | None, base: int | None) -> float | None:
    return value / base if value and base else None
