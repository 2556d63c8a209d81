"""``rpjax compare-frameworks``: the benchmark of a source checkout, under one name.

The benchmarks are no part of the package, so another process runs them, from the
checkout that is the current folder.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rpjax.errors import InputError

NAME = "compare-frameworks"
# what tells our benchmarks from a package of that name in another project
PARTS = ("benchmarks/__main__.py", "benchmarks/frameworks/__init__.py")


def run(argv: Sequence[str]) -> int:
    """Run ``python -m benchmarks compare-frameworks`` here; its exit status.

    argv: its options, passed on as they are.

    Raises:
        InputError: the current folder is no source checkout.
    """
    if not _checkout(Path()):
        raise InputError(_remedy())
    words = [sys.executable, "-m", "benchmarks", NAME, *argv]
    with subprocess.Popen(words) as child:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            # Ctrl-C reaches the child too, which says so and ends
            code = child.wait()
    return code if code >= 0 else 128 - code


def _checkout(folder: Path) -> bool:
    return all((folder / part).is_file() for part in PARTS)


def _remedy() -> str:
    own = Path(__file__).resolve().parents[2]
    where = (
        f"call it in {own}"
        if _checkout(own)
        else "clone rpjax's source repository and call it in that folder, "
        "where benchmarks/ lies beside rpjax/"
    )
    return (
        f"{NAME} runs benchmarks/frameworks, which is in rpjax's source and not in "
        f"the installed package, and {Path().resolve()} has none: {where}"
    )
