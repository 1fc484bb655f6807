"""An HTTP connection without a socket, and time that passes when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from totoms import ServerConfiguration
from totoms.http.server.protocol import HTTPProtocol
from totoms.http.server.states import State


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """The running event loop with a time of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = 1000.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(when, callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    async def pass_(self, seconds: float) -> None:
        """Let time pass, with what happens meanwhile."""
        until = self._now + seconds
        await settle()
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            if not timer.cancelled:
                timer.callback()
            await settle()
        self._now = until

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


class Transport(asyncio.Transport):
    """Keeps what is written; `untaken` is what the caller has not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.untaken = 0
        self.reading = True
        self.ended = self.closed = self.aborted = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True
        if not self.untaken and self.protocol is not None:
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.aborted = True
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self) -> None:
        if self.protocol is not None:
            protocol, self.protocol = self.protocol, None
            protocol.connection_lost(None)

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return self.untaken

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)}.get(name, default)


class Line:
    """A server without sockets: `connect` opens a connection.

    Args:
        app: The ASGI app.
        limits: Fields of `ServerConfiguration`.
        max_body_bytes: The app's limit.
    """

    def __init__(self, app: Any, *, max_body_bytes: int = 100_000, **limits: Any) -> None:
        self.clock = Clock()
        self.state = ServerState()
        self.kind = HTTPProtocol.for_server(ServerConfiguration(**limits), max_body_bytes)
        self.config = uvicorn.Config(app, http=self.kind, lifespan="off", log_config=None)
        self.config.load()

    def connect(self) -> Caller:
        return Caller(self)


class Caller:
    """A connection, seen from both ends."""

    def __init__(self, line: Line) -> None:
        self.clock = line.clock
        self.transport = Transport()
        self.protocol = line.kind(line.config, line.state, {}, line.clock)  # type: ignore[arg-type]
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    @property
    def state(self) -> State:
        return self.protocol.state

    @property
    def gone(self) -> bool:
        return self.transport.closed or self.transport.aborted

    async def send(self, data: bytes) -> None:
        if not self.gone:
            self.transport.protocol.data_received(data)
        await settle()

    async def take(self, untaken: int) -> None:
        """Let the caller take all that was written but `untaken` bytes."""
        self.transport.untaken = untaken
        if not untaken and self.transport.protocol is not None:
            self.protocol.resume_writing()
        await settle()

    async def refuse_to_take(self, untaken: int = 1_000_000) -> None:
        self.transport.untaken = untaken
        self.protocol.pause_writing()
        await settle()
