"""What a benchmark is doing: a bar in a terminal, lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.benchmark import Watch


@contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """A watch for the time of one benchmark."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("starting", total=None)

        def watch(what: str, done: int = 0, total: int | None = None) -> None:
            note = what if total is None else f"{what}, round {done + 1} of {total}"
            bar.update(task, description=note, completed=done, total=total)

        yield watch


def _lines(console: Console) -> Watch:
    """A line for each new thing; rounds of timing are one thing."""
    last = [""]

    def watch(what: str, done: int = 0, total: int | None = None) -> None:
        note = what if total is None else f"timing, {total} rounds"
        if note != last[0]:
            last[0] = note
            console.print(note, highlight=False)

    return watch
