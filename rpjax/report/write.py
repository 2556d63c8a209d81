"""Writing a report: each file appears whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rpjax.errors import InputError
from rpjax.report.drawing import png, svg
from rpjax.report.figures import all_figures
from rpjax.report.html import page
from rpjax.report.markdown import text
from rpjax.report.results import Results, check


def write(results: Results, out: Path) -> list[Path]:
    """Write report.html, report.md and figures/*.png, *.svg.

    Everything is made before the first file is written; files of an earlier report are
    replaced.

    Args:
        results: the contents of a results.json.
        out: a folder, made if needed.

    Returns:
        The files, the HTML page first.

    Raises:
        InputError: the results are incomplete, or `out` cannot be written to.
    """
    check(results)
    return put(_contents(results), out)


def _contents(results: Results) -> dict[str, bytes]:
    files = {
        "report.html": page(results).encode(),
        "report.md": text(results).encode(),
    }
    for name, figure in all_figures(results).items():
        files[f"figures/{name}.png"] = png(figure)
        files[f"figures/{name}.svg"] = svg(figure).encode()
    return files


def put(contents: Mapping[str, bytes], out: Path) -> list[Path]:
    """Write files by their names in a folder, which is made if needed.

    Raises:
        InputError: `out` cannot be written to.
    """
    paths = [out / name for name in contents]
    try:
        for path, data in zip(paths, contents.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, data)
    except OSError as error:
        raise InputError(f"out: cannot write to {out} ({error.strerror})") from error
    return paths


def replace(path: Path, data: bytes) -> None:
    """Write beside the target, then rename, which no reader sees half done."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
