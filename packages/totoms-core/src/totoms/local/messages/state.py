"""The state file of the local bus, by which a lost or damaged database is an error and not an empty queue.

SQLite recovers from a crash without a word: it creates a database that was deleted, and replays a truncated or damaged
log (``-wal``) up to the damage. So ``bus.state`` records what SQLite cannot know:

- *clean*: the last process closed the database after a checkpoint. Its size and SHA-256 must be the recorded ones.
- *open*: processes use it, or died while they did. Every commit increases a number in the database, and then that
  number is recorded here: in mapped memory, so it costs no write and survives a killed process. The next process to
  open the database must find at least this number; otherwise committed messages are lost. A power cut may lose the
  record but not the commit, and then the database has a higher number, which is fine.
- *creating*: the process died before the first commit. The next one starts over.
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
    """The mapped file. Only one process at a time may call methods other than :meth:`note_commit`.

    Args:
        path: The path of the file.

    Attributes:
        identity: A random value that the database stores too, to recognise a database of another folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self.identity = b""

    def exists(self) -> bool:
        """Return whether the file exists."""
        return self._path.exists()

    def create(self) -> None:
        """Create the file durably, with the status *creating*."""
        self.identity = os.urandom(16)
        # Written to a temporary file and renamed, so that a killed process does not leave half a file.
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
        """Map the file and return its status.

        Raises:
            CorruptData: The file is missing or damaged.
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
        """The number of the last recorded commit."""
        assert self._map is not None
        number: int = _COMMITS.unpack_from(self._map, _COMMITS_OFFSET)[0]
        return number & _MOST_COMMITS

    def note_commit(self, number: int) -> None:
        """Record that commit `number` is durable. This writes no file: mapped memory outlives a killed process."""
        # Several processes record theirs, and the highest must win. A write of eight aligned bytes is atomic.
        if self._map is not None and number > self.commits:
            self._map[_COMMITS_OFFSET : _COMMITS_OFFSET + _COMMITS.size] = _COMMITS.pack(_checked(number))

    def set_open(self, commits: int) -> None:
        """Record durably that the database is in use."""
        self._write("open", 0, bytes(32), commits)

    def set_clean(self, database: Path, commits: int) -> None:
        """Record durably that the database was closed, with its size and SHA-256."""
        self._write("clean", database.stat().st_size, digest_of(database), commits)

    def matches(self, database: Path) -> bool:
        """Return whether the database is byte for byte the one that :meth:`set_clean` recorded."""
        assert self._map is not None
        _, _, _, _, size, digest, _ = _LAYOUT.unpack(self._map[:])
        return bool(database.stat().st_size == size) and digest_of(database) == digest

    def close(self) -> None:
        """Unmap the file."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def damaged(self, how: str) -> CorruptData:
        """Return the error for a damaged file; `how` ends the sentence that its path begins."""
        return CorruptData(f"{self._path} {how}: cannot trust the messages next to it.", resource=str(self._path))

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
    # The number is written alone, so it has its own checksum, in its upper 16 bits.
    return commits | binascii.crc_hqx(commits.to_bytes(6, "little"), 0xFFFF) << 48


def _crc(identity: bytes, status: int, size: int, digest: bytes) -> int:
    return zlib.crc32(struct.pack("<16sQQ32s", identity, status, size, digest))
