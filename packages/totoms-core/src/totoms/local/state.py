"""What lies beside the database and tells whether it is whole: never a silent, empty queue.

SQLite recovers from a crash by itself, and that is the danger: a database that was deleted is made anew, and a log
(``-wal``) that was cut or damaged is replayed up to the damage, both without a word. So ``bus.state`` keeps what
SQLite cannot know:

- *clean*: all was closed well, the log is merged. Size and SHA-256 of the database must be as noted.
- *open*: somebody uses it, or died doing so. Every commit raises a number in the database; after the commit it is
  noted here. The file is mapped, so that costs no write, and a killed process loses none of it. Whoever opens next
  must find at least that number in the database; if not, committed messages are gone. A power cut may lose notes,
  never commits: then the number found is higher, which is fine.
- *creating*: died before the first commit; what is there is begun anew.
"""

from __future__ import annotations

import binascii
import hashlib
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Final, Literal

from totoms.errors import CorruptData

Status = Literal["creating", "open", "clean"]

_STATUSES: Final[tuple[Status, ...]] = ("creating", "open", "clean")
_MAGIC: Final = b"totomsB1"
_LAYOUT: Final = struct.Struct("<8sQ16sQQ32sI")  # magic, commits, identity, status, size, sha256, crc of the last four
_COMMITS: Final = struct.Struct("<Q")
_COMMITS_OFFSET: Final = 8
_MOST_COMMITS: Final = (1 << 48) - 1


class StateFile:
    """The file, mapped. Only one process at a time may call anything but :meth:`note_commit`.

    Args:
        path: Where it lies.

    Attributes:
        identity: Random, also in the database: tells that both belong together.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self.identity = b""

    def exists(self) -> bool:
        """Whether there is such a file."""
        return self._path.exists()

    def create(self) -> None:
        """Make it, durably, with status *creating*."""
        self.identity = os.urandom(16)
        # Written aside and moved into place: who is killed here leaves no half of it.
        new = self._path.with_name(f"{self._path.name}-new")
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, self._pack("creating", 0, bytes(32), 0), 0)
            os.fsync(file)
        finally:
            os.close(file)
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def load(self) -> Status:
        """Map it and return the status.

        Raises:
            CorruptData: It is damaged.
        """
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise self.damaged("is missing") from None
        try:
            if os.fstat(file).st_size != _LAYOUT.size:
                raise self.damaged("has the wrong size")
            self._map = mmap.mmap(file, _LAYOUT.size)
        finally:
            os.close(file)
        magic, commits, self.identity, status, size, digest, crc = _LAYOUT.unpack(self._map[:])
        if magic != _MAGIC or commits != _checked(commits & _MOST_COMMITS):
            raise self.damaged("is damaged")
        if crc != _crc(self.identity, status, size, digest) or status >= len(_STATUSES):
            raise self.damaged("is damaged")
        known: Status = _STATUSES[status]
        return known

    @property
    def commits(self) -> int:
        """The number of the last commit that was noted."""
        assert self._map is not None
        number: int = _COMMITS.unpack_from(self._map, _COMMITS_OFFSET)[0]
        return number & _MOST_COMMITS

    def note_commit(self, number: int) -> None:
        """Note that commit `number` is durable. No write, no flush: the mapping outlives the process."""
        # Several processes note; the lower of two must not win. One assignment of eight aligned bytes is never torn.
        if self._map is not None and number > self.commits:
            self._map[_COMMITS_OFFSET : _COMMITS_OFFSET + _COMMITS.size] = _COMMITS.pack(_checked(number))

    def set_open(self, commits: int) -> None:
        """Note, durably, that the database is in use."""
        self._write("open", 0, bytes(32), commits)

    def set_clean(self, database: Path, commits: int) -> None:
        """Note, durably, that all is closed well, and what the database must look like when it is opened next."""
        self._write("clean", database.stat().st_size, digest_of(database), commits)

    def is_as_noted(self, database: Path) -> bool:
        """Whether the database is byte for byte what :meth:`set_clean` saw."""
        assert self._map is not None
        _, _, _, _, size, digest, _ = _LAYOUT.unpack(self._map[:])
        return bool(database.stat().st_size == size) and digest_of(database) == digest

    def close(self) -> None:
        """Unmap it."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def damaged(self, how: str) -> CorruptData:
        """Return the error that says `how` the file is damaged."""
        return CorruptData(f"{self._path} {how}: the messages beside it cannot be trusted.", resource=str(self._path))

    def _write(self, status: Status, size: int, digest: bytes, commits: int) -> None:
        assert self._map is not None
        self._map[:] = self._pack(status, size, digest, commits)
        self._map.flush()

    def _pack(self, status: Status, size: int, digest: bytes, commits: int) -> bytes:
        number = _STATUSES.index(status)
        crc = _crc(self.identity, number, size, digest)
        return _LAYOUT.pack(_MAGIC, _checked(commits), self.identity, number, size, digest, crc)


def digest_of(path: Path) -> bytes:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _checked(commits: int) -> int:
    # The number changes alone, so it carries a checksum of its own, in its upper 16 bits.
    return commits | binascii.crc_hqx(commits.to_bytes(6, "little"), 0xFFFF) << 48


def _crc(identity: bytes, status: int, size: int, digest: bytes) -> int:
    return zlib.crc32(struct.pack("<16sQQ32s", identity, status, size, digest))
