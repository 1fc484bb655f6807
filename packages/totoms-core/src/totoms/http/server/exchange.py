"""One request and its response, by the HTTP part of the ASGI specification (version 2.3)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

from starlette.types import ASGIApp, Message

from totoms.http.server.outbox import Outbox
from totoms.http.server.request_bodies import Body
from totoms.http.server.response_heads import CONTINUE, ResponseHead

_FAILED: Final = b"Internal Server Error"
_YIELD_EVERY: Final = 64
"""Pieces of a response after which other tasks run."""
_logger = logging.getLogger("uvicorn.error")


class Connection(Protocol):
    """What an exchange needs of its connection."""

    def on_demand(self) -> None:
        """Read more: the application has read something, or has started or stopped waiting for the body."""

    def response_options(self) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Return whether the connection closes after this response, and the headers of every response."""
        ...

    def on_complete(self) -> None:
        """Continue after a complete response."""

    def abort(self, *, detectable: bool) -> None:
        """Close the connection in the middle of a response.

        Args:
            detectable: Whether the client can tell from the response itself that a part is missing. If not, the
                connection is reset.
        """


class Exchange:
    """A request that an application answers.

    Args:
        connection: The connection of the request.
        outbox: Its write buffer.
        scope: The ASGI scope.
        body: The framing of the request body.
        piece: The part of the body that arrived with the head.
        expects_continue: Whether the client waits for 100 Continue before it sends the body.

    Attributes:
        disconnected: Whether the client disconnected.
        started: Whether the response has started.
        complete: Whether the response is complete.
        close: Whether the response has the header ``Connection: close``.
        size: Bytes of the body that the application has not read yet.
    """

    __slots__ = (
        "_body_delivered",
        "_connection",
        "_event",
        "_head",
        "_outbox",
        "_pieces",
        "_scope",
        "_sent",
        "_waiting",
        "body",
        "close",
        "complete",
        "disconnected",
        "expects_continue",
        "size",
        "started",
    )

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        scope: dict[str, Any],
        body: Body,
        piece: bytes,
        expects_continue: bool,
    ) -> None:
        self._connection = connection
        self._outbox = outbox
        self._scope = scope
        self.body = body
        self.expects_continue = expects_continue
        self._pieces = [piece] if piece else []
        self.size = len(piece)
        self._body_delivered = False
        self._waiting = 0
        self._sent = 0
        self._event: asyncio.Event | None = None
        self._head: ResponseHead | None = None
        self.disconnected = self.started = self.complete = self.close = False

    # --- called by the connection ---

    def add(self, piece: bytes) -> None:
        """Add a piece of the body; an empty one if the body is complete without more data."""
        if piece:
            self._pieces.append(piece)
            self.size += len(piece)
        if self._event is not None:
            self._event.set()

    @property
    def waits_for_body(self) -> bool:
        """Whether the application waits for more of the body."""
        return self._waiting > 0 and not self.body.complete and not self.complete

    def disconnect(self) -> None:
        """Tell the application that the client disconnected."""
        self.disconnected = not self.complete
        self._wake()

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()

    # --- the application ---

    async def run(self, app: ASGIApp) -> None:
        """Run the application. If it fails before it responds, log the exception and respond with 500."""
        try:
            await app(self._scope, self.receive, self.send)
        except BaseException as error:
            _logger.error("Exception in ASGI application", exc_info=error)
        else:
            if self.complete or self.disconnected:
                return
            _logger.error("The ASGI application returned without completing its response.")
        if self.disconnected or self.complete:
            return
        if self.started or self._outbox.blocked:  # a cancelled task must not wait again
            head = self._head
            self._connection.abort(detectable=head is None or head.chunked or head.left is not None)
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_FAILED))]
        await self.send(
            {"type": "http.response.start", "status": 500, "headers": [*headers, (b"connection", b"close")]}
        )
        await self.send({"type": "http.response.body", "body": _FAILED})

    async def receive(self) -> Message:
        """Return the next piece of the body; after the body, wait until the response or the connection ends."""
        while not (self.disconnected or self.complete):
            if not self._body_delivered and (self._pieces or self.body.complete):
                return self._take()
            if self.expects_continue:
                self.expects_continue = False
                if not self.started:
                    self._outbox.write(CONTINUE)
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            self._waiting += 1
            try:
                if not self.body.complete:
                    self._connection.on_demand()
                await self._event.wait()
            finally:
                self._waiting -= 1
                if not self.body.complete and not self._waiting:
                    self._connection.on_demand()
        return {"type": "http.disconnect"}

    def _take(self) -> Message:
        pieces, self._pieces, self.size = self._pieces, [], 0
        self._body_delivered = self.body.complete
        if not self._body_delivered:
            self._connection.on_demand()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": not self._body_delivered}

    async def send(self, message: Message) -> None:
        """Send a piece of the response; nothing if the client disconnected.

        Raises:
            RuntimeError: The messages are out of order, or the body does not match the Content-Length.
            ValueError: A header is malformed. Nothing was sent, so another response may follow.
        """
        if self._outbox.blocked:
            await self._outbox.writable()
        if self.disconnected:
            await asyncio.sleep(0)  # a stream that never waits would block the event loop and miss the disconnect
            return
        kind = message["type"]
        if not self.started:
            if kind != "http.response.start":
                raise RuntimeError(f"Expected ASGI message 'http.response.start', but got '{kind}'.")
            self._start(message)
        elif self.complete:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
        elif kind != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{kind}'.")
        else:
            more = message.get("more_body", False)
            self._continue(message.get("body", b""), more=more)
            self._sent += 1
            if more and self._sent % _YIELD_EVERY == 0:
                await asyncio.sleep(0)  # with a fast client, a stream may never wait by itself

    def _start(self, message: Message) -> None:
        close, defaults = self._connection.response_options()
        scope = self._scope
        head = self._head = ResponseHead(
            message["status"], message.get("headers", ()), defaults, scope["method"], scope["http_version"], close
        )
        self.started = True
        self.expects_continue = False
        self.close = head.close
        self._outbox.write(head.data)

    def _continue(self, body: bytes, *, more: bool) -> None:
        head, outbox = self._head, self._outbox
        assert head is not None
        if head.bodiless:
            body = b""
        elif head.left is not None:
            if len(body) > head.left:
                raise RuntimeError("Response content longer than Content-Length")
            head.left -= len(body)
            if head.left and not more:
                raise RuntimeError("Response content shorter than Content-Length")
        if head.chunked:
            if body:
                outbox.write(b"%x\r\n" % len(body))
                outbox.write(body)
                outbox.write(b"\r\n")
            if not more:
                outbox.write(b"0\r\n\r\n")
        elif body:
            outbox.write(body)
        if not more:
            self.complete = True
            if self._event is not None:
                self._event.set()
            self._connection.on_complete()
