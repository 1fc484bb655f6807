"""The SQLite file of the local bus: opens, checks and closes it so that no committed message is lost silently.

Several processes share the file. SQLite before 3.51.3 can corrupt a log that two connections checkpoint at once, so
automatic checkpoints are off (see :mod:`totoms.local.messages.checkpoints`) and the connection that checkpoints holds a
lock file. A connection also holds it while it closes, because the last one to close checkpoints too.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from totoms.local.folders import open_folder, os_errors
from totoms.local.locks import locked, share_lock, try_lock, unlock
from totoms.local.messages.checkpoints import Upkeep
from totoms.local.messages.errors import damaged, sqlite_errors
from totoms.local.messages.schema import SCHEMA, upgrade
from totoms.local.messages.state import StateFile
from totoms.local.messages.write_lock import WriteLock, pauses

FILE: Final = "bus.sqlite3"
_STATE: Final = "bus.state"
_GATE: Final = "bus.gate"
_USERS: Final = "bus.users"
_CHECKPOINT: Final = "bus.merge"  # the name that earlier releases lock
_BUSY_SECONDS: Final = 30.0
_PAGE_BYTES: Final = 4096
_MIN_BYTES: Final = 512
"""SQLite's smallest page. It takes a shorter file for a new database, and deletes its log."""


