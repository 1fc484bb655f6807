"""Errors as a caller sees them: ``{"code", "message", "cid"}``, and never what went wrong inside."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from totoms.context import current_cid
from totoms.errors import TotoError, Undecidable, ValidationError

INTERNAL: Final = "Internal server error"
CLIENT_CLOSED: Final = 499
"""The status, as of nginx, when the caller went away before it was answered."""
_TOLD: Final = ("type", "loc", "msg")


# As JSON Schema, for OpenAPI: a pydantic model here would have FastAPI import pydantic's v1 (20 ms) at start.
ERROR_SCHEMA: Final[dict[str, Any]] = {
    "title": "ErrorBody",
    "description": "Every error that the service answers.",
    "type": "object",
    "required": ["code", "message", "cid"],
    "properties": {
        "code": {"type": "integer", "description": "The HTTP status."},
        "message": {"type": "string", "description": "What is wrong, for a person."},
        "cid": {"type": "string", "description": "The correlation id, to find the request in the log."},
        "detail": {"description": "Of a validation error: what is wrong with which field."},
    },
}
ERROR_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "Any error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    }
}


def problem(status: int, message: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """Return an error response.

    Args:
        status: The HTTP status.
        message: For a person.
        headers: Further response headers.
        more: Further keys of the body.
    """
    if status in (204, 304) or status < 200:
        return Response(status_code=status, headers=dict(headers or {}))
    body = orjson.dumps({"code": status, "message": message, "cid": current_cid.get(), **more}, default=str)
    return Response(body, status, dict(headers or {}), "application/json")


def install(app: FastAPI) -> None:
    """Register the error handlers. Those that a user registers for more special classes come first."""
    app.add_exception_handler(TotoError, on_toto_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_request_validation_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_exception)


async def on_toto_error(_request: Request, error: Exception) -> Response:
    """Answer an error of ours with its status; what a backend said stays in the log."""
    assert isinstance(error, TotoError)
    status = error.status
    if status == 401:
        return problem(status, error.message, headers={"www-authenticate": _challenge(error.message)})
    if status == 503:
        after = error.retry_after if isinstance(error, Undecidable) else 1
        message = error.message if isinstance(error, Undecidable) else "Temporarily unavailable"
        return problem(status, message, headers={"retry-after": str(max(1, after))})
    if status >= 500:
        raise error  # to be logged with its stack, and answered as any other exception
    if isinstance(error, ValidationError):
        return problem(status, error.message, detail=error.message)
    return problem(status, error.message)


def _challenge(message: str) -> str:
    # RFC 6750 section 3.1: no error code for a request without any token.
    return "Bearer" if message.startswith("A bearer") else 'Bearer error="invalid_token"'


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Answer an HTTPException. A detail of the user's own is kept beside the message."""
    assert isinstance(error, HTTPException)
    phrase = _phrase(error.status_code)
    detail: Any = error.detail
    own = {} if detail in (None, "", phrase) else {"detail": detail}
    message = detail if isinstance(detail, str) and detail else phrase
    return problem(error.status_code, message, headers=error.headers, **own)


async def on_request_validation_error(_request: Request, error: Exception) -> Response:
    """Answer what FastAPI's validation found, without the input, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    detail = [{key: found[key] for key in _TOLD if key in found} for found in error.errors()]
    return problem(422, "The request is not valid", detail=detail)


async def on_disconnect(_request: Request, _error: Exception) -> Response:
    """Answer a caller that went away while its body was read: nobody hears it, but the log shows the status."""
    return problem(CLIENT_CLOSED, "The caller went away")


async def on_exception(_request: Request, _error: Exception) -> Response:
    """Answer anything else. The stack is in the log, under the cid."""
    return problem(500, INTERNAL)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
