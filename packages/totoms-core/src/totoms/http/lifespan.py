"""The lifespan of an app (https://asgi.readthedocs.io/en/latest/specs/lifespan.html), with the service's inside it.

The service starts after everything of the user's (``on_event("startup")``, lifespans, also of included routers) and
drains before it, so that what the user opened is available to every message handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from totoms.errors import ConfigurationError
from totoms.logging.formats import format_error
from totoms.logging.masking import mask


@dataclass(frozen=True)
class Lifecycle:
    """The callbacks of a service.

    Attributes:
        start: Start to work.
        drain: Accept no more work, and wait until the running work has ended.
        close: Close what the service opened.
    """

    start: Callable[[], Awaitable[None]]
    drain: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


async def serve_lifespan(app: ASGIApp, inner: Lifecycle, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the lifespan of `app`, with the service's callbacks innermost.

    Args:
        app: The app with the user's lifespans.
        inner: The service's callbacks.
        scope: The ASGI scope.
        receive: ASGI's receive.
        send: ASGI's send.

    Raises:
        Exception: The exception that ended the start.
    """

    async def receiving() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await inner.drain()
        return message

    async def sending(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            await inner.start()
        elif message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await inner.close()
        await send(message)

    try:
        await app(scope, receiving, sending)
    finally:
        await inner.close()


class Lifespan:
    """Starts and stops an app as a server does.

    Args:
        app: The app.

    Attributes:
        state: The state from the app's lifespan, for every request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()

    async def start(self) -> None:
        """Start the app.

        Raises:
            Exception: Any exception of the app's lifespan.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        sent = iter(("lifespan.startup", "lifespan.shutdown"))

        async def receive() -> Message:
            message = {"type": next(sent)}
            if message["type"] == "lifespan.shutdown":
                await self._stop.wait()
            return message

        self._task = asyncio.create_task(self._app(scope, receive, self._answers.put))  # type: ignore[arg-type]
        await self._wait_started()

    async def stop(self) -> None:
        """Stop the app, if it is running.

        Raises:
            Exception: Any exception of the app's lifespan.
        """
        if self._task is not None and not self._task.done():
            self._stop.set()
            await self._task

    async def _wait_started(self) -> None:
        assert self._task is not None
        answer = asyncio.create_task(self._answers.get())
        try:
            await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or answer.result()["type"] != "lifespan.startup.complete":
                await self._task  # raises the app's exception
        finally:
            answer.cancel()


def initialised_by_lifespan(initialise: Callable[[], Awaitable[ASGIApp]]) -> ASGIApp:
    """Return an ASGI app that is created when the server starts.

    Args:
        initialise: Creates the app; called at the start of each lifespan. If it fails, the server stops and logs why:
            the text of a `ConfigurationError`, the stack of any other exception.
    """
    made: list[ASGIApp] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                made[:] = [await initialise()]
            except Exception as error:
                # If it were raised, uvicorn would take the app for one without a lifespan, and serve it.
                why = mask(str(error)) if isinstance(error, ConfigurationError) else format_error(error)
                await receive()
                await send({"type": "lifespan.startup.failed", "message": why})
                return
        if not made:
            raise ConfigurationError("The app was not started: the server must support ASGI's lifespan.")
        await made[0](scope, receive, send)

    return app