class Database:
    """One connection, used by one thread.

    Args:
        root: The folder of the local backend.

    Attributes:
        commits: The number of the last commit that this connection made or saw.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.path = root / FILE
        self._log = root / f"{FILE}-wal"
        self._state = StateFile(root / _STATE)
        self._users = -1
        self._connection: sqlite3.Connection | None = None
        self.commits = 0
        self._write_lock: WriteLock | None = None
        self._upkeep: Upkeep | None = None
        self._durable = True

    @property
    def upkeep(self) -> Upkeep:
        """Checkpoints and vacuums. Call its methods between transactions."""
        assert self._upkeep is not None
        return self._upkeep

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, in autocommit mode: statements begin and end transactions."""
        assert self._connection is not None
        return self._connection

    def open(self) -> None:
        """Open the database; the first process to open it checks it, or creates it.

        Raises:
            CorruptData: A file is missing, truncated or damaged; the error names it.
            BackendError: The folder cannot be used.
        """
        with sqlite_errors(self.path), os_errors(str(self._root)), self._folder() as folder, locked(folder, _GATE):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._users = os.open(_USERS, flags, 0o600, dir_fd=folder)
            try:
                self._write_lock = WriteLock(folder)
                if try_lock(self._users):
                    self._open_first()
                else:
                    self._state.load()
                    self._check_files(clean=False)  # SQLite would create a missing one
                    self._connect()
                    self._check_identity()
                share_lock(self._users)
                self._wait_for_locks(0.0)
            except BaseException:
                self._abandon()
                raise

    def begin(self, *, durable: bool) -> bool:
        """Begin a write transaction. Return whether another connection has committed since the last call.

        Args:
            durable: Whether the commit must survive a power cut. A commit that need not survives with the next
                durable one. A killed process loses neither kind.
        """
        cursor = self.connection.cursor()
        if durable is not self._durable:
            cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._begin_immediate(cursor)
        version = cursor.execute("PRAGMA data_version").fetchone()[0]
        changed = version != self._version
        if changed:
            self.commits = self._read_commits()
            self._version: int = version  # last, so that the next call repeats a failed read
        return bool(changed)

    def _begin_immediate(self, cursor: sqlite3.Cursor) -> None:
        assert self._write_lock is not None
        deadline = time.monotonic() + _BUSY_SECONDS
        self._write_lock.acquire(_BUSY_SECONDS)  # if that fails, try anyway: SQLite's own lock decides
        try:
            for pause in pauses():
                try:
                    cursor.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > deadline:
                        raise
                time.sleep(pause)
        except BaseException:
            self._write_lock.release()
            raise

    def changed(self) -> bool:
        """Return whether another connection has committed since the last :meth:`begin`."""
        return bool(self.connection.execute("PRAGMA data_version").fetchone()[0] != self._version)

    def commit(self) -> None:
        """Commit. A durable transaction is on the disk when this returns."""
        number = self.commits + 1
        self.connection.execute("UPDATE meta SET value = ? WHERE name = 'commits'", (number,))
        self.connection.execute("COMMIT")
        assert self._write_lock is not None
        self._write_lock.release()
        self.commits = number
        if self._durable:  # a noted commit that is missing later counts as damage
            self._state.note_commit(number)

    def rollback(self) -> None:
        """Roll back. Never raises: SQLite may have rolled back already."""
        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        if self._write_lock is not None:
            self._write_lock.release()

    def close(self) -> None:
        """Close. The last process to close runs a checkpoint and notes the size and checksum of the database."""
        if self._connection is None:
            return
        try:
            with sqlite_errors(self.path), os_errors(str(self._root)), self._folder() as folder, locked(folder, _GATE):
                last = try_lock(self._users)
                with self._checkpoint_lock(wait=True):
                    self._wait_for_locks(_BUSY_SECONDS)
                    if last:
                        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    self._connection.close()
                    self._connection = self._upkeep = None
                if last and not self._log.exists():
                    self._state.set_clean(self.path, self.commits)
        finally:
            self._abandon()

    def close_in_child(self) -> None:
        """Close the parent's lock files in a forked child, which would keep the locks. Do not touch the connection."""
        if self._users >= 0:
            os.close(self._users)
            self._users = -1
        if self._write_lock is not None:
            self._write_lock.close_in_child()

    # --- opening ---

    def _open_first(self) -> None:
        if not self._state.exists():
            if self.path.exists() or self._log.exists():
                raise self._state.damaged("is missing")
            self._state.create()
        status = self._state.load()
        if status == "creating":
            for leftover in (self.path, self._log, self._root / f"{FILE}-shm"):
                leftover.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            os.close(os.open(self.path, flags, 0o600))  # SQLite gives its other files the same mode
            self._connect(new=True)
            self.connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            self.connection.execute("INSERT INTO meta VALUES ('identity', ?)", (self._state.identity,))
        else:
            self._check_files(clean=status == "clean")
            if status != "clean":
                self._check_content()
            self._connect()
            self._check_identity()
            upgrade(self.connection)
        # A first commit creates the log, so that a log that is missing later is known to be lost.
        self.connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'commits'")
        self.commits = self._read_commits()
        self._state.set_open(self.commits)
        self.upkeep.convert(self.path)

    def _check_files(self, *, clean: bool) -> None:
        if not self.path.exists() or self.path.stat().st_size < _MIN_BYTES:
            raise damaged(self.path, "is missing or truncated")
        if clean and not self._state.matches(self.path):
            raise damaged(self.path, "was changed since it was closed")

    def _check_content(self) -> None:
        # Read-only: a connection that can write would, on closing, checkpoint what is left of a damaged log and delete
        # the log, and nothing could be recovered from it.
        self._connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        self._check_identity()
        problem = self.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise damaged(self.path, "is damaged")
        if self._read_commits() < self._state.commits:
            raise damaged(self._log, "is missing, truncated or damaged: committed messages are lost")
        self._connection.close()

    def _check_identity(self) -> None:
        if not self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            if self.path.stat().st_size <= _PAGE_BYTES and self._state.commits > 1:
                raise damaged(self._log, "is missing, truncated or damaged: all messages were in it")
            raise damaged(self.path, "is empty")
        row = self.connection.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
        if row is None or row[0] != self._state.identity:
            raise damaged(self.path, "is not the database that belongs here")
        self.commits = self._read_commits()

    def _read_commits(self) -> int:
        row = self.connection.execute("SELECT value FROM meta WHERE name = 'commits'").fetchone()
        if row is None or type(row[0]) is not int:
            raise damaged(self.path, "is damaged")
        number: int = row[0]
        return number

    def _connect(self, *, new: bool = False) -> None:
        self._connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        if new:  # before the first write; Upkeep.convert does it for databases of earlier releases
            self._connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0", "cache_size=-16000"):
            self._connection.execute(f"PRAGMA {pragma}")
        # Damaged text must not fail the whole query; the checksum of its row finds it.
        self._connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        self._durable = True
        self._version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        assert self._write_lock is not None
        self._upkeep = Upkeep(self._connection, self._log, partial(self._checkpoint_lock, wait=False), self._write_lock)

    def _wait_for_locks(self, seconds: float) -> None:
        self.connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")

    def _abandon(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = self._upkeep = None
        self._state.close()
        if self._write_lock is not None:
            self._write_lock.close()
            self._write_lock = None
        if self._users >= 0:
            unlock(self._users)
            os.close(self._users)
            self._users = -1

    def _folder(self) -> contextlib.AbstractContextManager[int]:
        return open_folder(self._root, create=True)

    @contextlib.contextmanager
    def _checkpoint_lock(self, *, wait: bool) -> Iterator[bool]:
        with self._folder() as folder:
            if wait:
                with locked(folder, _CHECKPOINT):
                    yield True
                return
            file = os.open(_CHECKPOINT, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
            try:
                yield try_lock(file)
            finally:
                unlock(file)
                os.close(file)
