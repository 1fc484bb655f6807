"""The write lock of the local bus: a lock file held for each transaction and each checkpoint.

SQLite's own write lock still decides. But a checkpoint that finds that one taken does not wait: it continues as
PASSIVE, next to the writer. Then the log never starts over, and SQLite before 3.51.3 may corrupt it
(https://www.sqlite.org/wal.html#walresetbug). This lock keeps our writers and checkpoints apart.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Final

from totoms.local.locks import try_lock, unlock

_FILE: Final = "bus.turn"
_PAUSES: Final = (0.0002, 0.002)
"""The first and the longest pause between tries, in seconds. SQLite's own busy handler sleeps for up to 100 ms."""


class WriteLock:
    """The open lock file. The system releases the lock when the process ends.

    Args:
        folder: A descriptor of the root folder.
    """

    def __init__(self, folder: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(_FILE, flags, 0o600, dir_fd=folder)

    def acquire(self, seconds: float) -> bool:
        """Acquire the lock within `seconds`. Return whether that succeeded."""
        if try_lock(self._file):
            return True
        deadline = time.monotonic() + seconds
        for pause in pauses():
            time.sleep(pause)
            if try_lock(self._file):
                return True
            if time.monotonic() > deadline:
                return False
        raise AssertionError("`pauses` is endless")

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._file >= 0:
            unlock(self._file)

    def close(self) -> None:
        """Release the lock and close the file. A second call does nothing."""
        self.release()
        self.close_in_child()

    def close_in_child(self) -> None:
        """Close the file, in a forked child, without releasing the parent's lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def pauses() -> Iterator[float]:
    """Yield the seconds to sleep between tries, without end: short, growing, and random."""
    pause, most = _PAUSES
    while True:
        yield random.uniform(pause / 2, pause)
        pause = min(pause * 1.5, most)
