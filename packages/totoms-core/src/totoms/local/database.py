"""The SQLite file of the local bus: opened, checked, merged and closed so that nothing is lost.

Several processes share the file. SQLite before 3.51.3 can corrupt a log that two connections merge ("checkpoint") at
once, so automatic merging is off, and whoever merges holds a lock file; the same lock is held while a connection is
closed, because the last one to close merges too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from totoms.errors import AccessDenied, BackendError, CorruptData, Unavailable
from totoms.local.folders import locked, open_folder, told_as, try_lock
from totoms.local.state import StateFile

FILE: Final = "bus.sqlite3"
_STATE: Final = "bus.state"
_GATE: Final = "bus.gate"
_USERS: Final = "bus.users"
_MERGE: Final = "bus.merge"
_BUSY_SECONDS: Final = 30.0
_MERGE_BYTES: Final = 8 * 1024 * 1024
"""The log is merged into the database whenever about this much was written to it."""
_PAGE_BYTES: Final = 4096
_LEAST_BYTES: Final = 512
"""The smallest page that SQLite knows. What is shorter it takes for a database not begun, and deletes its log."""
_COMMIT_BYTES: Final = 4 * _PAGE_BYTES
"""What a commit writes besides the messages: the pages of counters and indexes."""

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE subscriptions (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, topic TEXT, ordered INTEGER NOT NULL DEFAULT 0);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY, subscription INTEGER NOT NULL, message_id TEXT NOT NULL, body BLOB NOT NULL,
    attributes BLOB NOT NULL, ordering_key TEXT, checksum INTEGER NOT NULL,
    due REAL NOT NULL, attempt INTEGER NOT NULL, token INTEGER NOT NULL, behind INTEGER NOT NULL);
CREATE INDEX deliveries_due ON deliveries (subscription, behind, due);
CREATE INDEX deliveries_order ON deliveries (subscription, ordering_key, id) WHERE ordering_key IS NOT NULL;
CREATE TRIGGER falls_in_line AFTER INSERT ON deliveries
WHEN NEW.ordering_key IS NOT NULL AND (SELECT ordered FROM subscriptions WHERE id = NEW.subscription) AND EXISTS (
    SELECT 1 FROM deliveries WHERE subscription = NEW.subscription AND ordering_key = NEW.ordering_key AND id < NEW.id)
BEGIN
    UPDATE deliveries SET behind = 1 WHERE id = NEW.id;
END;
CREATE TRIGGER next_in_line AFTER DELETE ON deliveries WHEN OLD.ordering_key IS NOT NULL
BEGIN
    UPDATE deliveries SET behind = 0 WHERE behind AND id = (
        SELECT min(id) FROM deliveries WHERE subscription = OLD.subscription AND ordering_key = OLD.ordering_key);
END;
CREATE TRIGGER line_is_formed AFTER UPDATE OF ordered ON subscriptions WHEN NEW.ordered <> OLD.ordered
BEGIN
    UPDATE deliveries SET behind = NEW.ordered AND EXISTS (
        SELECT 1 FROM deliveries e WHERE e.subscription = NEW.id AND e.ordering_key = deliveries.ordering_key
        AND e.id < deliveries.id)
    WHERE subscription = NEW.id AND ordering_key IS NOT NULL;
END;
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY, subscription TEXT NOT NULL, message_id TEXT NOT NULL, body BLOB NOT NULL,
    attributes BLOB NOT NULL, ordering_key TEXT, checksum INTEGER NOT NULL,
    reason TEXT NOT NULL, error_class TEXT NOT NULL, description TEXT NOT NULL, attempts INTEGER NOT NULL,
    dead_since REAL NOT NULL);
CREATE INDEX dead_letters_subscription ON dead_letters (subscription, id);
INSERT INTO meta VALUES ('commits', 1);
"""


