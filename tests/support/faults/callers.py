"""Callers of ``service.py`` that keep their connections for a minute, in a process of their own.

``python callers.py KIND NUMBER PORT TOKEN``; prints "begun" when all have sent their requests, and for each
caller, when its connection ended or its time was over, "ended KIND SECONDS WHAT".

- ``deaf``: ask for a large answer and read nothing of it;
- ``slow``: ask for it and read three bytes a second;
- ``idle``: open a WebSocket, say nothing for `SECONDS`, then have one message echoed;
- ``busy``: open a WebSocket and have ten messages a second echoed;
- ``paused``: send a body at once that the delegate reads after `SECONDS`;
- ``late``: send half of a body, and the rest `LATE` seconds later.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Event, Ping, Request, TextMessage

SECONDS = 60.0
LATE = 50.0
BODY = b"x" * 1_000_000
_KIND, _NUMBER, _PORT, _TOKEN = sys.argv[1:]
_HEADERS = f"host: localhost\r\nauthorization: {_TOKEN}\r\n".encode()
_begun: asyncio.Queue[None] = asyncio.Queue()


async def connect(request: bytes) -> socket.socket:
    """Open a connection whose receive buffer is small, and send."""
    loop = asyncio.get_running_loop()
    caller = socket.socket()
    caller.setblocking(False)
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(caller, ("127.0.0.1", int(_PORT)))
    await loop.sock_sendall(caller, request)
    _begun.put_nowait(None)
    return caller


async def read_slowly(piece: int) -> str:
    """Ask for a large answer and read `piece` bytes of it a second until the connection ends."""
    loop = asyncio.get_running_loop()
    with await connect(b"GET /large HTTP/1.1\r\n" + _HEADERS + b"\r\n") as caller:
        while True:
            await asyncio.sleep(1)
            if caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return "reset"
            if piece and not await loop.sock_recv(caller, piece):
                return "closed"


async def send_body(path: str, pause: float) -> str:
    """Send a body in two halves, `pause` seconds apart; return the status and what the delegate counted."""
    loop = asyncio.get_running_loop()
    head = b"POST " + path.encode() + b" HTTP/1.1\r\n" + _HEADERS + b"connection: close\r\n"
    half = len(BODY) // 2
    with await connect(head + b"content-length: %d\r\n\r\n" % len(BODY)) as caller:
        await loop.sock_sendall(caller, BODY[:half])
        await asyncio.sleep(pause)
        await loop.sock_sendall(caller, BODY[half:])
        answer = b""
        while piece := await loop.sock_recv(caller, 65536):
            answer += piece
    head, _, counted = answer.decode().partition("\r\n\r\n")
    return f"{head.split(' ')[1]} {counted}"


class WebSocket:
    """A WebSocket whose messages are echoed."""

    def __init__(self, caller: socket.socket) -> None:
        self._caller = caller
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._heard: asyncio.Queue[Event] = asyncio.Queue()

    async def open(self) -> None:
        """Shake hands."""
        headers = [(b"authorization", _TOKEN.encode())]
        await self._send(Request(host="localhost", target="/echo", extra_headers=headers))
        self._reading = asyncio.create_task(self._read())
        await self._expect(AcceptConnection())

    async def echo(self, text: str) -> None:
        """Send a text and wait for its echo."""
        await self._send(TextMessage(text))
        await self._expect(TextMessage(text))

    def close(self) -> None:
        """Stop reading."""
        self._reading.cancel()

    async def _expect(self, event: Event) -> None:
        heard = await self._heard.get()
        if type(heard) is not type(event) or getattr(heard, "data", None) != getattr(event, "data", None):
            raise ConnectionError(f"{heard} came instead of {event}")

    async def _read(self) -> None:
        """Answer pings, and keep what else comes: a caller who says nothing must answer them as well."""
        while True:
            received = await asyncio.get_running_loop().sock_recv(self._caller, 65536)
            self._protocol.receive_data(received or None)
            for event in self._protocol.events():
                if isinstance(event, Ping):
                    await self._send(event.response())
                else:
                    self._heard.put_nowait(event)
            if not received:
                return

    async def _send(self, event: Event) -> None:
        await asyncio.get_running_loop().sock_sendall(self._caller, self._protocol.send(event))


async def keep_websocket(pause: float) -> str:
    """Keep a WebSocket for `SECONDS`, with an echo each `pause` seconds."""
    ends = time.monotonic() + SECONDS
    with await connect(b"") as caller:
        web_socket = WebSocket(caller)
        await web_socket.open()
        count = 0
        while time.monotonic() < ends:
            await asyncio.sleep(pause)
            await web_socket.echo(f"number {count}")
            count += 1
        web_socket.close()
    return f"{count} echoed"


KINDS: dict[str, Callable[[], Awaitable[str]]] = {
    "deaf": lambda: read_slowly(0),
    "slow": lambda: read_slowly(3),
    "idle": lambda: keep_websocket(SECONDS),
    "busy": lambda: keep_websocket(0.1),
    "paused": lambda: send_body(f"/count?seconds={SECONDS:g}", 0),
    "late": lambda: send_body("/count", LATE),
}


async def keep(kind: str) -> None:
    """Be one caller."""
    began = time.monotonic()
    try:
        what = await KINDS[kind]()
    except OSError as error:
        what = f"{type(error).__name__}: {error}"
    print(f"ended {kind} {time.monotonic() - began:.1f} {what}", flush=True)


async def main() -> None:
    """Be all of them."""
    callers = [asyncio.create_task(keep(_KIND)) for _ in range(int(_NUMBER))]
    for _ in callers:
        await _begun.get()
    print("begun", flush=True)
    await asyncio.gather(*callers)


if __name__ == "__main__":
    asyncio.run(main())
