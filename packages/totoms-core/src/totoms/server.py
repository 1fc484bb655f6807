"""The HTTP server: uvicorn with our signals, our exit status and our bound socket."""

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
from typing import Any

import uvicorn
from fastapi import FastAPI

from totoms.errors import ConfigurationError
from totoms.logging import flush_logging


class Server(uvicorn.Server):
    """Runs until SIGTERM or SIGINT, then drains. A second signal ends the process at once.

    Args:
        config: uvicorn's.
        on_exit: Called once, on the loop's thread, when a signal asks the server to end.
    """

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; on a second signal die of it, as the default action would have it."""
        if self.should_exit:
            flush_logging()
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
            return
        self.should_exit = True
        self._on_exit()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the signals while serving. Unlike uvicorn's, the signal is not raised again afterwards.

        Drained is ended well: exit status 0, and no KeyboardInterrupt out of the caller's `asyncio.run`.
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
    """Bind and listen, so that a port in use is told before anything else is started.

    Raises:
        ConfigurationError: The port is in use, needs privileges, or the host is no address of this machine.
    """
    if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65,536
        raise ConfigurationError(f"Cannot listen on port {port}: a port is a number from 0 to 65535.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigurationError(f"Cannot listen on {host} port {port}: no such address.") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # on Windows the option means that two servers may share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        why = "the port is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        raise ConfigurationError(f"Cannot listen on {host} port {port}: {why}.") from error
    listener.setblocking(False)
    return listener


def _protocol() -> Any:
    try:
        from totoms.protocol import LimitedProtocol
    except ImportError:  # no httptools for this platform: uvicorn's choice, with h11's own limit for headers
        return "auto"
    return LimitedProtocol


def uvicorn_config(app: FastAPI, grace: float) -> uvicorn.Config:
    """Return uvicorn's settings: the fastest parser installed, our log line instead of its own, no `Server` header.

    Args:
        app: What to serve.
        grace: Seconds that requests at work may take once the server ends.
    """
    return uvicorn.Config(
        app,
        http=_protocol(),
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=max(1, math.ceil(grace)),
    )
