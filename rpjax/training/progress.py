"""Progress of long work: a bar with time left in a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


@runtime_checkable
class Reporter(Protocol):
    """What a loop tells of itself."""

    def advance(
        self, done: int, total: int, examples: int, info: dict[str, float]
    ) -> None:
        """`done` of `total` steps; `examples` seen since the last call."""
        ...


@runtime_checkable
class Speaker(Protocol):
    """What a reporter may do besides: say a line."""

    def say(self, line: str) -> None:
        """`line` stands on its own, between the figures."""
        ...


class Silent:
    """Says nothing."""

    def advance(
        self, done: int, total: int, examples: int, info: dict[str, float]
    ) -> None:
        """Nothing."""


class Bar:
    """A rich bar with loss, accuracy, examples per second and time left."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.progress, self.name, self.speed = progress, name.strip(), Speed()
        self.task = progress.add_task(name, total=None, note="compiling")

    def advance(
        self, done: int, total: int, examples: int, info: dict[str, float]
    ) -> None:
        """Move the bar."""
        note = described(info, self.speed(examples))
        self.progress.update(self.task, completed=done, total=total, note=note)

    def say(self, line: str) -> None:
        """Print above the bar."""
        self.progress.console.print(f"{self.name}: {line}", highlight=False)


class Lines:
    """A line every `every` seconds, and one at the end: for logs and notebooks."""

    def __init__(self, name: str, every: float = 10.0) -> None:
        self.name, self.every, self.speed = name, every, Speed()
        self.last = time.monotonic()
        self.first: tuple[float, int] | None = None

    def advance(
        self, done: int, total: int, examples: int, info: dict[str, float]
    ) -> None:
        """Print, if it is time."""
        rate, now = self.speed(examples), time.monotonic()
        self.first = self.first or (now, done)
        if now - self.last < self.every and done < total:
            return
        self.last = now
        line = f"{self.name}: step {done}/{total}, {described(info, rate)}"
        if self.first[1] < done < total:  # the first call also waited for compilation
            seconds, steps = now - self.first[0], done - self.first[1]
            line += f", {seconds / steps * (total - done):.0f} s left"
        print(line, flush=True)

    def say(self, line: str) -> None:
        """Print."""
        print(f"{self.name}: {line}", flush=True)


class Speed:
    """Examples per second, smoothed over the last calls."""

    def __init__(self) -> None:
        self.time, self.rate = time.monotonic(), 0.0

    def __call__(self, examples: int) -> float:
        """The speed after `examples` more."""
        now = time.monotonic()
        rate = examples / max(now - self.time, 1e-9)
        self.rate = rate if self.rate == 0 else 0.7 * self.rate + 0.3 * rate
        self.time = now
        return self.rate


def described(info: dict[str, float], rate: float) -> str:
    """One short line of figures.

    >>> described({"loss": 0.25, "accuracy": 0.9, "epsilon": 1.234}, rate=5000.0)
    'loss 0.250, accuracy 90.0%, ε 1.23, 5,000 examples/s'
    """
    parts = [f"loss {info['loss']:.3f}", f"accuracy {info['accuracy']:.1%}"]
    if "epsilon" in info:
        parts += [f"ε {info['epsilon']:.3g}"]
    return ", ".join([*parts, f"{rate:,.0f} examples/s"])


@contextmanager
def reporter(name: str, console: Console | None = None) -> Iterator[Reporter]:
    """A bar if `console` (standard output) is a terminal, lines if not; or silence."""
    console = console or Console(file=sys.stdout)
    if console.quiet:
        yield Silent()
        return
    if not console.is_terminal:
        yield Lines(name)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, name)


@contextmanager
def counter(
    name: str, console: Console | None = None, every: float = 10.0
) -> Iterator[Callable[[int, int], None]]:
    """(done, total) -> None, for work whose only news is how far it is.

    A bar if `console` (standard output) is a terminal, a line every `every` seconds if
    not: what is done sooner says nothing.
    """
    console = console or Console(file=sys.stdout)
    if not console.is_terminal:
        yield _line_by_line(name, every)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _line_by_line(name: str, every: float) -> Callable[[int, int], None]:
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            print(f"{name}: {done:,} of {total:,}", flush=True)

    return tell
