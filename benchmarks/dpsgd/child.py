"""A contender in a process of its own, perhaps of another Python: both ends of it.

Requests and answers are lines of JSON. Nothing is imported here that an environment of
PyTorch or TensorFlow would lack.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.dpsgd.task import Library, Task, Training

ROOT = Path(__file__).parents[2]
COMPILED_BEFORE = "JAX_COMPILATION_CACHE_DIR"


class Child:
    """The parent's end.

    python: the interpreter; library: the module to run in it, of the package of
        `program`, which holds the child's end.
    threads: cores that it may use.
    """

    def __init__(
        self,
        python: str | Path,
        library: str,
        threads: int,
        environment: Mapping[str, str] | None = None,
        program: str = "benchmarks.dpsgd.child",
    ) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as self
        # whatever is compiled is compiled here and now
        inherited = {k: v for k, v in os.environ.items() if k != COMPILED_BEFORE}
        variables = {
            "OMP_NUM_THREADS": str(threads),
            # so that several may use one accelerator
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            **(environment or {}),
            "PYTHONPATH": str(ROOT),
        }
        self.process = subprocess.Popen(
            [str(python), "-m", program, library, str(threads)],
            env={**inherited, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def __call__(self, request: str, task: Task | None = None, **words: Any) -> Any:
        """The answer; RuntimeError with the other side's line if it failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"request": request, **words}
        if task is not None:
            asked["task"] = dataclasses.asdict(task)
        try:
            print(json.dumps(asked), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError(self._last_words()) from error
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _last_words(self) -> str:
        code = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        return f"ended with {code}: {lines[-1] if lines else 'without a word'}"[:300]


# ------------------------------------------------------------------ the child's end


def main(library: str, threads: int) -> None:
    """Answer for this module of `benchmarks.dpsgd`."""
    held: dict[str, Training] = {}
    serve(lambda asked: answered(asked, library, held), threads)


def serve(answer: Callable[[dict[str, Any]], Any], threads: int) -> None:
    """Answer until nobody asks any more."""
    with contextlib.suppress(AttributeError):  # where cores cannot be chosen
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            told = {"result": answer(asked)}
        except Exception as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())
            told = {"error": words[:300]}
        print(json.dumps(told), file=answers, flush=True)


def answered(asked: dict[str, Any], name: str, held: dict[str, Training]) -> Any:
    """What one request gives."""
    library: Library = importlib.import_module(f"benchmarks.dpsgd.{name}")  # type: ignore[assignment]
    if asked["request"] == "seconds":
        return held["training"].seconds(asked["steps"])
    task = Task(**asked["task"])
    if asked["request"] == "clipped_sum_differs_by":
        return library.clipped_sum_differs_by(task)
    if asked["request"] == "fits":
        library.start(task).seconds(2)
        return True
    if asked["request"] == "start":
        held["training"], facts = first_step(library, task)
        return facts
    raise ValueError(f"{asked['request']} is no request")


def first_step(library: Library, task: Task) -> tuple[Training, dict[str, Any]]:
    """A training after its first step, and what that took of time and memory."""
    began = time.perf_counter()
    training = library.start(task)
    before = resident_bytes()
    training.seconds(1)
    first = time.perf_counter() - began
    training.seconds(2)
    facts = training.facts
    if "memory_bytes" not in facts:  # no compiler has planned it
        facts["peak_rss_growth_bytes"] = max(0, peak_resident_bytes() - before)
    return training, {
        "first_step_seconds": first,
        "most": training.most,
        "peak_bytes_in_use": training.peak(),
        "versions": library.versions(),
        **facts,
    }


def resident_bytes() -> int:
    """Of this process, now; as little as possible of what it had once."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Of this process, since `resident_bytes` was asked where Linux allows that."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
