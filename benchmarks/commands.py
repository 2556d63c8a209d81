"""The command line: run one benchmark, draw records, go through the queue."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ALIASES, BENCHMARKS
from rpjax.errors import InputError

OTHERS = {
    "draw": "the figures of records",
    "queue": "everything that waits for a GPU, most important first",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command; 0 if it worked, 2 for bad input, 130 if interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    try:
        return _carry_out(ALIASES.get(words[0], words[0]), words[1:])
    except (InputError, OSError) as error:
        print(f"benchmarks: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted", file=sys.stderr)
        return 130


def overview() -> str:
    """What there is."""
    width = max(map(len, (*BENCHMARKS, *OTHERS)))
    lines = [f"  {name:<{width}}  {what}" for name, what in BENCHMARKS.items()]
    others = [f"  {name:<{width}}  {what}" for name, what in OTHERS.items()]
    return "\n".join(
        [
            "usage: python -m benchmarks NAME [options] [--out FILE]",
            "",
            *lines,
            "",
            *others,
            "",
            "python -m benchmarks NAME --help lists the options.",
        ]
    )


@dataclass(frozen=True)
class Draw:
    """Draw the figure of each record, light and dark, as PNG and SVG."""

    files: tuple[Path, ...]
    out: Path = Path("out-figures")
    """Folder for the pictures."""


def _carry_out(name: str, argv: list[str]) -> int:
    import tyro  # slow, and the list needs none of it

    if name == "draw":
        from benchmarks import drawing

        positional = (tyro.conf.PositionalRequiredArgs,)
        options = tyro.cli(
            Draw, args=argv, prog="python -m benchmarks draw", config=positional
        )
        for file in options.files:
            for path in drawing.draw(file, options.out):
                print(path)
        return 0
    if name == "queue":
        from benchmarks import gpu_queue

        options = tyro.cli(
            gpu_queue.Queue, args=argv, prog="python -m benchmarks queue"
        )
        return gpu_queue.work(options)
    return _run(name, argv)


def _run(name: str, argv: list[str]) -> int:
    """One benchmark: measure, print, write."""
    from rich.console import Console

    from benchmarks.benchmark import find
    from benchmarks.progress import watching
    from benchmarks.record import record, write

    benchmark = find(name)
    settings, out = parsed(name, benchmark.settings, argv)
    if out is not None and out.is_dir():
        raise InputError(f"out is {out}, which is a folder; name a file")
    console = Console()
    if not console.is_terminal:  # a log has room for a whole table
        console = Console(width=160)
    with watching(console) as watch:
        rows = benchmark.measure(settings, watch)
    result = record(name, settings, rows)
    if out is not None:
        write(out, result)
    console.print(table(benchmark, rows))
    if out is not None:
        console.print(f"written: {out}", highlight=False)
    return 0


def parsed(name: str, kind: Any, argv: list[str]) -> tuple[Any, Path | None]:
    """The options of a benchmark, and where its record goes."""
    import tyro

    def options(
        settings: tyro.conf.OmitArgPrefixes[kind] = kind(),  # noqa: B008
        out: Path | None = None,
    ) -> tuple[Any, Path | None]:
        return settings, out

    options.__doc__ = kind.__doc__
    found: tuple[Any, Path | None] = tyro.cli(
        options, args=argv, prog=f"python -m benchmarks {name}"
    )
    return found


def table(benchmark: Any, rows: list[dict[str, Any]]) -> Any:
    """The rows as rich prints them."""
    from rich.table import Column, Table
    from rich.text import Text

    made = Table(*(Column(Text(header)) for header, _ in benchmark.columns))
    for row in rows:
        made.add_row(*(Text(cell(row)) for _, cell in benchmark.columns))
    return made
