"""The request of a delegate: Starlette's, with strict JSON and a limited body."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import orjson
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from totoms.errors import ValidationError
from totoms.messages.message import has_long_integer

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_INVALID: Final = "The request body is not valid JSON."
_UNPARSED: Final = object()


class InvalidJSON(ValidationError, json.JSONDecodeError):
    """A request body is not valid JSON: 400. It is also a `json.JSONDecodeError`.

    Args:
        message: The message of the response.
        msg: What is wrong, as in `json.JSONDecodeError`.
        pos: The position of the mistake.
        lineno: The line of `pos`.
        colno: The column of `pos`.

    Attributes:
        doc: Empty, unlike in the standard library, so that error reports do not contain the payload.
    """

    def __init__(self, message: str, msg: str = "", pos: int = 0, lineno: int = 1, colno: int = 1) -> None:
        self.message, self.resource = message, None  # each base's own __init__ would call the other's
        self.args = (message, msg, pos, lineno, colno)
        self.msg, self.doc, self.pos, self.lineno, self.colno = msg, "", pos, lineno, colno

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class InvalidUTF8(InvalidJSON, UnicodeDecodeError):
    """A request body is not UTF-8, as JSON must be (RFC 8259, section 8.1). It is also a `UnicodeDecodeError`.

    Attributes:
        object: Empty, like `doc`.
    """

    def __init__(self, message: str, msg: str = "", pos: int = 0, lineno: int = 1, colno: int = 1) -> None:
        UnicodeDecodeError.__init__(self, "utf-8", b"", pos, pos + 1, msg)
        InvalidJSON.__init__(self, message, msg, pos, lineno, colno)


class TotoRequest(Request):
    """A `fastapi.Request` that reads the body itself, without Starlette's private attributes.

    Args:
        scope: The ASGI scope.
        receive: ASGI's receive.
        send: ASGI's send.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self._more = True
        self._content: bytes | None = None
        self._value: Any = _UNPARSED

    async def body(self) -> bytes:
        """Return the body; after a part was streamed, the rest of it.

        Raises:
            HTTPException: 413, if the body is over the limit (`limit_body`). The rest is not read.
            ClientDisconnect: The client disconnected before the end of the body.
            RuntimeError: The body was streamed.
        """
        if self._content is None:
            content = await self._read()
            if self._more:  # nearly every body is a single message
                chunks = [content]
                while self._more:
                    chunks.append(await self._read())
                content = b"".join(chunks)
            self._content = content
        return self._content

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body in chunks as they arrive, and at last an empty one.

        Raises:
            HTTPException: 413, if the body is over the limit (`limit_body`). The rest is not read.
            ClientDisconnect: The client disconnected before the end of the body.
            RuntimeError: The body was streamed before.
        """
        if self._content is None:
            chunk = await self._read()
            while self._more:
                if chunk:
                    yield chunk
                chunk = await self._read()
        else:
            chunk = self._content
        if chunk:
            yield chunk
        yield b""

    async def _read(self) -> bytes:
        """Return the next chunk of the body."""
        if not self._more:
            raise RuntimeError("Stream consumed")
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        self._more = message.get("more_body", False)
        return chunk

    async def json(self) -> Any:
        """Return the body, parsed as JSON (RFC 8259), whatever its content type.

        Raises:
            InvalidJSON: It is not valid JSON: bad syntax, NaN, a lone surrogate, nested too deeply. A `ValidationError`
                (400) and a `json.JSONDecodeError`.
            InvalidUTF8: It is not UTF-8. An `InvalidJSON` and a `UnicodeDecodeError`.
        """
        if self._value is _UNPARSED:
            self._value = parse_json(await self.body())
        return self._value


def parse_json(body: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        InvalidJSON: It is not valid JSON. The message and the attributes do not quote it.
        InvalidUTF8: It is not UTF-8.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        value = orjson.loads(body)
        return json.loads(body) if has_long_integer(body) else value
    except (ValueError, RecursionError) as caught:
        error = caught
    raise _invalid_json(body, error)


def _invalid_json(body: bytes, error: Exception) -> InvalidJSON:
    try:
        body.decode()
    except UnicodeDecodeError as undecodable:
        return InvalidUTF8(_INVALID, undecodable.reason, undecodable.start)
    if isinstance(error, json.JSONDecodeError):
        return InvalidJSON(_INVALID, error.msg, error.pos, error.lineno, error.colno)
    return InvalidJSON(_INVALID, type(error).__name__)  # too deep, or an integer of thousands of digits


def limit_body(receive: Receive, is_too_large: Callable[[Scope, int], bool], scope: Scope) -> Receive:
    """Return a `receive` that raises `HTTPException` 413 once a body is too large.

    Args:
        receive: ASGI's receive.
        is_too_large: Returns whether a request may not have so many bytes.
        scope: The ASGI scope of the request.
    """
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if is_too_large(scope, received):
                raise _too_large()
        return message

    return limited


def _too_large() -> HTTPException:
    # The rest of the body is not read, so the connection cannot be reused.
    return HTTPException(413, "Request body too large", headers={"connection": "close"})
