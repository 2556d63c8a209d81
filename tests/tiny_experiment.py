"""The main comparison at its smallest, once for all tests of the files that ask it.

A test file names this module in `pytest_plugins` to have its fixtures, and imports from
it before pytest could look at its asserts: PYTEST_DONT_REWRITE.
"""

import contextlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rpjax.cli import main
from rpjax.experiments import RunFolder

# members and test records fill batches of one shape: few programs are compiled
SIZE = (
    *("--train-records", "512", "--epochs", "1", "--batch-size", "64"),
    *("--dp-epochs", "1", "--dp-batch-size", "32", "--shadows", "1"),
)
# one way to compute each, so that nothing is compiled to be measured
WAYS = ("--convolution", "im2col", "--engine", "bookkeeping", "--mapping", "map")
FLAGS = (*SIZE, *WAYS, "--channels", "4", "--members", "2", "--seed", "3")


class Said(NamedTuple):
    """What a command left: its exit status and what it wrote to the terminal."""

    code: int
    out: str
    err: str


class Experiment(NamedTuple):
    """A finished comparison."""

    folder: Path
    results: dict[str, Any]
    printed: str

    def method(self, name):
        return next(m for m in self.results["methods"] if m["name"] == name)


def rpjax(*words):
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:  # the parser's way out
            code = exit.code or 0
    return Said(code, out.getvalue(), err.getvalue())


def experiment(folder, printed=""):
    return Experiment(
        folder, json.loads((folder / "results.json").read_text()), printed
    )


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """All five methods, from the command line and without a break."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    said = rpjax("compare", *FLAGS, "--out", folder)
    assert said.code == 0, said.err
    return experiment(folder, said.out)


class Interrupted(NamedTuple):
    """A comparison that was interrupted once its first method was through."""

    said: Said
    left: frozenset[str]
    resumed: Experiment


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory):
    """The same in another folder, interrupted after the first method and resumed."""
    folder = tmp_path_factory.mktemp("interrupted") / "out"
    finish = RunFolder.finish

    def then_stop(self, *args):
        finish(self, *args)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "finish", then_stop)
        said = rpjax("compare", *FLAGS, "--out", folder)
    left = frozenset(str(p.relative_to(folder)) for p in folder.glob("*"))
    assert rpjax("compare", *FLAGS, "--out", folder, "--resume").code == 0
    return Interrupted(said, left, experiment(folder))


def refused(said):
    """The one line that a command left before it did anything."""
    assert said.code == 2, said
    assert said.out == ""
    (line,) = said.err.splitlines()
    head, _, message = line.partition("rpjax: error: ")
    assert head == ""
    return message
