"""`ResumingDownload`: what a broken connection, a replaced version and the end of a file mean for the chunks."""

from __future__ import annotations

import io

import pytest

from totoms.errors import BackendError, CorruptData, NotFound, Unavailable
from totoms.plugin import ResumingDownload

CONTENT = bytes(range(256)) * 40


class PastEnd(Exception):
    """The storage's error for a range beyond the end."""


class Body(io.BytesIO):
    """An answer that breaks off after some bytes."""

    def __init__(self, content: bytes, whole: bool) -> None:
        super().__init__(content)
        self.whole = whole

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(min(size or 0, 1000))
        if not found and not self.whole:
            raise ConnectionResetError
        return found


class Storage:
    """A file, and how many bytes each answer brings before it breaks off."""

    def __init__(self, *breaks: int) -> None:
        self.content, self.version, self.breaks = CONTENT, "1", list(breaks)
        self.bodies: list[Body] = []
        self.ranges: list[str] = []


class Download(ResumingDownload):
    broken = (OSError,)

    def __init__(self, storage: Storage, start: int = 0, length: int | None = None) -> None:
        self.storage = storage
        super().__init__(start, length)

    def _open(self) -> None:
        storage = self.storage
        storage.ranges.append(self.byte_range)
        if self.version not in ("", storage.version):
            raise FileNotFoundError
        if self.position >= len(storage.content):
            raise PastEnd
        rest = storage.content[self.position : self.end]
        most = storage.breaks.pop(0) if storage.breaks else len(rest)
        self.body, self.version = Body(rest[:most], most >= len(rest)), storage.version
        storage.bodies.append(self.body)

    def _read(self, size: int) -> bytes:
        chunk: bytes = self.body.read(size)
        return chunk

    def _finish(self) -> None:
        if self.storage.content != CONTENT:
            raise CorruptData("damaged")

    def _is_past_end(self, error: Exception) -> bool:
        return isinstance(error, PastEnd)

    def _translate(self, error: Exception, *, resuming: bool = False) -> BackendError:
        if isinstance(error, FileNotFoundError):
            return Unavailable("replaced") if resuming else NotFound("missing")
        return Unavailable("broken")


@pytest.mark.parametrize(("start", "length"), [(0, None), (0, 3000), (2500, None), (2500, 3000)])
@pytest.mark.parametrize("breaks", [(), (1500,), (1500, 1, 2000)])
def test_chunks_are_the_wanted_bytes_however_often_the_connection_breaks(
    start: int, length: int | None, breaks: tuple[int, ...]
) -> None:
    storage = Storage(*breaks)
    download = Download(storage, start, length)

    assert b"".join(download) == CONTENT[start : None if length is None else start + length]
    assert all(body.closed for body in storage.bodies)


def test_only_the_rest_is_requested_again() -> None:
    storage = Storage(1500)

    assert b"".join(Download(storage, 100, 5000)) == CONTENT[100:5100]
    assert storage.ranges == ["bytes=100-5099", "bytes=1600-5099"]


def test_whole_file_is_requested_without_a_range() -> None:
    assert Download(Storage()).storage.ranges == [""]


def test_start_beyond_the_end_has_no_chunks() -> None:
    assert list(Download(Storage(), len(CONTENT))) == []


def test_version_that_was_replaced_is_unavailable_and_never_mixed_with_another() -> None:
    storage = Storage(1500)
    download = Download(storage)
    assert next(download) == CONTENT[:1000]

    storage.version = "2"

    assert next(download) == CONTENT[1000:1500]
    with pytest.raises(Unavailable, match="replaced"):
        next(download)


def test_storage_that_sends_no_byte_is_asked_a_few_times_only() -> None:
    storage = Storage(500, *[0] * 100)

    with pytest.raises(Unavailable, match="broken"):
        list(Download(storage))

    assert len(storage.ranges) == 4


def test_connection_that_breaks_after_each_piece_is_resumed_for_as_long_as_bytes_come() -> None:
    storage = Storage(*[1000] * 100)

    assert b"".join(Download(storage)) == CONTENT


def test_missing_file_is_reported_at_once() -> None:
    storage = Storage()

    class Missing(Download):
        def _open(self) -> None:
            raise FileNotFoundError

    with pytest.raises(NotFound):
        Missing(storage)


def test_damage_is_reported_after_the_last_chunk() -> None:
    storage = Storage()
    storage.content = CONTENT[:-1] + b"?"
    download = Download(storage)

    with pytest.raises(CorruptData):
        list(download)

    assert list(download) == []
