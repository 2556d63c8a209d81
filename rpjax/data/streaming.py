"""Work on many items ahead of those who need it, by threads or by processes.

grain keeps the order and so many results ready, with a thread for each that is being
computed. A thread either computes it or has it computed by a process of a pool that
lives as long as the work does. (grain's own processes start anew for every list of
items, and closing them early can take half a minute and leave shared memory behind.)
"""

import os
import pickle
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process, shared_memory
from pathlib import Path
from typing import Any

from rpjax.errors import InputError

Work = Callable[[Any], Any]

# of one process; more decode no faster, and each keeps a result in memory
MOST_THREADS = 16
# what processes may still take to finish after SIGTERM
GRACE_SECONDS = 30.0
# smaller results go through a pipe
SHARED_BYTES = 1 << 18
SHARED_MEMORY = Path("/dev/shm")


class Workers:
    """Those who do `work`: so many processes, or threads of this process for 0.

    Processes start with a fresh interpreter, to which `work` is sent once, so a script
    that asks for them must do its own work under ``if __name__ == "__main__":``. They
    end with `close`, and with this process, whatever ends it.
    """

    def __init__(self, work: Work, workers: int = 0) -> None:
        if workers < 0:
            raise InputError(f"workers is {workers}; it must be >= 0")
        self.work, self.workers = work, workers
        self.pool: ProcessPoolExecutor | None = None
        if workers:
            self.pool = ProcessPoolExecutor(
                workers, get_context("spawn"), initializer=_begin, initargs=(work,)
            )
        self.threads = workers or min(MOST_THREADS, os.cpu_count() or 1)

    def stream(self, items: Sequence[Any]) -> "Stream":
        """The results for `items`, in order, computed ahead from now on."""
        return Stream(self, items)

    def __call__(self, item: Any) -> Any:
        """The result for one item."""
        if self.pool is None:
            return self.work(item)
        try:
            return _received(*self.pool.submit(_answer, item).result())
        except BrokenProcessPool as error:
            raise InputError(
                f"workers is {self.workers}, and one of these processes ended by "
                "itself: out of memory, killed, or the script starts its work outside "
                '`if __name__ == "__main__":`; workers = 0 uses threads'
            ) from error

    def close(self) -> None:
        """End the processes, once they are through with what they have begun."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Stream:
    """Results in the order of their items, one after another."""

    def __init__(self, workers: Workers, items: Sequence[Any]) -> None:
        import grain  # slow to import, and only needed here

        ahead = grain.ReadOptions(
            num_threads=workers.threads, prefetch_buffer_size=workers.threads + 1
        )
        data = grain.MapDataset.source(items).map(workers).to_iter_dataset(ahead)
        self.left, self.iterator = len(items), iter(data)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="rpjax-stream")
        self.ready: Future[Any] = self.thread.submit(next, self.iterator)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.left:
            raise StopIteration
        result = self.ready.result()
        self.left -= 1
        if self.left:
            self.ready = self.thread.submit(next, self.iterator)
        return result

    def close(self) -> None:
        """Compute nothing more than what has begun."""
        self.ready.cancel()
        self.thread.shutdown(wait=True)
        self.iterator.close()


_work: Work


def _begin(work: Work) -> None:
    """What a worker process does first: leave signals to its parent, and end with it.

    Ctrl-C and schedulers signal whole groups of processes; a worker that ended at once
    would keep its parent from saving. A parent that is killed outright tells nobody.
    """
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _later)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _later(number: int, frame: object) -> None:
    timer = threading.Timer(GRACE_SECONDS, os._exit, [1])
    timer.daemon = True
    timer.start()


def _answer(item: Any) -> tuple[bytes, list[int], str | None]:
    """In a worker: the result, its arrays in shared memory if they are large.

    The pickle, the arrays' sizes, and the name of the shared memory or None.
    """
    buffers: list[pickle.PickleBuffer] = []
    result = _work(item)
    content = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    sizes = [buffer.raw().nbytes for buffer in buffers]
    if sum(sizes) < SHARED_BYTES or not _fits(sum(sizes)):
        return pickle.dumps(result, protocol=5), [], None
    memory = shared_memory.SharedMemory(create=True, size=sum(sizes))
    assert memory.buf is not None
    at = 0
    for buffer, size in zip(buffers, sizes, strict=True):
        memory.buf[at : at + size] = buffer.raw()
        at += size
    memory.close()
    return content, sizes, memory.name


def _fits(size: int) -> bool:
    """Whether there is room: writing to shared memory that is full kills a process."""
    return SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 4 * size


def _received(content: bytes, sizes: list[int], name: str | None) -> Any:
    """The result, in memory of this process's own."""
    if name is None:
        return pickle.loads(content)
    memory = shared_memory.SharedMemory(name)
    assert memory.buf is not None
    try:
        buffers, at = [], 0
        for size in sizes:
            buffers.append(bytearray(memory.buf[at : at + size]))
            at += size
    finally:
        memory.close()
        memory.unlink()
    return pickle.loads(content, buffers=buffers)
