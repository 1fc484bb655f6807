"""The folder in which the workers of one service share their metrics.

Each worker writes a snapshot of its metrics, and the worker that has the port reads all of them. A worker locks a file
for as long as it lives; the system releases the lock when the worker dies, so a dead worker is known by a file that
can be locked. The totals of dead workers are added to one file, and their own files are deleted.

| File | Content |
|---|---|
| ``leader.lock`` | locked by the worker that has the port, or waits for it |
| ``<id>.lock`` | its run; locked by a worker while it lives |
| ``<id>.json`` | its last snapshot |
| ``ended.json`` | the totals of workers that have ended |

The workers that one server starts are one run: they are one process group. When a run begins and no worker of the
one before is left, the totals start from zero.

The folder is below the system's folder for temporary files, belongs to this user, and other users can neither read it
nor write to it. Processes share it if they have the same user, network namespace, address, port and service.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from totoms.telemetry.families import Family, from_json, merge, to_json, totals

MAX_BYTES: Final = 32 * 1024 * 1024
"""Longer files are not read."""
_LEADER: Final = "leader"
_ENDED: Final = "ended"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class WorkerFiles:
    """A worker's part of the folder. Not to be used by two threads at the same time.

    Args:
        service: The service's name.
        host: The address of the listener.
        port: Its port.

    Attributes:
        leads: Whether this worker holds the lock of the worker that has the port.

    Raises:
        OSError: The folder cannot be created or opened, or others may have written to it.
    """

    def __init__(self, service: str, host: str, port: int) -> None:
        self.leads = False
        self._descriptors: list[int] = []
        self._run = str(os.getpgrp())
        try:
            self._folder = self._open_folder(service, host, port)
            self.id, self._lock = self._join()
            self._continues = self._others_live()
        except BaseException:
            self.close()
            raise

    def _open_folder(self, service: str, host: str, port: int) -> int:
        path = Path(tempfile.gettempdir()) / f"totoms-{os.geteuid()}"
        base = _private_folder(path)
        try:
            group = hashlib.sha256("\0".join([_network(), host, str(port), service]).encode()).hexdigest()
            folder = _private_folder(group[:32], base)
        finally:
            os.close(base)
        self._descriptors.append(folder)
        return folder

    def _join(self) -> tuple[str, int]:
        while True:
            name = secrets.token_hex(8)
            lock = os.open(f"{name}.lock", _FILE | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._folder)
            os.write(lock, self._run.encode())
            # Between creating and locking, the leader may have taken the file for that of a dead worker.
            if _try_lock(lock, fcntl.LOCK_EX) and os.fstat(lock).st_nlink:
                self._descriptors.append(lock)
                return name, lock
            os.close(lock)

    def try_to_lead(self) -> bool:
        """Become the leader unless another living worker is. Return whether this worker is the leader."""
        if self.leads:
            return True
        lock = os.open(f"{_LEADER}.lock", _FILE | os.O_RDWR | os.O_CREAT, 0o600, dir_fd=self._folder)
        if not _try_lock(lock, fcntl.LOCK_EX):
            os.close(lock)
            return False
        self._descriptors.append(lock)
        self.leads = True
        self._begin_run()
        return True

    def _begin_run(self) -> None:
        ended = self._read(_ENDED) or {}
        if ended.get("run") == self._run:
            return
        if not (self._continues or self._others_live()):
            ended = {}
            for name in self._others():
                if self._run_of(name) != self._run:
                    self._delete(name)
        self._write(_ENDED, {**ended, "run": self._run})

    def _others_live(self) -> bool:
        """Return whether a worker of another run is alive."""
        return any(self._run_of(name) != self._run and self._is_alive(name) for name in self._others())

    def write(self, families: Sequence[Family]) -> None:
        """Replace this worker's snapshot.

        Raises:
            FileNotFoundError: The folder or the lock was deleted.
            OSError: It cannot be written.
        """
        if not os.fstat(self._lock).st_nlink:
            raise FileNotFoundError(f"{self.id}.lock was deleted")
        self._write(self.id, {"families": to_json(families)})
        # Programs that tidy the folder for temporary files delete what is old.
        for file in self._descriptors:
            os.utime(file)
        if self.leads:
            os.utime(f"{_ENDED}.json", dir_fd=self._folder)

    def read_others(self) -> list[list[Family]]:
        """Return the families of each other living worker, and the totals of those that have ended."""
        past = self.fold()
        return [*(_families(self._read(name)) for name in self._others()), past]

    def fold(self) -> list[Family]:
        """Add the totals of workers that have died to those of earlier ones, delete their files, and return the totals.

        To be called by one worker at a time: the one that has the port.
        """
        ended = self._read(_ENDED) or {}
        past = _families(ended)
        gone = [name for name in self._others() if not self._is_alive(name)]
        if not gone:
            return past
        # A dead worker's name is kept until its files are gone, so that nothing is added twice after a crash.
        folded = ended["folded"] if isinstance(ended.get("folded"), list) else []
        # Without its lock, the snapshot is of a living worker whose lock was deleted; it will join again.
        dead = [name for name in gone if name not in folded and self._has_lock(name)]
        past = merge([past, *(totals(_families(self._read(name))) for name in dead)])
        self._write(_ENDED, {**ended, "folded": gone, "families": to_json(past)})
        for name in gone:
            self._delete(name)
        return past

    def close(self) -> None:
        """Leave. The totals of this worker stay."""
        self.leads = False
        while self._descriptors:
            os.close(self._descriptors.pop())

    # --- files ---

    def _others(self) -> list[str]:
        folder: int = self._folder
        names = {name.partition(".")[0] for name in os.listdir(folder)}
        return sorted(names - {self.id, _LEADER, _ENDED})

    def _is_alive(self, name: str) -> bool:
        try:
            lock = self._open(f"{name}.lock")
        except OSError:
            return False
        try:
            return not _try_lock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    def _has_lock(self, name: str) -> bool:
        try:
            os.stat(f"{name}.lock", dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _run_of(self, name: str) -> str:
        with contextlib.suppress(OSError), os.fdopen(self._open(f"{name}.lock"), "rb") as lock:
            return lock.read(32).decode(errors="replace")
        return ""

    def _open(self, file: str) -> int:
        descriptor = os.open(file, _FILE | os.O_RDONLY, dir_fd=self._folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(f"{file} is not a file")
        return descriptor

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return the content of a file, or None if there is none or it is damaged."""
        try:
            file = self._open(f"{name}.json")
        except OSError:
            return None
        with os.fdopen(file, "rb") as opened:
            if os.fstat(file).st_size > MAX_BYTES:
                return None
            try:
                value = json.loads(opened.read(MAX_BYTES))
            except (ValueError, RecursionError):
                return None
        return value if isinstance(value, dict) else None

    def _write(self, name: str, value: dict[str, Any]) -> None:
        flags = _FILE | os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(f"{name}.new", flags, 0o600, dir_fd=self._folder), "wb") as file:
            file.write(json.dumps(value).encode())
        os.replace(f"{name}.new", f"{name}.json", src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _delete(self, name: str) -> None:
        for suffix in ("json", "new", "lock"):  # the lock last: a snapshot without a lock has no owner
            with contextlib.suppress(OSError):  # it is gone, or is a folder
                os.unlink(f"{name}.{suffix}", dir_fd=self._folder)


def _families(content: dict[str, Any] | None) -> list[Family]:
    try:
        return from_json((content or {}).get("families", []))
    except (ValueError, TypeError, AttributeError):
        return []


def _private_folder(path: Path | str, above: int | None = None) -> int:
    """Open a folder that only this user can read and write, and create it if needed.

    Raises:
        PermissionError: It belongs to another user, or others have access to it.
        OSError: It cannot be opened, or is a symbolic link.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700, dir_fd=above)
    folder = os.open(path, _FOLDER, dir_fd=above)
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(folder)
        raise PermissionError(f"{path} belongs to another user, or others have access to it")
    return folder


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _network() -> str:
    """Return a name for the network namespace: containers with the same files may have their own ports."""
    try:
        return str(Path("/proc/self/ns/net").stat().st_ino)
    except OSError:  # not Linux
        return ""