class Database:
    """One connection, used by one thread.

    Args:
        root: The folder of the local backend.

    Attributes:
        commits: The number of the last commit this connection made or saw.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.path = root / FILE
        self._log = root / f"{FILE}-wal"
        self._state = StateFile(root / _STATE)
        self._users = -1
        self._connection: sqlite3.Connection | None = None
        self.commits = 0
        self._unmerged = 0
        self._durable = True

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, in autocommit mode: transactions are begun and ended by statements."""
        assert self._connection is not None
        return self._connection

    def open(self) -> None:
        """Open the database; the first of all processes checks it, or makes it.

        Raises:
            CorruptData: A file is missing, cut or damaged; names it.
            BackendError: The folder cannot be used.
        """
        with _translated(self.path), told_as(str(self._root)), self._folder() as folder, locked(folder, _GATE):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._users = os.open(_USERS, flags, 0o600, dir_fd=folder)
            try:
                if try_lock(self._users):
                    self._open_first()
                else:
                    self._state.load()
                    self._check_files(clean=False)  # SQLite would make one that is missing
                    self._connect()
                    self._check_identity()
                fcntl.flock(self._users, fcntl.LOCK_SH)
                self._wait_for_locks(0.0)
            except BaseException:
                self._abandon()
                raise

    def begin(self, *, durable: bool) -> bool:
        """Begin to write. Return whether another connection has committed since the last call.

        Args:
            durable: Whether the commit must survive a power cut. If not, a later one that must makes it so too; a
                killed process loses neither.
        """
        cursor = self.connection.cursor()
        if durable is not self._durable:
            cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._take_turn(cursor)
        version = cursor.execute("PRAGMA data_version").fetchone()[0]
        changed = version != self._version
        if changed:
            self.commits = self._read_commits()
            self._version: int = version  # last, so that a failure is made good the next time
        return bool(changed)

    def _take_turn(self, cursor: sqlite3.Cursor) -> None:
        # SQLite's own waiting sleeps for up to 100 ms at a time, long after the other process has committed.
        patience, pause = time.monotonic() + _BUSY_SECONDS, 0.0002
        while True:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > patience:
                    raise
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 1.5, 0.002)

    def changed(self) -> bool:
        """Whether another connection has committed since :meth:`begin` was called last."""
        return bool(self.connection.execute("PRAGMA data_version").fetchone()[0] != self._version)

    def commit(self) -> None:
        """Commit. When this returns and the transaction is durable, it is on the disk."""
        number = self.commits + 1
        self.connection.execute("UPDATE meta SET value = ? WHERE name = 'commits'", (number,))
        self.connection.execute("COMMIT")
        self.commits = number
        if self._durable:  # what a power cut may take must not be missed afterwards
            self._state.note_commit(number)

    def rollback(self) -> None:
        """Undo what was begun. Never raises: SQLite may have done it already."""
        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def merge_sometimes(self, written: int) -> None:
        """Merge the log into the database from time to time, unless another process is at it.

        The log keeps its length and is written over from its start: that is faster than letting it grow anew.

        Args:
            written: Roughly how many bytes the last commit wrote.
        """
        self._unmerged += written + _COMMIT_BYTES
        if self._unmerged > _MERGE_BYTES:
            self._unmerged = 0
            with contextlib.suppress(OSError, sqlite3.Error, BackendError), self._merge_lock(wait=False) as mine:
                if mine:
                    self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close; the last of all processes leaves a merged database and notes what it looks like."""
        if self._connection is None:
            return
        try:
            with _translated(self.path), told_as(str(self._root)), self._folder() as folder, locked(folder, _GATE):
                last = try_lock(self._users)
                with self._merge_lock(wait=True):
                    self._wait_for_locks(_BUSY_SECONDS)
                    if last:
                        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    self._connection.close()
                    self._connection = None
                if last and not self._log.exists():
                    self._state.set_clean(self.path, self.commits)
        finally:
            self._abandon()

    def disown(self) -> None:
        """In a forked child: hold no lock of the parent's, which would outlive it. The connection is never touched."""
        if self._users >= 0:
            os.close(self._users)
            self._users = -1

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
            self._connect()
            self.connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self.connection.execute("INSERT INTO meta VALUES ('identity', ?)", (self._state.identity,))
        else:
            self._check_files(clean=status == "clean")
            if status != "clean":
                self._check_content()
            self._connect()
            self._check_identity()
        # A first commit: from here on there is a log, so one that is missing later is known to be missing.
        self.connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'commits'")
        self.commits = self._read_commits()
        self._state.set_open(self.commits)

    def _check_files(self, *, clean: bool) -> None:
        if not self.path.exists() or self.path.stat().st_size < _LEAST_BYTES:
            raise _damaged(self.path, "is missing or cut")
        if clean and not self._state.is_as_noted(self.path):
            raise _damaged(self.path, "was changed since it was closed")

    def _check_content(self) -> None:
        # A connection that could write would, when it is closed, merge what is left of a damaged log and delete the
        # log. One that cannot leaves everything as it is, for whoever wants to save what can be saved.
        self._connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        self._check_identity()
        problem = self.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise _damaged(self.path, "is damaged")
        if self._read_commits() < self._state.commits:
            raise _damaged(self._log, "is missing, cut or damaged: committed messages are not there")
        self._connection.close()

    def _check_identity(self) -> None:
        if not self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            if self.path.stat().st_size <= _PAGE_BYTES and self._state.commits > 1:
                raise _damaged(self._log, "is missing, cut or damaged: nothing of it was merged yet")
            raise _damaged(self.path, "is empty")
        row = self.connection.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
        if row is None or row[0] != self._state.identity:
            raise _damaged(self.path, "is not the database that was here")
        self.commits = self._read_commits()

    def _read_commits(self) -> int:
        row = self.connection.execute("SELECT value FROM meta WHERE name = 'commits'").fetchone()
        if row is None or type(row[0]) is not int:
            raise _damaged(self.path, "is damaged")
        number: int = row[0]
        return number

    def _connect(self) -> None:
        self._connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0", "cache_size=-16000"):
            self._connection.execute(f"PRAGMA {pragma}")
        # Text may be damaged; then it is not as its checksum says, and not what stops all the rest.
        self._connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        self._durable = True
        self._version = self._connection.execute("PRAGMA data_version").fetchone()[0]

    def _wait_for_locks(self, seconds: float) -> None:
        self.connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")

    def _abandon(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        self._state.close()
        if self._users >= 0:
            fcntl.flock(self._users, fcntl.LOCK_UN)  # also where a child was forked that has the descriptor, too
            os.close(self._users)
            self._users = -1

    def _folder(self) -> contextlib.AbstractContextManager[int]:
        return open_folder(self._root, create=True)

    @contextlib.contextmanager
    def _merge_lock(self, *, wait: bool) -> Iterator[bool]:
        with self._folder() as folder:
            if wait:
                with locked(folder, _MERGE):
                    yield True
                return
            file = os.open(_MERGE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
            try:
                yield try_lock(file)
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)
                os.close(file)


def translate(error: BaseException, path: Path) -> BackendError:
    """Return the BackendError for what SQLite raised."""
    text = str(error)
    if isinstance(error, BackendError):
        return error
    if "full" in text or "disk I/O" in text:
        return Unavailable(f"{path} cannot be written: the disk is full or failing.", resource=str(path))
    if "locked" in text or "busy" in text:
        return Unavailable(f"{path} is held by another process for too long.", resource=str(path))
    if "readonly" in text or "unable to open" in text:
        return AccessDenied(f"{path} cannot be opened for writing.", resource=str(path))
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return _damaged(path, "is damaged")
    return BackendError(f"{path} cannot be used: {type(error).__name__}.", resource=str(path))


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


def _damaged(path: Path, how: str) -> CorruptData:
    return CorruptData(f"{path} {how}.", resource=str(path))
