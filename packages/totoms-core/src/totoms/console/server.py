"""Serve the console: on 127.0.0.1 only, in its own thread and event loop, so that it does not block the service."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from totoms.console import KEPT_VARIABLE, data
from totoms.console.guard import Guard
from totoms.console.joining import Address, Forwarder, call, read_address, remove_address, write_address
from totoms.console.model import Console
from totoms.console.pages import Pages
from totoms.console.ports import DEFAULT_PORT, listen
from totoms.console.recorder import Recorder
from totoms.console.views import Service
from totoms.console.watching import watch
from totoms.environment import for_development
from totoms.manifest import manifest_of

if TYPE_CHECKING:
    from totoms.service import TotoMicroservice

_PACKAGE: Final = Path(__file__).parent
_TICK: Final = 0.5
"""Seconds between two events of the live stream, at least."""
_MOST_LISTENERS: Final = 50
_PATIENCE: Final = 5.0


class ConsoleServer:
    """A running console, or a connection to the console of another process.

    Attributes:
        url: What to open in a browser, with the token.
    """

    def __init__(self, url: str, stop: Callable[[], None]) -> None:
        self.url = url
        self.stop = stop
        """Stop it. Blocks for a moment."""


def start(microservice: TotoMicroservice, port: int | None = None, *, write: bool = False) -> ConsoleServer:
    """Serve the console for a running service, or connect to the one that another process of the folder serves.

    Args:
        microservice: The service.
        port: The port of the console; by default `DEFAULT_PORT`, or the next free one.
        write: Whether the console may change something.

    Raises:
        ConfigurationError: The port is in use.
    """
    folder = _folder(microservice)
    known = read_address(folder) if port is None else None
    if known is not None and known.process != os.getpid() and _answers(known):
        forwarder = Forwarder(known)
        _introduce(microservice, forwarder)
        return ConsoleServer(f"{known.url}/?token={known.token}", forwarder.stop)
    return _serve(microservice, port, write, folder)


def _serve(microservice: TotoMicroservice, port: int | None, write: bool, folder: Path) -> ConsoleServer:
    preferred, _, kept = os.environ.get(KEPT_VARIABLE, "").partition(":")
    listener = listen(port, int(preferred) if preferred.isdecimal() else DEFAULT_PORT)
    number = listener.getsockname()[1]
    token = kept or secrets.token_urlsafe(32)
    address = Address(f"http://127.0.0.1:{number}", token, os.getpid())
    changes = _Changes()
    recorder = Recorder(changes.happened)
    console = Console(recorder, microservice.environment, write=write)
    app = Guard(_app(console, changes), token, number)
    server = uvicorn.Server(
        uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=False, log_level="error")
    )
    thread = threading.Thread(
        target=lambda: asyncio.run(_run(server, listener, console)), name="totoms console", daemon=True
    )
    _introduce(microservice, recorder.record)
    thread.start()
    write_address(folder, address)

    def stop() -> None:
        remove_address(folder, address)
        changes.close()
        server.should_exit = True
        thread.join(_PATIENCE)

    return ConsoleServer(f"{address.url}/?token={token}", stop)


async def _run(server: uvicorn.Server, listener: socket.socket, console: Console) -> None:
    try:
        await server.serve([listener])
    finally:
        await console.close()
        listener.close()


def _folder(microservice: TotoMicroservice) -> Path:
    root = getattr(microservice.environment.hyperscaler_configuration, "root", None)
    return Path(root if root is not None else ".totoms") / "console"


def _answers(address: Address) -> bool:
    try:
        call(address, "/data/services")
    except (OSError, ValueError):
        return False
    return True


def _introduce(microservice: TotoMicroservice, sink: Callable[[dict[str, Any]], None]) -> None:
    """Register a service with a console, and start to send its events."""
    configuration = microservice.configuration
    notes = watch(microservice.service_name, sink)
    service = Service(
        microservice.service_name,
        microservice.url,
        os.getpid(),
        microservice.environment.hyperscaler,
        for_development(microservice.environment),
        manifest_of(configuration).model_dump(mode="json"),
        time.time(),
        notes,
    )
    sink({"kind": "service", "value": vars(service)})


def _app(console: Console, changes: _Changes) -> Starlette:
    async def live(request: Request) -> StreamingResponse:
        return StreamingResponse(changes.stream(), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/live", live),
            *data.routes(console),
            *Pages(console).routes(),
            Mount("/static", StaticFiles(directory=_PACKAGE / "static")),
        ],
        exception_handlers={ValueError: _invalid, RecursionError: _invalid},
    )


async def _invalid(_request: Request, error: Exception) -> StreamingResponse:
    return StreamingResponse(iter([f"{error}\n"]), 422, media_type="text/plain")


class _Changes:
    """Notifies the live streams of changes, at most twice a second. It keeps no data."""

    def __init__(self) -> None:
        self._count = 0
        self._listeners = 0
        self._closed = False

    def happened(self) -> None:
        """Note that something has changed. It may be called from any thread."""
        self._count += 1

    def close(self) -> None:
        """End the streams."""
        self._closed = True

    async def stream(self) -> AsyncIterator[str]:
        """Yield an event after each change, and a comment from time to time, which detects lost connections."""
        if self._listeners >= _MOST_LISTENERS:
            return
        self._listeners += 1
        seen, quiet = self._count, 0.0
        try:
            yield "retry: 1000\n\n"
            while not self._closed:
                await asyncio.sleep(_TICK)
                quiet += _TICK
                if seen != self._count:
                    seen, quiet = self._count, 0.0
                    yield "data: changed\n\n"
                elif quiet > 15:
                    quiet = 0.0
                    yield ": still here\n\n"
        finally:
            self._listeners -= 1
