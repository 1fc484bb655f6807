"""File locks of the local backend, and the one place that needs POSIX's `fcntl`.

They use ``flock`` and not ``lockf``: a lock belongs to its descriptor, so it excludes threads of one process as well,
and the system releases it when the process dies.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Final

from totoms.errors import Unavailable, Unsupported

try:
    import fcntl
except ImportError as error:  # Windows
    raise Unsupported("The local backend needs POSIX, such as Linux or macOS: this system has no fcntl.") from error

_LOCK_TIMEOUT: Final = 30.0


@contextlib.contextmanager
def locked(folder: int, name: str) -> Iterator[None]:
    """Hold the lock file `name` in an open folder, against other threads and processes.

    Raises:
        Unavailable: Another holder kept it for 30 s.
    """
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        deadline, pause = time.monotonic() + _LOCK_TIMEOUT, 0.0005
        while not try_lock(file):
            if time.monotonic() > deadline:
                raise Unavailable(f"Another process held the lock {name} for {_LOCK_TIMEOUT:.0f} s.", resource=name)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        try:
            yield
        finally:
            unlock(file)
    finally:
        os.close(file)


def try_lock(file: int) -> bool:
    """Lock an open file exclusively. Return False if another descriptor holds a lock on it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share_lock(file: int) -> None:
    """Lock an open file together with others that share it, waiting for an exclusive holder."""
    fcntl.flock(file, fcntl.LOCK_SH)


def unlock(file: int) -> None:
    """Release the lock on an open file.

    Closing is not enough: a child forked meanwhile has the descriptor too, and would keep the lock.
    """
    fcntl.flock(file, fcntl.LOCK_UN)
