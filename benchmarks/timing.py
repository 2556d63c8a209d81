"""Timing: what is compared is measured in turns, so that it shares whatever goes on.

Compilation is apart, every clock has been warmed up, and it waits for the device. A
ratio is the median of the ratios within each round: a machine that slows down half way
slows both sides of it.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from benchmarks.benchmark import Row, Watch

Clock = Callable[[], float]
"""Does its work, waits for it, and says how many seconds a unit of it took."""


def in_turns(
    clocks: Mapping[str, Clock], rounds: int, watch: Watch
) -> dict[str, list[float]]:
    """Seconds of each clock, one a round; every other round goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in clocks}
    for number in range(rounds):
        for name in list(clocks)[:: -1 if number % 2 else 1]:
            watch(f"timing {name}", number, rounds)
            seconds[name].append(clocks[name]())
    return seconds


def summary(times: Sequence[float]) -> Row:
    """Median, least and most, and of how many."""
    return {
        "seconds": statistics.median(times),
        "spread": [min(times), max(times)],
        "n": len(times),
    }


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """The median over rounds of one's time over the other's."""
    pairs = zip(times, base, strict=True)
    return statistics.median(own / other for own, other in pairs)


class Steps(NamedTuple):
    """A clock of training steps, and how many of them it takes at a time."""

    clock: Clock
    count: int


def steps_of(
    stopwatch: Callable[[int], float], most: int, turn_seconds: float
) -> Steps:
    """Seconds a step, over as many steps as take about `turn_seconds`, `most` at most.

    stopwatch: (steps) -> seconds for all of them, inside one compiled program.
    """
    stopwatch(1)
    few = min(most, 4)
    each = stopwatch(few) / few
    count = max(1, min(most, round(turn_seconds / max(each, 1e-9))))
    stopwatch(count)
    return Steps(lambda: stopwatch(count) / count, count)


def calls_of(
    program: Callable[..., Any], args: tuple[Any, ...], repeat: int = 1
) -> Clock:
    """Seconds of one call, warmed up; of `repeat` at a time where a call is short."""

    def clock() -> float:
        began = time.perf_counter()
        for _ in range(repeat):
            result = program(*args)
        jax.block_until_ready(result)
        return (time.perf_counter() - began) / repeat

    clock()
    return clock


def reason(error: BaseException) -> str:
    """What went wrong, in a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{type(error).__name__}: {lines[0][:200]}"
