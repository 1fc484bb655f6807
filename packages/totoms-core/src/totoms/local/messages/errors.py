"""Errors of SQLite, translated to backend errors that name the database file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from totoms.errors import AccessDenied, BackendError, CorruptData, Unavailable


def translate(error: BaseException, path: Path) -> BackendError:
    """Return the BackendError for an error of SQLite."""
    text = str(error)
    if isinstance(error, BackendError):
        return error
    if "full" in text or "disk I/O" in text:
        return Unavailable(f"Cannot write {path}: the disk is full or failing.", resource=str(path))
    if "locked" in text or "busy" in text:
        return Unavailable(f"Another process holds a lock on {path}.", resource=str(path))
    if "readonly" in text or "unable to open" in text:
        return AccessDenied(f"Cannot open {path} for writing.", resource=str(path))
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return damaged(path, "is damaged")
    return BackendError(f"Cannot use {path}: {type(error).__name__}.", resource=str(path))


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turn an error of SQLite into a BackendError that names `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


def damaged(path: Path, how: str) -> CorruptData:
    """Return the error for a damaged file; `how` ends the sentence that its path begins."""
    return CorruptData(f"{path} {how}.", resource=str(path))
