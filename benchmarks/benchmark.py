"""What a benchmark is: settings, a function from them to rows, and how rows look."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks import BENCHMARKS
from rpjax.errors import InputError
from rpjax.report.drawing import Theme

Row = dict[str, Any]
Watch = Callable[..., None]
"""(what is being done, done=0, total=None): told while a benchmark runs."""


class Benchmark(NamedTuple):
    """One benchmark.

    settings: a frozen dataclass whose fields are the options; its docstring explains.
    measure: (settings, watch) -> rows, all of one kind, each a flat dictionary of what
        JSON knows; a way that failed has an `error` and no numbers.
    columns: header and cell of each column of the printed table.
    figure: (record, theme) -> figure.
    """

    settings: type
    measure: Callable[[Any, Watch], list[Row]]
    columns: Sequence[tuple[str, Callable[[Row], str]]]
    figure: Callable[[dict[str, Any], Theme], Figure]


def find(name: str) -> Benchmark:
    """The benchmark of this name."""
    if name not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise InputError(f"{name!r} is no benchmark; known: {known}")
    found: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return found


def silent(*args: Any) -> None:
    """A watch that says nothing."""
