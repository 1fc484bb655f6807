"""Downloads that continue where a broken connection stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from totoms.errors import BackendError

_CHUNK: Final = 1024 * 1024
_MAX_RESUMES: Final = 3
"""How often the rest is requested in a row without a byte coming."""


class ResumingDownload(ABC, Iterator[bytes]):
    """The chunks of one version of a file. When the connection breaks, the rest of that version is requested.

    A backend implements the methods with an underscore, sets its own attributes, and then calls ``__init__``.

    Args:
        start: The first byte.
        length: How many bytes at most; None for all.

    Attributes:
        position: The next byte.
        end: The byte after the last one; None if it is unknown.
        version: What the storage calls the version that is read; "" before `_open`, or if it gives none. Without it
            nothing is resumed.
        body: The answer that is being read: has `close`. None if there is nothing more to read.

    Raises:
        BackendError: The file cannot be read.
    """

    broken: ClassVar[tuple[type[Exception], ...]]
    """What `_read` raises when the connection breaks."""

    def __init__(self, start: int, length: int | None) -> None:
        self.position = start
        self.end = None if length is None else start + length
        self.version = ""
        self.body: Any = None
        self._failures = 0
        try:
            self._open()
        except Exception as error:
            if not self._is_past_end(error):
                raise self._translate(error) from error

    def __next__(self) -> bytes:
        while self.body is not None:
            try:
                chunk = self._read(_CHUNK)
            except self.broken as error:
                self._resume(error)
                continue
            if chunk:
                self.position += len(chunk)
                self._failures = 0
                return chunk
            self.close()
            self._finish()
        raise StopIteration

    def close(self) -> None:
        """Return the connection to its pool, or close it if the answer was not read to its end."""
        if self.body is not None:
            self.body.close()
            self.body = None

    @property
    def byte_range(self) -> str:
        """The value of the header ``Range`` for what is still to be read; "" for the whole file."""
        if not self.position and self.end is None:
            return ""
        return f"bytes={self.position}-{'' if self.end is None else self.end - 1}"

    def _resume(self, error: Exception) -> None:
        self.close()
        self._failures += 1
        if self._failures > _MAX_RESUMES or not self.version or self.position == self.end:
            raise self._translate(error) from error
        try:
            self._open()
        except Exception as failure:
            raise self._translate(failure, resuming=True) from failure

    # --- implemented by a backend ---

    @abstractmethod
    def _open(self) -> None:
        """Request `byte_range` of the file, of `version` if it is set; set `body` and `version`."""

    @abstractmethod
    def _read(self, size: int) -> bytes:
        """Return up to `size` bytes of `body`; none at its end."""

    @abstractmethod
    def _is_past_end(self, error: Exception) -> bool:
        """Return whether `_open` failed because the file ends before `position`: then there are no chunks."""

    @abstractmethod
    def _translate(self, error: Exception, *, resuming: bool = False) -> BackendError:
        """Return the error of totoms; with `resuming`, `Unavailable` if the version no longer exists."""

    def _finish(self) -> None:
        """Check what was read, after the last chunk. Raises `CorruptData`."""
