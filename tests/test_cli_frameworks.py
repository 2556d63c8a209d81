"""`rpjax compare-frameworks` runs the benchmark of a checkout, or says where one is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_experiment import rpjax

from rpjax.cli import frameworks

ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import os, sys
print(sys.executable, *sys.argv[1:], sep="|")
print("from the child", file=sys.stderr)
{end}
"""


def checkout(folder, end):
    """A folder that looks like a source checkout, whose benchmarks end so."""
    for part in frameworks.PARTS:
        file = folder / part
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    (folder / "benchmarks" / "__init__.py").write_text("")
    (folder / "benchmarks" / "__main__.py").write_text(CHILD.format(end=end))


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(7)", 7),
        (f"os.kill(os.getpid(), {int(signal.SIGTERM)})", 128 + signal.SIGTERM),
    ],
)
def test_options_and_exit_status_are_passed_on(end, code, tmp_path, monkeypatch, capfd):
    checkout(tmp_path, end.replace("os.kill", "sys.stdout.flush(); os.kill"))
    monkeypatch.chdir(tmp_path)
    said = rpjax("compare-frameworks", "--epochs", 2, "--help", "two words")
    assert said == (code, "", "")
    out, err = capfd.readouterr()
    words = [sys.executable, "compare-frameworks", "--epochs", "2", "--help"]
    assert out == "|".join([*words, "two words"]) + "\n"
    assert err == "from the child\n"


def test_in_a_checkout_the_benchmark_itself_answers(monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    assert rpjax("compare-frameworks", "--libraries", "x").code == 2
    assert "libraries names 'x'; known: rpjax" in capfd.readouterr().err


def test_elsewhere_one_line_says_what_to_clone_and_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # of another project
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text("raise SystemExit(0)")
    said = rpjax("compare-frameworks", "--quick")
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith(
        "rpjax: error: compare-frameworks runs benchmarks/frameworks"
    )
    assert line.endswith(f"{tmp_path} has none: call it in {ROOT}")
    installed = tmp_path / "site-packages" / "rpjax" / "cli" / "frameworks.py"
    monkeypatch.setattr(frameworks, "__file__", str(installed))
    (line,) = rpjax("compare-frameworks").err.splitlines()
    assert "clone rpjax's source repository and call it in that folder" in line


def test_the_program_exits_as_the_benchmark_does(tmp_path):
    checkout(tmp_path, "sys.exit(3)")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "rpjax.cli", "compare-frameworks", "--quick"],
        **{"cwd": tmp_path, "capture_output": True, "text": True},
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (done.returncode, done.stderr) == (3, "from the child\n")
