"""The framing of request bodies: by Content-Length or chunked (RFC 9112, sections 6 and 7)."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from totoms.http.server.request_heads import Rejected

_TEXT: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;" + _TEXT + rb")?\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:" + _TEXT + rb"\r\n")
_END: Final = b"\r\n"


class SizedBody:
    """A body with a Content-Length.

    Args:
        length: The length in bytes.

    Attributes:
        complete: Whether the whole body was fed.
    """

    __slots__ = ("_left", "complete")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = not length

    def feed(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Read the body from `data`, starting at `at`.

        Returns:
            The bytes of the body, and the position in `data` after them.
        """
        piece = data[at : at + self._left] if at or self._left < len(data) else data
        self._left -= len(piece)
        self.complete = not self._left
        return piece, at + len(piece)


_NO_BODY: Final = SizedBody(0)  # most requests have none; one object for all, because nothing is ever fed to it


def sized_body(length: int) -> SizedBody:
    """Return the body of a request with this Content-Length, in bytes."""
    return SizedBody(length) if length else _NO_BODY


class _Part(Enum):
    SIZE = 1
    DATA = 2
    AFTER_DATA = 3
    TRAILER = 4


class ChunkedBody:
    """A chunked body. Trailers are validated and dropped: they must not become headers (RFC 9110, section 6.5.1).

    Args:
        budget: The limit in bytes for trailers, chunk extensions, and chunk framing beyond twice the data. It limits
            the work that a client can cause with tiny chunks.

    Attributes:
        complete: Whether the whole body, with its trailers, was fed.
    """

    __slots__ = ("_budget", "_left", "_line", "_part", "complete")

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._part = _Part.SIZE
        self._left = 0
        self._line = b""
        self.complete = False

    def feed(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Read the body from `data`, starting at `at`.

        Returns:
            The bytes of the body without framing, and the position in `data` after the last byte read.

        Raises:
            Rejected: 400 for malformed framing, 431 for framing over the limit.
        """
        pieces = []
        while at < len(data) and not self.complete:
            if self._part is _Part.DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = _Part.AFTER_DATA
                continue
            newline = data.find(b"\n", at)
            if newline < 0:
                self._keep(data[at:])
                at = len(data)
                break
            line = self._line + data[at : newline + 1]
            self._line = b""
            at = newline + 1
            self._read_line(line)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0], at

    def _read_line(self, line: bytes) -> None:
        if self._part is _Part.AFTER_DATA:
            if line != _END:
                raise Rejected(400, "A chunk is longer than its size")
            self._part = _Part.SIZE
        elif self._part is _Part.SIZE:
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise Rejected(400, "The size of a chunk is malformed")
            size = self._left = int(found[1], 16)
            self._part = _Part.DATA if size else _Part.TRAILER
            excess = len(line) + 2 - 2 * size
            if excess > 0:
                self._spend(excess)
        elif line == _END:
            self.complete = True
        elif not _TRAILER.fullmatch(line):
            raise Rejected(400, "A trailer is malformed")
        else:
            self._spend(len(line))

    def _keep(self, rest: bytes) -> None:
        """Keep an incomplete line."""
        self._line += rest
        if self._part is _Part.AFTER_DATA and self._line != _END[:1]:
            raise Rejected(400, "A chunk is longer than its size")
        if len(self._line) > self._budget:
            raise Rejected(431, "Trailers or chunk extensions are too large")

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise Rejected(431, "Trailers or chunk extensions are too large")


Body = SizedBody | ChunkedBody
