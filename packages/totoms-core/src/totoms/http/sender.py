"""ASGI's `send` for requests and WebSockets: it adds the headers of the call and records the status."""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Scope, Send

from totoms.http.context import Call
from totoms.http.server.response_heads import check_headers, check_status

_JSON: Final = (b"content-type", b"application/json")


class Sender:
    """The `send` of one request. It checks responses and drops the body of a response to HEAD.

    Args:
        send: The server's send.
        call: The state of the request.
        scope: The ASGI scope.
    """

    __slots__ = ("_call", "_is_head", "_send")

    def __init__(self, send: Send, call: Call, scope: Scope) -> None:
        self._send = send
        self._call = call
        self._is_head = scope["method"] == "HEAD"

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message.

        Raises:
            ValueError: The status or a header is invalid. Nothing is sent.
        """
        if message["type"] == "http.response.start":
            call = self._call
            own = list(message.get("headers", ()))
            check_status(message["status"])
            check_headers(own)  # before anything is sent, so that the response can still be 500
            call.status = message["status"]
            names = {name.lower() for name, _ in own}
            own += [(name, value) for name, value in call.headers if name == b"vary" or name not in names]
            message["headers"] = own
        elif self._is_head and message.get("body"):
            message["body"] = b""  # RFC 9110, section 9.3.2
        await self._send(message)

    async def send_json(self, body: bytes, status: int = 200) -> None:
        """Send a response. Its headers need no checks, which would cost 10 % of a small request.

        Args:
            body: The JSON. It is not sent with status 204, which has no body.
            status: The status, 204 or one that allows a body.
        """
        self._call.status = status
        if status == 204:
            head, body = [_JSON, *self._call.headers], b""
        else:
            head = [(b"content-length", b"%d" % len(body)), _JSON, *self._call.headers]
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": b"" if self._is_head else body})


def websocket_sender(send: Send, call: Call) -> Send:
    """Return the `send` of a WebSocket."""

    async def wrapped(message: Message) -> None:
        kind = message["type"]
        if kind in ("websocket.accept", "websocket.http.response.start"):
            call.status = message.get("status", 101)
            message["headers"] = [*message.get("headers", ()), *call.headers]
        elif kind == "websocket.close" and not call.status:
            call.status = 403
        await send(message)

    return wrapped
