"""HTTP/1.1 on a socket: uvicorn's protocol, with the limits it does not have, and one write per response.

uvicorn waits without end for a caller that sends its headers byte by byte, or nothing at all, and takes headers of any
size. It also writes head and body of a response in two system calls, which cost as much as a delegate does.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_TIMEOUT: Final = 10.0
"""Seconds in which a request's headers must be complete."""
BODY_TIMEOUT: Final = 60.0
"""Seconds that a caller may pause within a body."""
MAX_HEADER_BYTES: Final = 64 * 1024
"""Request line and headers together."""
_BUFFERED: Final = 64 * 1024
_TIMED_OUT: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class LimitedProtocol(HttpToolsProtocol):
    """`HttpToolsProtocol` with deadlines for what a caller sends, and a limit for its headers."""

    _timer: asyncio.TimerHandle | None = None
    _in_headers = True
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(OneWrite(transport, self.loop))  # type: ignore[arg-type]
        self._wait(HEADER_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Note that headers follow. Called by the parser."""
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0

    def on_headers_complete(self) -> None:
        """Note that the headers are there. Called by the parser."""
        self._in_headers = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent, and see to it that the rest follows in time."""
        was_in_headers = self._in_headers
        super().data_received(data)
        if self._in_headers:
            if was_in_headers:
                self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(_TOO_LARGE)
            else:
                self._wait(HEADER_TIMEOUT)
            return
        self._stop_timer()
        if self._answering():
            if self.cycle.more_body:
                self._wait(BODY_TIMEOUT)
        elif self.timeout_keep_alive_task is None:
            self._wait(HEADER_TIMEOUT)  # empty lines between requests keep no connection open

    def _wait(self, seconds: float) -> None:
        # Headers have one deadline for all of them: a byte now and then must not move it.
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._answering():
            # Closed without an answer: the delegate that reads the body sees its caller gone.
            if self.cycle.more_body:
                self.transport.close()
        else:
            self._refuse(_TIMED_OUT)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            if not self._answering():  # else it would end up within the response under way
                self.transport.write(answer)
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class OneWrite:
    """A transport that gathers what is written in one turn of the event loop, up to 64 KiB, into one system call.

    Args:
        transport: The transport.
        loop: Its event loop.
    """

    __slots__ = ("_loop", "_pieces", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Send `data` at the end of this turn, or now if there is much: then the transport's own limit holds."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _BUFFERED:
            self._flush()

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces, self._size = [], 0
            self._transport.write(data)

    def close(self) -> None:
        """Send what was written, then close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether it is closed or about to be."""
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
