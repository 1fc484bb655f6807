"""A service on a real socket, in a thread of its own, and callers that write bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from support.http.app import KEY, Service
from totoms import ServerConfiguration
from totoms.auth.tokens import make_token
from totoms.http.server.server import uvicorn_config

TOKEN = make_token(KEY, "me", 3600)
AUTHORIZED = f"host: test\r\nauthorization: Bearer {TOKEN}\r\n".encode()
DEADLINE = 120.0


class Running:
    """A service on a port.

    Args:
        service: The service, or any ASGI app.
        limits: The server's limits.
        max_body_bytes: The limit for bodies that the server is told.
        options: Further options of `uvicorn.Config`, set on it.
    """

    def __init__(
        self,
        service: Service | Any,
        limits: ServerConfiguration | None = None,
        *,
        host: str = "127.0.0.1",
        max_body_bytes: int = 100_000,
        **options: Any,
    ) -> None:
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        app = service.app if isinstance(service, Service) else service
        config = uvicorn_config(app, 1, limits, max_body_bytes)
        for name, value in options.items():
            setattr(config, name, value)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(DEADLINE)
        self.listener.close()

    @contextmanager
    def serving(self) -> Iterator[Running]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE)

    def send(self, *pieces: bytes) -> bytes:
        """Send, and return all that comes until the server closes the connection."""
        with self.connect() as caller:
            for piece in pieces:
                caller.sendall(piece)
            return read_all(caller)


def read_all(caller: socket.socket) -> bytes:
    received = b""
    while True:
        try:
            piece = caller.recv(65536)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece


def read_answer(caller: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer with a content length, and no byte more."""
    with_head = b""
    while b"\r\n\r\n" not in with_head:
        piece = caller.recv(1)
        assert piece, with_head
        with_head += piece
    head, _, body = with_head.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    while missing := int(headers["content-length"]) - len(body):
        body += caller.recv(missing)
    return int(first.split()[1]), headers, body


def status(answer: bytes) -> int:
    """Return the status of the first answer in `answer`."""
    return int(answer.split(b" ", 2)[1])
