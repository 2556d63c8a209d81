"""One process at a time: a lock on a file, gone with the process whatever ends it."""

import fcntl
import os
from pathlib import Path

from rpjax.errors import InputError


class Lock:
    """An exclusive lock; a second process is refused with an `InputError`.

    The system releases it when the process ends, by `kill -9` too. Across machines it
    holds as far as the shared file system carries `flock`.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.file = path.open("a+")
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self.file.seek(0)
                owner = self.file.read().strip() or "another process"
                self.file.close()
                raise InputError(
                    f"{what} is in use by {owner}; wait for it, or name another folder"
                ) from error
            if self._current():
                break
            self.file.close()
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {os.uname().nodename}")
        self.file.flush()

    def _current(self) -> bool:
        # its holder may have removed the file between our opening and locking it
        try:
            return os.fstat(self.file.fileno()).st_ino == self.path.stat().st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give it up, and leave nothing behind."""
        if not self.file.closed:
            self.path.unlink(missing_ok=True)
            self.file.close()
