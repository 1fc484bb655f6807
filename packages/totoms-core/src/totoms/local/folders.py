"""Folders of the local backend, opened level by level, so that no symbolic link below the root is followed.

Every call is relative to the descriptor of an open folder (``openat`` and its like), opened with ``O_NOFOLLOW``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from totoms.errors import AccessDenied, BackendError, Unavailable
from totoms.local.locks import try_lock

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def os_errors(what: str) -> Iterator[None]:
    """Turn an OSError into a BackendError that names `what`.

    Raises:
        AccessDenied: Not permitted, or a symbolic link or a file is where a folder should be.
        Unavailable: The disk is full or failing, or the process has no descriptors left.
        BackendError: Any other OSError.
    """
    try:
        yield
    except OSError as error:
        kind: type[BackendError] = BackendError
        why = error.strerror or type(error).__name__
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            kind, why = AccessDenied, "found a symbolic link, or another kind of file than the local backend makes"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            kind = AccessDenied
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO):
            kind = Unavailable
        raise kind(f"{what}: {why}.", resource=what) from error


@contextlib.contextmanager
def open_folder(root: Path, *names: str, create: bool = False) -> Iterator[int]:
    """Open the folder `names` below `root` and yield its descriptor.

    Args:
        root: The root folder. It may itself be a symbolic link; below it none is followed.
        names: One name for each level.
        create: Create missing levels durably, for the owner only (mode 0700).

    Raises:
        FileNotFoundError: The folder does not exist, and `create` is False.
        OSError: ELOOP or ENOTDIR, where a level is a symbolic link or a file.
    """
    if create:
        root.parent.mkdir(parents=True, exist_ok=True)
        make_root(root)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            outer, folder = folder, _open_below(folder, name, create)
            os.close(outer)
        yield folder
    finally:
        os.close(folder)


def make_root(root: Path) -> None:
    """Create the root folder for the owner only, with a ``.gitignore``: it holds a key, messages and files.

    An existing folder that is not called ``.totoms`` gets no ``.gitignore``: it may hold a whole project.
    """
    made = False
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
        made = True
    if made or root.name == ".totoms":
        with contextlib.suppress(OSError):  # it exists, or the folder is not writable, which the caller finds out
            file = os.open(
                root / ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                os.write(file, b"# Data of the local backend of totoms.\n*\n")
            finally:
                os.close(file)


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
        OSError: ELOOP if it is not a regular file.
    """
    # O_NONBLOCK: opening a named pipe must not wait for its writer.
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.ELOOP, "not a regular file")
    except BaseException:
        os.close(file)
        raise
    return file


@contextlib.contextmanager
def new_file(folder: int) -> Iterator[tuple[int, str]]:
    """Create a temporary file; yield its descriptor and its name in `folder`. Delete it at the end unless it was moved.

    It stays locked while it is open, so that :func:`sweep` deletes only the files of dead processes.
    """
    while True:
        name = secrets.token_hex(16)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=folder)
        # A sweep between creating and locking deletes the file; then create another.
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
    """Delete the files that dead processes left from :func:`new_file`; return how many."""
    swept = 0
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # deleted meanwhile, or not a temporary file
            file = open_to_read(folder, name)
            try:
                if try_lock(file):
                    os.unlink(name, dir_fd=folder)
                    swept += 1
            finally:
                os.close(file)
    return swept
