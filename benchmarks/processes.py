"""Processes of their own, for what can be set or measured only once in a process.

The compilation cache, the number of fake devices and an accelerator's peak memory
belong to a process; two frameworks in one would wait for cores with both their pools of
threads. Whoever uses this must not have touched an accelerator himself: its memory has
one owner.
"""

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import jax

SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""So that several may use one accelerator."""


class Worker:
    """A fresh process that carries out one call after another, until it is closed.

    environment: variables of that process, set before it imports anything.
    threads: how many cores it may use; None is all.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, threads: int | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, mp_context=context)
        with _environment({**SHARED, **(environment or {})}):
            # the process starts with its first call
            self(_start, threads)

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.submit(function, *args).result()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pool.shutdown()


def fresh(
    function: Callable[..., Any],
    *args: Any,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """What one call returns in a process of its own."""
    with Worker(environment) as worker:
        return worker(function, *args)


@functools.cache
def platform() -> str:
    """What JAX computes on here, without touching it in this process."""
    return str(fresh(jax.default_backend))


def on_cpu() -> bool:
    """Whether this machine has no accelerator that JAX would use."""
    return platform() == "cpu"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start(threads: int | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if threads is not None and hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, mine[:threads])


def _end_with_parent() -> None:
    """However the parent ended: an orphan would hold cores, or an accelerator."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
