"""Folders of the local backend, entered step by step, so that no symbolic link below the root is ever followed.

Everything is done relative to the descriptor of an open folder (``openat`` and its kin), each opened with
``O_NOFOLLOW``. POSIX only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from totoms.errors import AccessDenied, BackendError, Unavailable

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_PATIENCE: Final = 30.0


@contextlib.contextmanager
def told_as(what: str) -> Iterator[None]:
    """Turn an OSError into a BackendError about `what`, which is a name fit for a message.

    Raises:
        AccessDenied: Not permitted, or there is a symbolic link or a file where a folder should be.
        Unavailable: The disk is full or failing, or descriptors have run out.
        BackendError: Anything else.
    """
    try:
        yield
    except OSError as error:
        kind: type[BackendError] = BackendError
        why = error.strerror or type(error).__name__
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            kind, why = AccessDenied, "there is a symbolic link, or something else that the local storage did not make"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            kind = AccessDenied
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO):
            kind = Unavailable
        raise kind(f"{what}: {why}.", resource=what) from error


@contextlib.contextmanager
def open_folder(root: Path, *names: str, create: bool = False) -> Iterator[int]:
    """Open the folder `names` below `root` and give its descriptor.

    Args:
        root: Where the backend keeps its data. It may itself be a symbolic link; below it none is followed.
        names: One name for each level.
        create: Make what is missing, durably, for the owner alone (mode 0700).

    Raises:
        FileNotFoundError: It does not exist, and `create` was not asked for.
        OSError: ELOOP or ENOTDIR where a symbolic link was planted.
    """
    if create:
        root.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            root.mkdir(mode=0o700)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            outer, folder = folder, _open_below(folder, name, create)
            os.close(outer)
        yield folder
    finally:
        os.close(folder)


def _open_below(folder: int, name: str, create: bool) -> int:
    try:
        return open_child(folder, name)
    except FileNotFoundError:
        if not create:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode=0o700, dir_fd=folder)
        os.fsync(folder)
    return open_child(folder, name)


def open_child(folder: int, name: str) -> int:
    """Open the folder `name` in an open folder; the caller closes it."""
    return os.open(name, _FOLDER, dir_fd=folder)


def open_to_read(folder: int, name: str) -> int:
    """Open a regular file in an open folder; the caller closes it.

    Raises:
        OSError: ELOOP for a symbolic link, or for anything else that is no regular file.
    """
    # O_NONBLOCK: opening a pipe that somebody planted must not wait for its writer.
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.ELOOP, "not a regular file")
    except BaseException:
        os.close(file)
        raise
    return file


@contextlib.contextmanager
def locked(folder: int, name: str) -> Iterator[None]:
    """Hold the lock file `name` in an open folder, against other threads and processes.

    The system takes it back from a process that dies.

    Raises:
        Unavailable: Somebody held it for 30 s.
    """
    # flock and not lockf: the lock belongs to this descriptor, so it excludes threads of one process as well.
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        patience, pause = time.monotonic() + _LOCK_PATIENCE, 0.0005
        while not try_lock(file):
            if time.monotonic() > patience:
                raise Unavailable(f"Another process holds the lock {name} for too long.", resource=name)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child forked meanwhile has the descriptor, too, and would keep it
    finally:
        os.close(file)


def try_lock(file: int) -> bool:
    """Take the lock on an open file, unless another descriptor has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def new_file(folder: int) -> Iterator[tuple[int, str]]:
    """Make a file to be moved elsewhere; give its descriptor and its name in `folder`. It is deleted if still there.

    It is locked while it is being written, so that :func:`sweep` can tell it from what a dead process left.
    """
    while True:
        name = secrets.token_hex(16)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=folder)
        # A sweep may have come between the making and the locking; then this file is lost, and another is made.
        if try_lock(file) and os.fstat(file).st_nlink:
            break
        os.close(file)
    try:
        yield file, name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        os.close(file)


def sweep(folder: int) -> int:
    """Delete what dead processes left of :func:`new_file`; return how many."""
    swept = 0
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # gone by now, or nothing of ours
            file = open_to_read(folder, name)
            try:
                if try_lock(file):
                    os.unlink(name, dir_fd=folder)
                    swept += 1
            finally:
                os.close(file)
    return swept
