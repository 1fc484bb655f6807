"""The signing key of the local backend: created once per root folder, readable by its owner only."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from totoms.errors import AccessDenied, CorruptData
from totoms.local.folders import open_folder, open_to_read, os_errors

_FILE: Final = "signing-key"
_HEX_DIGITS: Final = 64


def signing_key(root: Path) -> str:
    """Return the key that signs API tokens, 64 hexadecimal digits; create it if there is none.

    Raises:
        AccessDenied: The file belongs to another user, or others may read or write it.
        CorruptData: The file does not hold such a key.
        BackendError: The root folder or the file cannot be read or written.
    """
    with os_errors(str(root / _FILE)):
        try:
            with open_folder(root, create=True) as folder:
                path = root / _FILE
                key = _read(folder, path) or _create(folder, path)
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            raise AccessDenied(f"Cannot use the folder {root}: {error.strerror}.", resource=str(root)) from error
    if len(key) != _HEX_DIGITS or not all(digit in "0123456789abcdef" for digit in key):
        raise CorruptData(f"{root / _FILE} is damaged: delete it to get a new key.", resource=str(root / _FILE))
    return key


def push_key(root: Path) -> bytes:
    """Return the key that signs push requests: derived, so that an API token is never accepted as a push token."""
    return hmac.digest(signing_key(root).encode(), b"totoms push", "sha256")


def url_key(root: Path) -> bytes:
    """Return the key that signs URLs of files, derived in the same way."""
    return hmac.digest(signing_key(root).encode(), b"totoms signed urls", "sha256")


def _read(folder: int, path: Path) -> str | None:
    try:
        file = open_to_read(folder, _FILE)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(file)
        # As ssh does with private keys: anyone who has read or written the key can sign tokens for any user.
        if found.st_uid != os.geteuid():
            raise AccessDenied(f"{path} belongs to another user: delete it to get a new key.", resource=str(path))
        if found.st_mode & 0o066:
            raise AccessDenied(
                f"Other users may read or write {path}: delete it to get a new key, or run chmod 600.",
                resource=str(path),
            )
        return os.read(file, 1024).decode("ascii", "replace").strip()
    finally:
        os.close(file)


def _create(folder: int, path: Path) -> str:
    # Written to a temporary file and linked: one of several processes wins, and none reads half a key.
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
    return _read(folder, path) or ""
