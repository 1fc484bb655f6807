"""The request that a delegate gets: Starlette's, whose JSON is strict and whose body is bounded."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, Final

import orjson
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from totoms.errors import ValidationError
from totoms.messages import has_long_integer

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class TotoRequest(Request):
    """A `fastapi.Request`.

    Args:
        limit: The most bytes its body may have; None if `receive` sees to it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int | None = None) -> None:
        super().__init__(scope, receive, send)
        self._limit = limit

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            HTTPException: 413, when it is over the limit. The rest is not read.
        """
        if not hasattr(self, "_body"):
            if self._stream_consumed:
                return await super().body()
            message = await self._receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                # Nearly every body comes in one piece.
                body: bytes = message.get("body", b"")
                if self._limit is not None and len(body) > self._limit:
                    raise _too_large()
                self._stream_consumed = True
                self._body = body
            else:
                self._receive = _before(message, self._receive)
                self._body = b"".join([chunk async for chunk in self.stream()])
        return self._body

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Give the body in pieces, as they come.

        Raises:
            HTTPException: 413, when it is over the limit. The rest is not read.
        """
        if self._limit is not None:
            self._receive, self._limit = limit_body(self._receive, self._limit), None
        async for chunk in super().stream():
            yield chunk

    async def json(self) -> Any:
        """Return the body, parsed as JSON (RFC 8259), whatever its content type.

        Raises:
            ValidationError: It is not: bad syntax or UTF-8, NaN, a lone surrogate, nested too deeply.
        """
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


def parse_json(body: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        ValidationError: It is none. The message does not quote it.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        value = orjson.loads(body)
        return json.loads(body) if has_long_integer(body) else value
    except (ValueError, RecursionError):
        raise ValidationError("The request body is not valid JSON.") from None


def limit_body(receive: Receive, limit: int) -> Receive:
    """Return a `receive` that refuses a body of more than `limit` bytes, while it streams in.

    Raises:
        HTTPException: 413, from the returned function.
    """
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large()
        return message

    return limited


def _too_large() -> HTTPException:
    # What is left of the body is not read, so nothing else can follow on this connection.
    return HTTPException(413, "Request body too large", headers={"connection": "close"})


def _before(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
