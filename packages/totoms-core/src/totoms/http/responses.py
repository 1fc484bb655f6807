"""Responses: the JSON of a delegate's result, and errors as ``{"code", "message", "cid", "detail"}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from totoms.context import current_cid, sane_cid
from totoms.errors import InsufficientScope, NotSerializable, TotoError, Undecidable
from totoms.logging.describe import field_problem, printable
from totoms.strict_json import check_finite, explain

INTERNAL: Final = "Internal server error"
CLIENT_CLOSED: Final = 499
"""nginx's status for a client that disconnected before the response."""
_DETAIL_KEYS: Final = ("type", "loc", "msg")


# As JSON Schema: for a pydantic model FastAPI would import pydantic's v1 (20 ms) at start.
ERROR_SCHEMA: Final[dict[str, Any]] = {
    "title": "ErrorBody",
    "description": "The body of every error response.",
    "type": "object",
    "required": ["code", "message", "cid", "detail"],
    "properties": {
        "code": {"type": "integer", "description": "The HTTP status."},
        "message": {"type": "string", "description": "What is wrong."},
        "cid": {"type": "string", "description": "The correlation id, to find the request in the log."},
        "detail": {
            "description": "The same for clients of FastAPI: the message, or a list of what is wrong with each field."
        },
    },
}
ERROR_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "Any error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    }
}


def problem(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, detail: Any = None, **more: Any
) -> Response:
    """Return an error response.

    Args:
        status: The HTTP status.
        message: What is wrong, for a person.
        headers: Additional response headers.
        detail: FastAPI's key of the same name; by default the message.
        more: Additional keys of the body.
    """
    if status in (204, 304) or status < 200:
        return Response(status_code=status, headers=dict(headers or {}))
    content = {"code": status, "message": message, "cid": current_cid.get(), "detail": message, **more}
    if detail is not None:
        content["detail"] = detail
    body = orjson.dumps(content, default=str)
    return Response(body, status, dict(headers or {}), "application/json")


def install(app: FastAPI) -> None:
    """Register the exception handlers. The user's handlers for subclasses take precedence."""
    app.add_exception_handler(TotoError, on_toto_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_request_validation_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_exception)


async def on_toto_error(_request: Request, error: Exception) -> Response:
    """Respond to a `TotoError` with its status. The text of a 5xx is only logged.

    Raises:
        TotoError: `error`, if its status is 500 or above (except 503), to be logged with its stack.
    """
    assert isinstance(error, TotoError)
    status = error.status
    if status == 401:
        return problem(status, error.message, headers={"www-authenticate": _challenge(error.message)})
    if status == 503:
        after = error.retry_after if isinstance(error, Undecidable) else 1
        message = error.message if isinstance(error, Undecidable) else "Temporarily unavailable"
        return problem(status, message, headers={"retry-after": str(max(1, after))})
    if status >= 500:
        raise error
    if isinstance(error, InsufficientScope):
        return problem(status, error.message, headers={"www-authenticate": 'Bearer error="insufficient_scope"'})
    return problem(status, error.message)


async def answer_elsewhere(error: TotoError, request: Request) -> Response:
    """Respond to a `TotoError` in an app without our handlers, where the correlation id may not be set."""
    if current_cid.get():
        return await on_toto_error(request, error)
    token = current_cid.set(sane_cid(request.headers.get("x-correlation-id")))
    try:
        return await on_toto_error(request, error)
    finally:
        current_cid.reset(token)


def _challenge(message: str) -> str:
    # RFC 6750, section 3.1: a request without a token gets no error code.
    return "Bearer" if message.startswith("A bearer") else 'Bearer error="invalid_token"'


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Respond to an `HTTPException`. A detail of the user's is kept, next to the message."""
    assert isinstance(error, HTTPException)
    detail: Any = error.detail
    message = detail if isinstance(detail, str) and detail else _phrase(error.status_code)
    return problem(error.status_code, message, headers=error.headers, detail=detail)


async def on_request_validation_error(request: Request, error: Exception) -> Response:
    """Respond to a validation error, without the input, which may be a secret. The log names the fields."""
    assert isinstance(error, RequestValidationError)
    call = request.scope.get("totoms")
    if call is not None:
        call.note = printable("; ".join(map(field_problem, error.errors())))
    detail = [{key: found[key] for key in _DETAIL_KEYS if key in found} for found in error.errors()]
    return problem(422, "The request is not valid", detail=detail)


async def on_disconnect(_request: Request, _error: Exception) -> Response:
    """Respond to a client that disconnected while sending its body. Only the log shows this status."""
    return problem(CLIENT_CLOSED, "The client disconnected")


async def on_exception(_request: Request, _error: Exception) -> Response:
    """Respond to any other exception with 500. The log has the stack, under the same cid."""
    return problem(500, INTERNAL)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


# FastAPI's encoder writes these in its own form.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def encode_json(content: Any) -> bytes:
    """Encode `content` as FastAPI does for an endpoint without a response model, except that NaN is an error.

    Args:
        content: Anything that `fastapi.encoders.jsonable_encoder` accepts.

    Raises:
        NotSerializable: JSON cannot represent it: NaN, a lone surrogate, an object of an unknown class.
    """
    try:
        return _encode(content)
    except Exception as error:  # any kind: the user's models may run code
        raise NotSerializable(f"The delegate's result cannot be written as JSON: {explain(error)}.") from error


def reject_nan(field: Any) -> None:
    """Make FastAPI's `ModelField` of a response raise `NotSerializable` for NaN, where pydantic writes null."""
    serialize = field.serialize_json

    def serialize_json(value: Any, **options: Any) -> bytes:
        try:
            body: bytes = serialize(value, **options)
            if b"null" in body:
                check_finite(value)
        except Exception as error:
            raise NotSerializable(f"The delegate's result cannot be written as JSON: {explain(error)}.") from error
        return body

    field.serialize_json = serialize_json


def _encode(content: Any) -> bytes:
    try:
        if isinstance(content, BaseModel):
            body = BaseModel.model_dump_json(content, by_alias=True).encode()
        else:
            body = orjson.dumps(content, option=_OPTIONS)
    except Exception:  # any kind: FastAPI's encoder decides, and its error is shown
        return _encode_by_fastapi(content)
    # FastAPI leaves out keys that start with "_sa" (SQLAlchemy's state).
    if b'"_sa' in body:
        return _encode_by_fastapi(content)
    if b"null" not in body:
        return body
    if isinstance(content, BaseModel):
        check_finite(content)  # pydantic writes null for NaN
        return body
    # orjson writes null for NaN as well. For plain JSON the standard library is faster than FastAPI's encoder.
    try:
        return _dump(content)
    except (TypeError, RecursionError):
        return _encode_by_fastapi(content)


def _encode_by_fastapi(content: Any) -> bytes:
    body = _dump(jsonable_encoder(content))
    if b"null" in body:
        check_finite(content)
    return body


def _dump(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
