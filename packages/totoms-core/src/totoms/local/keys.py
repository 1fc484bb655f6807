"""The development key of the local backend: made once per root folder, readable by its owner alone."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from totoms.errors import AccessDenied, CorruptData
from totoms.local.folders import open_folder, told_as

_FILE: Final = "signing-key"
_HEX_DIGITS: Final = 64


def signing_key(root: Path) -> str:
    """Return the key that signs this backend's API tokens, 64 hexadecimal digits; make it if there is none.

    Raises:
        BackendError: The root folder or the file cannot be used.
    """
    with told_as(str(root / _FILE)):
        try:
            with open_folder(root, create=True) as folder:
                key = _read(folder) or _make(folder)
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            raise AccessDenied(f"The folder {root} cannot be used: {error.strerror}.", resource=str(root)) from error
    if len(key) != _HEX_DIGITS or not all(digit in "0123456789abcdef" for digit in key):
        raise CorruptData(f"{root / _FILE} is damaged: delete it, and a new key is made.", resource=str(root / _FILE))
    return key


def push_key(root: Path) -> bytes:
    """Return the key that signs push requests. It is derived, so that a user's API token is never a push token."""
    return hmac.digest(signing_key(root).encode(), b"totoms push", "sha256")


def url_key(root: Path) -> bytes:
    """Return the key that signs URLs of files, derived likewise."""
    return hmac.digest(signing_key(root).encode(), b"totoms signed urls", "sha256")


def _read(folder: int) -> str | None:
    try:
        file = os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        return os.read(file, 1024).decode("ascii", "replace").strip()
    finally:
        os.close(file)


def _make(folder: int) -> str:
    # Written aside and linked into place: of several processes one wins, and nobody reads half a key.
    temporary = f".{_FILE}-{secrets.token_hex(8)}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        os.write(file, secrets.token_hex(_HEX_DIGITS // 2).encode())
        os.fsync(file)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, _FILE, src_dir_fd=folder, dst_dir_fd=folder)
        os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(file)
    return _read(folder) or ""
