"""Where the peers run: each in a virtual environment of its own, `FOLDER/peer`.

None of them need get on with the others' requirements, or with rpjax's. A peer without
an environment runs in this Python, if it is installed there.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.benchmark import Watch
from benchmarks.dpsgd.child import ROOT


class Peer(NamedTuple):
    """imports: the name to look for; requirements: what pip is told to install."""

    imports: str
    requirements: tuple[str, ...]


def peers(accelerator: bool) -> dict[str, Peer]:
    """What each environment holds."""
    rpjax = f"{ROOT}[cuda]" if accelerator else str(ROOT)
    tensorflow = "tensorflow[and-cuda]" if accelerator else "tensorflow"
    same = (f"{p}=={importlib.metadata.version(p)}" for p in ("jax", "flax", "optax"))
    return {
        "jax-privacy": Peer("jax_privacy", ("jax-privacy==2.0.0", *same, "-e", rpjax)),
        "opacus": Peer("opacus", ("opacus==1.6.0", "torch==2.13.0")),
        # the last TensorFlow that has what it imports
        "tensorflow-privacy": Peer(
            "tensorflow_privacy", ("tensorflow-privacy==0.9.0", f"{tensorflow}==2.15.1")
        ),
        # the last jax that has what it calls, and the one that pip takes for it; its
        # requirements forget six
        "objax": Peer("objax", ("objax==1.8.0", "six", "jax==0.5.3")),
        "objax-newest": Peer("objax", ("objax==1.8.0", "six", "jax")),
        "fastdp": Peer(
            "fastDP", ("git+https://github.com/awslabs/fast-differential-privacy",)
        ),
    }


def pythons(
    names: Iterable[str], folder: Path, prepare: bool, accelerator: bool, watch: Watch
) -> dict[str, Path | str]:
    """Each peer's interpreter, or a line on why there is none.

    prepare: make the environments that are missing.
    """
    known, found = peers(accelerator), dict[str, Path | str]()
    for name in names:
        if prepare and not _python(folder / name).exists():
            watch(f"installing {name}")
            _make(known[name], folder / name)
        found[name] = _python_of(known[name], folder / name)
    return found


def _python_of(peer: Peer, where: Path) -> Path | str:
    if _failure(where).exists():
        return _failure(where).read_text("utf-8")
    if _python(where).exists():
        return _python(where)
    if importlib.util.find_spec(peer.imports):
        return Path(sys.executable)
    return "not installed here; --prepare makes an environment for it"


def _make(peer: Peer, where: Path) -> None:
    """An environment with the peer; a failure is noted in it, for a later run."""
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(where)],
        [str(_python(where)), "-m", "pip", "install", *peer.requirements],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            where.mkdir(parents=True, exist_ok=True)
            _failure(where).write_text(_why(done.stdout + done.stderr), "utf-8")
            return


def _python(where: Path) -> Path:
    return where / "bin" / "python"


def _failure(where: Path) -> Path:
    return where / "failure.txt"


def _why(output: str) -> str:
    """The line that says why an installation failed."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    told = [
        line
        for beginning in ("fatal:", "ERROR:", "error:")
        for line in lines
        if line.startswith(beginning)
    ]
    return f"cannot be installed here: {(told + lines[-1:] + ['no reason'])[0]}"[:300]
