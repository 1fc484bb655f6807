"""uvicorn's server with a protocol, signal handling, an exit status and a socket of our own."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from totoms.declaration.server import ServerConfiguration
from totoms.errors import ConfigurationError
from totoms.http import private_api
from totoms.http.server.connections import MAX_BODY_BYTES
from totoms.logging.setup import flush_logging

_WAITING: Final = 2048
"""Connections that may wait to be accepted."""
_ACCEPTED: Final = 4
"""Connections that asyncio's event loop accepts in one turn: it takes uvicorn's `backlog` for that.

A connection is known, and can be closed to make room, three turns after it was accepted. With more, a flood uses up all
file descriptors before that; asyncio then stops accepting for a second, again and again.
"""


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once.

    Args:
        config: uvicorn's configuration.
        on_signal: Called once, from the signal handler. It must make sure that `should_exit` gets set.
    """

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_signal = on_signal
        self._signalled = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections. Clients wait in a queue that is longer than what is accepted in one turn."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_WAITING)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to drain; on a second signal take its default action, which ends the process."""
        if self._signalled or self.should_exit:
            flush_logging()
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
            return
        self._signalled = True
        self._on_signal()

    def wind_down(self) -> None:
        """Close each connection with its next response."""
        shared = getattr(self.config.http, "shared", None)
        if shared is not None:
            shared.winding_down = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals while serving.

        uvicorn raises the signal again afterwards. Here a drained server ends with exit status 0, and SIGINT raises no
        KeyboardInterrupt.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        original = {sig: signal.signal(sig, self.handle_exit) for sig in signals}
        try:
            yield
        finally:
            for sig, handler in original.items():
                signal.signal(sig, handler)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Call it first, so that a port in use is reported before anything starts.

    Args:
        host: A name or address of this machine.
        port: The TCP port; 0 for a free one.

    Raises:
        ConfigurationError: The port is invalid, in use or needs privileges, or the host is not an address of this
            machine.
    """
    if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65,536
        raise ConfigurationError(f"Cannot listen on port {port}: a port is a number from 0 to 65535.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigurationError(f"Cannot listen on {host} port {port}: the host has no address.") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6 and host in ("", "::"):  # IPv4 too, whatever the system's default is
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if os.name != "nt":  # on Windows the option lets two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_WAITING)
    except OSError as error:
        listener.close()
        why = "the port is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        raise ConfigurationError(f"Cannot listen on {host} port {port}: {why}.") from error
    listener.setblocking(False)
    return listener


def http_protocol(limits: ServerConfiguration | None = None, max_body_bytes: int = MAX_BODY_BYTES) -> Any:
    """Return the value of uvicorn's ``http=``: our protocol with these limits.

    Args:
        limits: The limits; None for the defaults.
        max_body_bytes: The application's limit for request bodies.
    """
    try:
        from totoms.http.server.protocol import HTTPProtocol
    except ImportError:  # without httptools uvicorn uses h11, which has its own limit for headers
        return "auto"
    return HTTPProtocol.for_server(limits or ServerConfiguration(), max_body_bytes)


def uvicorn_config(
    app: FastAPI, grace: float, limits: ServerConfiguration | None = None, max_body_bytes: int = MAX_BODY_BYTES
) -> uvicorn.Config:
    """Return uvicorn's configuration: our protocol, no access log, no ``Server`` header.

    Args:
        app: The application.
        grace: Seconds that running requests may take after the server is asked to stop.
        limits: The limits; None for the defaults.
        max_body_bytes: The application's limit for request bodies.
    """
    limits = limits or ServerConfiguration()
    config = uvicorn.Config(
        app,
        http=http_protocol(limits, max_body_bytes),
        lifespan="off",  # TotoMicroservice.start runs it, and raises its errors
        access_log=False,
        backlog=_ACCEPTED,
        log_config=None,
        server_header=False,
        timeout_keep_alive=math.ceil(limits.keep_alive),  # for uvicorn's own protocols
        timeout_graceful_shutdown=max(1, math.ceil(grace)),
        ws_max_size=limits.max_websocket_message_bytes,
    )
    if not private_api.supports_protocols(config):
        config.http = "auto"
    return config


def url_of(listener: socket.socket, host: str) -> str:
    """Return the URL of a listening socket, with `host` as given."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
