"""Checkpoints and incremental vacuums, which keep the log and the file of the local bus small.

SQLite appends commits to a log, and a checkpoint copies the log into the database. The log starts over only after a
checkpoint that copied all of it while no connection wrote or read
(https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files). While several processes write, a PASSIVE
checkpoint never gets that far, so ours hold the write lock and are of the kinds RESTART and TRUNCATE.

SQLite reuses the free pages that deleted messages leave. When there are many, a vacuum returns them to the file
system (https://www.sqlite.org/pragma.html#pragma_incremental_vacuum), some at a time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from totoms.errors import BackendError
from totoms.local.messages.write_lock import WriteLock
from totoms.logging.logger import TotoLogger

CHECKPOINT_BYTES: Final = 8 * 1024 * 1024
"""A process runs a checkpoint whenever it has written about this much."""
LOG_BYTES: Final = 32 * 1024 * 1024
"""A log longer than this is checkpointed by any process, and truncated."""
SPARE_PAGES: Final = 2048
"""Free pages that the file keeps for the next messages: 8 MiB."""
VACUUM_PAGES: Final = 1024
"""Pages returned in one transaction, which bounds how long other writers wait."""
_COMMIT_BYTES: Final = 4 * 4096
"""Roughly what a commit writes in addition to messages: pages of counters and indexes."""
_LOCK_SECONDS: Final = 1.0
_READER_TRIES: Final = 20
_READER_PAUSE: Final = 0.001
"""Our own reads take microseconds. A longer one is an open transaction of another program: try again later."""
_RETRY_SECONDS: Final = (0.05, 1.0)
"""The first and the longest pause after a failed checkpoint; it doubles in between."""
_IDLE_CHECK_SECONDS: Final = 1.0
"""How often an idle writer checks the sizes."""


class Upkeep:
    """Runs the checkpoints and vacuums of one connection, on its thread, between its transactions.

    Args:
        connection: The connection, in autocommit mode.
        log: The path of the log.
        checkpoint_lock: Yields whether no other process runs a checkpoint. Older releases hold the same lock.
        write_lock: The lock that every writer holds.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        log: Path,
        checkpoint_lock: Callable[[], AbstractContextManager[bool]],
        write_lock: WriteLock,
    ) -> None:
        self._connection = connection
        self._log = log
        self._checkpoint_lock = checkpoint_lock
        self._write_lock = write_lock
        self._log_written = 0
        self._failures = 0
        self._not_before = 0.0
        self._next_check = 0.0
        self._version = -1

    def after_commit(self, written: int) -> None:
        """Run a checkpoint if one is due.

        Args:
            written: Roughly how many bytes of messages the commit wrote.
        """
        self._log_written += written + _COMMIT_BYTES
        if self._log_written > CHECKPOINT_BYTES or self.log_bytes() > LOG_BYTES:
            done = self._checkpoint()
            with contextlib.suppress(sqlite3.Error, OSError, BackendError):
                if done and 2 * self._free_pages() > max(self._value("PRAGMA page_count"), 2 * SPARE_PAGES):
                    self._vacuum()

    def log_bytes(self) -> int:
        """Return the size of the log."""
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def when_idle(self) -> bool:
        """Check, at most once a second, whether the log or the file is too large. Return whether more is to be done."""
        now = time.monotonic()
        if now < self._next_check:
            return False
        self._next_check = now + _IDLE_CHECK_SECONDS
        with contextlib.suppress(sqlite3.Error, OSError, BackendError):
            if self.log_bytes() > LOG_BYTES:
                self._checkpoint()
            version, self._version = self._version, self._value("PRAGMA data_version")
            if version == self._version and self._free_pages() > SPARE_PAGES and self._vacuum():
                self._next_check = 0.0  # no other process writes: continue as soon as the writer is idle again
                return True
        return False

    def convert(self, path: Path) -> None:
        """Convert a database of an earlier release, so that it can shrink. No other process may have it open.

        SQLite copies the database in one transaction. If the process is killed, or the disk is too full for the copy,
        the database is unchanged and the next process tries again.
        """
        if self._value("PRAGMA auto_vacuum"):
            return
        logger = TotoLogger.get_instance()
        logger.log("bus", f"Converting {path} ({path.stat().st_size >> 20} MiB) once, so that it can shrink.")
        try:
            self._connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._connection.execute("VACUUM")
        except sqlite3.Error as error:
            logger.log("bus", f"Could not convert {path}; it works as before: {error}", "WARNING")
            return
        self._checkpoint()

    def _checkpoint(self) -> bool:
        """Copy the log into the database and restart it; truncate it if it is long. Return whether it succeeded."""
        now = time.monotonic()
        if now < self._not_before:
            return False
        self._log_written = 0
        with contextlib.suppress(OSError, sqlite3.Error, BackendError), self._checkpoint_lock() as locked:
            if not locked:
                return False  # another process runs one
            if self._write_lock.acquire(_LOCK_SECONDS):
                try:
                    done = self._run_checkpoint()
                finally:
                    self._write_lock.release()
                if done:
                    self._failures = 0
                    return True
        least, most = _RETRY_SECONDS
        self._not_before = now + min(most, least * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return False

    def _run_checkpoint(self) -> bool:
        kind = "TRUNCATE" if self.log_bytes() > LOG_BYTES else "RESTART"
        for _ in range(_READER_TRIES):
            busy, _, _ = self._connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()
            if not busy:
                return True
            time.sleep(_READER_PAUSE)
        return False

    def _vacuum(self) -> bool:
        """Return up to `VACUUM_PAGES` free pages to the file system. Return whether any was: spare ones are kept."""
        with self._checkpoint_lock() as locked:
            if not locked or not self._write_lock.acquire(_LOCK_SECONDS):
                return False
            try:
                free = self._free_pages()
                pages = min(VACUUM_PAGES, free - SPARE_PAGES)
                if pages <= 0:
                    return False
                # Not `execute`: the statement frees one page per step, and has no rows to fetch.
                self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
                self._log_written += pages * 4096
                self._run_checkpoint()  # only a checkpoint truncates the file
                return self._free_pages() < free
            finally:
                self._write_lock.release()

    def _free_pages(self) -> int:
        return self._value("PRAGMA freelist_count")

    def _value(self, pragma: str) -> int:
        found: int = self._connection.execute(pragma).fetchone()[0]
        return found
