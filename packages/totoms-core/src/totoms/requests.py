"""The request that a delegate gets: Starlette's, whose JSON is strict and whose body is bounded."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from totoms.errors import ValidationError

# orjson turns integers over 64 bits into floats; nineteen digits is the first length that may be one.
_LONG_INTEGER: Final = re.compile(rb"[0-9]{19}")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class TotoRequest(Request):
    """A `fastapi.Request`."""

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
        return json.loads(body) if _LONG_INTEGER.search(body) else value
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
                raise HTTPException(413, headers={"connection": "close"})
        return message

    return limited
