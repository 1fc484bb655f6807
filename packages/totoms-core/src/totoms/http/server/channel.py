"""The transport of a connection, its state, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Any, ClassVar, Final, Self, cast

from uvicorn.server import ServerState

from totoms.declaration.server import ServerConfiguration
from totoms.http.server.connections import MAX_BODY_BYTES, Connections
from totoms.http.server.deadlines import Timed
from totoms.http.server.outbox import Outbox
from totoms.http.server.response_heads import error_response
from totoms.http.server.states import CLOSED, CLOSING, HEAD, IDLE, RULES, Ending

_LINGER: Final = "hh" if sys.platform == "win32" else "ii"


class Channel(Timed):
    """A transport with a state.

    Args:
        loop: The event loop; its clock is used for deadlines.
        server_state: uvicorn's record of open connections and running requests.
    """

    shared: ClassVar[Connections] = Connections(ServerConfiguration(), MAX_BODY_BYTES)
    """State shared by all connections of a server; `for_server` returns a class with its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server_state: ServerState) -> None:
        super().__init__(loop, self.shared.deadlines)
        self._server_state = server_state
        self._transport: asyncio.Transport
        self._outbox: Outbox
        self._reading = True

    @classmethod
    def for_server(cls, limits: ServerConfiguration, max_body_bytes: int = MAX_BODY_BYTES) -> type[Self]:
        """Return a subclass for one server.

        Args:
            limits: The server's limits.
            max_body_bytes: The application's limit for request bodies.
        """
        shared = {"shared": Connections(limits, max_body_bytes), "__module__": cls.__module__}
        return cast("type[Self]", type(cls.__name__, (cls,), shared))

    def _open(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._outbox = Outbox(transport, self._loop)

    @property
    def _ended(self) -> bool:
        return self.state >= CLOSING

    def _pause(self) -> None:
        """Stop reading."""
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Read again, unless the connection has ended."""
        if not self._reading and not self._ended:
            self._reading = True
            self._transport.resume_reading()

    def close(self) -> None:
        """Send the pending data, then close."""
        self.shared.discard_ends(self)
        if not self._ended:
            self._outbox.close()
            self._enter(CLOSING)
            self._transport.close()

    def reset(self) -> None:
        """Close at once; drop pending data here and in the kernel."""
        self.shared.discard_ends(self)
        if self.state is not CLOSED:
            if self.state is not IDLE and self.state is not HEAD:
                _reset_on_close(self._transport.get_extra_info("socket"))
            self._outbox.drop()
            self._enter(CLOSED)
            self._transport.abort()

    def _on_deadline(self) -> None:
        ending = RULES[self.state].ending
        if ending is Ending.ANSWER_408:
            self._outbox.write(error_response(408, "Request Timeout", self._server_state.default_headers))
            self.close()
        elif ending is Ending.RESET:
            self.reset()
        else:
            self.close()

    def _count_delivered(self) -> int:
        # The size of the buffer alone is not enough: it may grow in this state, by the rest of a large message.
        pending = self._transport.get_write_buffer_size() + unacknowledged(self._transport.get_extra_info("socket"))
        return self._outbox.written - pending


def _reset_on_close(connection: Any) -> None:
    """Make close() send a reset, so that the kernel drops its send buffer (SO_LINGER in socket(7))."""
    if connection is not None:
        with contextlib.suppress(OSError, ValueError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))


def unacknowledged(connection: Any) -> int:
    """Return how many sent bytes the client has not acknowledged (SIOCOUTQ in tcp(7)); 0 where that is unknown.

    The kernel buffers megabytes and takes more only when a third of them is free. Without this count, a client that
    reads slowly but steadily would look stalled for a minute.
    """
    if connection is None or sys.platform != "linux":
        return 0
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # closed
        return 0
