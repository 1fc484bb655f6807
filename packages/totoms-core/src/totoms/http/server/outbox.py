"""The write buffer of a connection."""

from __future__ import annotations

import asyncio
from typing import Final

_MAX_BUFFERED: Final = 64 * 1024


class Outbox:
    """Buffers what is written in one turn of the event loop, so that a response's head and body are one system call.

    A second call would cost as much as a small delegate.

    Args:
        transport: The transport.
        loop: Its event loop.

    Attributes:
        blocked: Whether the transport's buffer is full.
        written: Bytes given to the transport so far.
    """

    __slots__ = ("_closed", "_loop", "_pieces", "_size", "_transport", "_writable", "blocked", "written")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0
        self.written = 0
        self.blocked = False
        self._closed = False
        self._writable: asyncio.Event | None = None

    def write(self, data: bytes) -> None:
        """Send `data` at the end of this turn; at once if more than 64 KiB are buffered."""
        if self._closed:
            return
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MAX_BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Send the buffered data."""
        pieces = self._pieces
        if not pieces:
            return
        if self._size <= _MAX_BUFFERED:
            pieces = [b"".join(pieces)]  # joining larger ones would double their memory
        self._pieces, self._size = [], 0
        for piece in pieces:
            self.written += len(piece)
            self._transport.write(piece)

    def close(self) -> None:
        """Send the buffered data and ignore later writes."""
        self.flush()
        self._closed = True

    def drop(self) -> None:
        """Drop the buffered data and ignore later writes."""
        self._pieces, self._size = [], 0
        self._closed = True

    def block(self) -> None:
        """Make `writable` wait."""
        self.blocked = True

    def unblock(self) -> None:
        """End the wait."""
        self.blocked = False
        if self._writable is not None:
            self._writable.set()

    async def writable(self) -> None:
        """Wait until the transport accepts more data."""
        while self.blocked:
            if self._writable is None:
                self._writable = asyncio.Event()
            self._writable.clear()
            await self._writable.wait()
