"""Errors as a caller sees them, and as they are logged."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
from collections.abc import Iterator
from typing import Any, ClassVar

import httpx
import pytest
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, SecretStr

from support.http.app import KEY, Log, Service, make_service
from totoms import (
    AccessDenied,
    APIEndpoint,
    CloudStorage,
    ExecutionContext,
    Forbidden,
    InvalidArgument,
    InvalidKey,
    MessageBus,
    MessageDestination,
    NotFound,
    TotoEnvironment,
    TotoError,
    TotoMessage,
    Unauthorized,
    Unavailable,
    Undecidable,
    UserContext,
    ValidationError,
    toto_delegate,
)
from totoms.auth.tokens import make_token
from totoms.http.requests import InvalidJSON, InvalidUTF8, parse_json
from totoms.logging.masking import forget_secrets, remember_secret
from totoms.messages.message import encode_message

CANARY = "canary-7f3a"


@pytest.fixture
def secret_canary() -> Iterator[None]:
    """The canary is the value of a secret."""
    remember_secret((__name__, "canary"), CANARY.encode())
    yield
    forget_secrets(__name__)


class Teapot(TotoError):
    status = 418


class Body(BaseModel):
    number: int
    secret: SecretStr
    choice: bool


def raising(make: Any, method: str = "GET", path: str = "/x") -> APIEndpoint:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        raise make()

    return APIEndpoint(method, path, delegate)


async def ask(service: Service, method: str = "GET", path: str = "/x", **options: Any) -> httpx.Response:
    async with service.client(make_token(KEY, "me"), **{"x-correlation-id": "cid-1"}) as client:
        return await client.request(method, path, **options)


RAISED: dict[str, tuple[Any, int, str, dict[str, str], Any]] = {
    "validation": (lambda: ValidationError("No name."), 400, "No name.", {}, "No name."),
    "unauthorized": (lambda: Unauthorized("Who?"), 401, "Who?", {"www-authenticate": "Bearer"}, None),
    "invalid key": (lambda: InvalidKey("A key must not be empty."), 400, "A key must not be empty.", {}, None),
    "forbidden": (lambda: Forbidden("Not you."), 403, "Not you.", {}, None),
    "own status": (lambda: Teapot("Short and stout"), 418, "Short and stout", {}, None),
    "undecidable": (lambda: Undecidable("Later.", retry_after=7), 503, "Later.", {"retry-after": "7"}, None),
    "unavailable": (lambda: Unavailable(CANARY), 503, "Temporarily unavailable", {"retry-after": "1"}, None),
    "http exception": (lambda: HTTPException(404, "No such post"), 404, "No such post", {}, "No such post"),
    "http exception without detail": (lambda: HTTPException(409), 409, "Conflict", {}, None),
    "http exception with an object": (lambda: HTTPException(409, {"a": 1}), 409, "Conflict", {}, {"a": 1}),
    "http exception with headers": (
        lambda: HTTPException(429, headers={"retry-after": "3"}),
        429,
        "Too Many Requests",
        {"retry-after": "3"},
        None,
    ),
    "http exception of 500": (lambda: HTTPException(500, "told"), 500, "told", {}, "told"),
    "any": (lambda: RuntimeError(CANARY), 500, "Internal server error", {}, None),
    "group": (lambda: ExceptionGroup(CANARY, [ValueError(CANARY)]), 500, "Internal server error", {}, None),
    "backend": (lambda: NotFound("secret bucket", resource="b"), 500, "Internal server error", {}, None),
    "denied": (lambda: AccessDenied("arn:aws:internal"), 500, "Internal server error", {}, None),
    "assertion": (lambda: AssertionError(CANARY), 500, "Internal server error", {}, None),
}


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("way", ["short", "with middleware", "path parameter", "fastapi's"])
@pytest.mark.usefixtures("secret_canary")
async def test_exception_becomes_an_error_body(name: str, way: str, log: Log) -> None:
    make, status, message, headers, detail = RAISED[name]
    if way == "fastapi's":

        @toto_delegate
        async def delegate(
            request: Request, user_context: UserContext, exec_context: ExecutionContext, limit: int = 1
        ) -> None:
            raise make()

        service = make_service(APIEndpoint("GET", "/x", delegate))
    else:
        service = make_service(raising(make, path="/{key}" if way == "path parameter" else "/x"))
    if way == "with middleware":

        @service.app.middleware("http")
        async def pass_on(request: Request, call_next: Any) -> Any:
            return await call_next(request)

    answer = await ask(service)
    expected = {"code": status, "message": message, "cid": "cid-1", "detail": message if detail is None else detail}
    assert answer.status_code == status
    assert answer.json() == expected
    assert answer.headers["x-correlation-id"] == "cid-1"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    for key, value in headers.items():
        assert answer.headers[key].startswith(value)
    assert CANARY not in log.text + answer.text
    errors = [record for record in log.records() if record["severity"] == "ERROR"]
    assert len(errors) == (1 if message == "Internal server error" else 0)
    for record in errors:
        assert record["cid"] == "cid-1"
        assert "in delegate" in record["exception"]
    (line,) = [
        record for record in log.records() if record["message"].startswith("GET /x ") and record["severity"] == "INFO"
    ]
    assert f" {status} " in line["message"]


async def test_next_request_works_after_an_error() -> None:
    failing = True

    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> int:
        if failing:
            raise RuntimeError
        return 1

    service = make_service(APIEndpoint("GET", "/x", delegate))
    assert (await ask(service)).status_code == 500
    failing = False
    assert (await ask(service)).json() == 1


@pytest.mark.usefixtures("secret_canary")
async def test_traceback_says_where_and_what_with_secrets_masked(log: Log) -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> None:
        try:
            int("seven canary-7f3a")
        except ValueError as error:
            raise KeyError("seven canary-7f3a") from error

    await ask(make_service(APIEndpoint("GET", "/x", delegate)))
    (record,) = [record for record in log.records() if record["severity"] == "ERROR"]
    assert "test_errors.py" in record["exception"]
    assert "ValueError" in record["exception"]
    assert "KeyError" in record["exception"]
    assert "starlette" not in record["exception"]
    assert "KeyError: 'seven ***'" in record["exception"]
    assert CANARY not in log.text


async def test_validation_of_fastapi_keeps_its_detail_without_the_input(log: Log) -> None:
    @toto_delegate
    async def delegate(
        request: Request, user_context: UserContext, exec_context: ExecutionContext, body: Body, limit: int = 1
    ) -> None: ...

    service = make_service(APIEndpoint("POST", "/x", delegate))
    answer = await ask(
        service, "POST", "/x?limit=" + CANARY, json={"number": CANARY, "choice": CANARY, "secret": [CANARY]}
    )
    assert answer.status_code == 422
    body = answer.json()
    assert (body["code"], body["cid"]) == (422, "cid-1")
    assert {tuple(found["loc"]) for found in body["detail"]} >= {
        ("query", "limit"),
        ("body", "number"),
        ("body", "secret"),
    }
    assert all(set(found) == {"type", "loc", "msg"} for found in body["detail"])
    assert CANARY not in answer.text + log.text
    (line,) = [record["message"] for record in log.records() if record["message"].startswith("POST /x 422 ")]
    assert "query.limit: Input should be a valid integer" in line
    assert "body.secret: Input should be a valid string" in line


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_unknown_path_is_404(method: str) -> None:
    answer = await ask(make_service(), method, "/nowhere")
    assert answer.status_code == 404
    assert answer.headers["x-correlation-id"] == "cid-1"
    if method == "GET":
        assert answer.json() == {"code": 404, "message": "Not Found", "cid": "cid-1", "detail": "Not Found"}


async def test_wrong_method_is_405_with_allow() -> None:
    service = make_service(raising(RuntimeError, "PUT"), raising(RuntimeError, "DELETE", "/{a}/{b}"))
    for path, allowed in (("/x", "PUT"), ("/1/2", "DELETE")):
        answer = await ask(service, "POST", path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == allowed
        message = "Method Not Allowed"
        assert answer.json() == {"code": 405, "message": message, "cid": "cid-1", "detail": message}


BAD_JSON = {
    "syntax": b"{",
    "empty": b"",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "lone surrogate": b'{"a": "\\ud800"}',
    "NaN": b'{"a": NaN}',
    "infinity": b"[Infinity]",
    "trailing comma": b"[1,]",
    "two values": b"{}{}",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep and long integer": b"[" * 5000 + b"1" * 30 + b"]" * 5000,
    "integer of 5,000 digits": b"[" + b"1" * 5000 + b"]",
}


@pytest.mark.parametrize("name", BAD_JSON)
async def test_bad_json_is_400_in_a_delegate_that_reads_it(name: str, log: Log) -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return await request.json()

    service = make_service(APIEndpoint("POST", "/x", delegate), APIEndpoint("POST", "/deep/{key}", delegate))
    for path in ("/x", "/deep/1"):
        answer = await ask(service, "POST", path, content=BAD_JSON[name])
        assert answer.status_code == 400
        assert answer.json()["detail"] == "The request body is not valid JSON."
    assert "ERROR" not in log.text


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.parametrize("caught", [ValueError, json.JSONDecodeError, ValidationError, UnicodeDecodeError])
async def test_bad_json_can_be_caught_as_the_standard_librarys(name: str, caught: type[Exception]) -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        try:
            return await request.json()
        except caught as error:
            return {} if CANARY not in repr(error) + str(vars(error)) else "told"

    service = make_service(APIEndpoint("POST", "/x", delegate))
    answer = await ask(service, "POST", content=BAD_JSON[name].replace(b"{", b'{"' + CANARY.encode() + b'":1,', 1))
    is_utf8 = name not in ("not UTF-8", "UTF-16")
    expected = (400, None) if is_utf8 and caught is UnicodeDecodeError else (200, {})
    assert (answer.status_code, answer.json() if answer.status_code == 200 else None) == expected


def test_error_of_bad_json_says_where_it_is_without_the_text() -> None:
    with pytest.raises(InvalidJSON) as caught:
        parse_json(b'{\n  "secret": 1,\n  oops}')
    error = caught.value
    assert (error.lineno, error.colno, error.pos, error.doc) == (3, 3, 19, "")
    assert str(error) == error.message == "The request body is not valid JSON."
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, again.pos) == (InvalidJSON, error.args, 19)
    assert copy.copy(error).lineno == 3

    with pytest.raises(InvalidUTF8) as undecodable:
        parse_json(b'{"secret": "\xff"}')
    bad = undecodable.value
    assert (bad.encoding, bad.object, bad.start, bad.end, bad.reason) == ("utf-8", b"", 12, 13, "invalid start byte")
    assert (str(bad), bad.pos) == ("The request body is not valid JSON.", 12)
    assert type(pickle.loads(pickle.dumps(bad))) is InvalidUTF8


async def test_bad_json_of_a_declared_body_is_answered_as_by_fastapi() -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext, body: Body) -> int:
        return body.number

    service = make_service(APIEndpoint("POST", "/x", delegate))
    answer = await ask(service, "POST", content=b'{"a"', headers={"content-type": "application/json"})
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert (problem["type"], problem["loc"]) == ("json_invalid", ["body", 4])


@pytest.mark.parametrize("way", ["short", "fastapi's"])
async def test_service_that_publishes_what_it_cannot_write_is_at_fault_itself(way: str, log: Log) -> None:
    def publish() -> Any:
        return encode_message(TotoMessage(type="t", data={"key": {CANARY}}))

    if way == "fastapi's":

        @toto_delegate
        async def delegate(
            request: Request, user_context: UserContext, exec_context: ExecutionContext, limit: int = 1
        ) -> None:
            publish()

        service = make_service(APIEndpoint("GET", "/x", delegate))
    else:
        service = make_service(raising(publish))
    answer = await ask(service)
    assert (answer.status_code, answer.json()["message"]) == (500, "Internal server error")
    (error,) = [record for record in log.records() if record["severity"] == "ERROR"]
    assert "'t' cannot be written as JSON: it holds a value of the class set" in error["exception"]
    assert "in publish" in error["exception"]
    assert CANARY not in log.text + answer.text


MISTAKES: dict[str, Any] = {
    "message without a type": lambda: TotoMessage(),
    "no destination": lambda: MessageDestination(),
    "two destinations": lambda: MessageDestination("t", "q"),
    "delay": lambda: MessageBus._outgoing(_Bus(), MessageDestination("posts"), TotoMessage(type="t"), None, math.nan),
    "verb of a signed URL": lambda: _files().signed_url("key", method="DELETE"),
    "expiry of a signed URL": lambda: _files().signed_url("key", expires_in=0),
    "text for bytes": lambda: _files().upload_bytes("text", "key"),
    "both conditions": lambda: _files().upload_bytes(b"", "key", if_absent=True, if_match="x"),
    "range of fractions": lambda: _files().stream_file("key", 0.5),
}


def _files() -> Any:
    return CloudStorage("bucket", environment=TotoEnvironment("local"))


class _Bus:
    _closed = False
    topics: ClassVar[dict[str, str]] = {"posts": "posts"}

    def _check_open(self) -> None: ...

    def _require(self, capability: str) -> None: ...


@pytest.mark.parametrize("name", MISTAKES)
async def test_call_of_ours_that_the_service_got_wrong_is_its_own_mistake(name: str, log: Log) -> None:
    with pytest.raises(InvalidArgument):
        MISTAKES[name]()
    answer = await ask(make_service(raising(MISTAKES[name])))
    assert (answer.status_code, answer.json()["message"]) == (500, "Internal server error")
    (error,) = [record for record in log.records() if record["severity"] == "ERROR"]
    assert "totoms.errors.InvalidArgument: " in error["exception"]


@pytest.mark.parametrize("name", BAD_JSON)
async def test_bad_json_is_4xx_for_a_declared_body(name: str, log: Log) -> None:
    @toto_delegate
    async def delegate(
        request: Request, user_context: UserContext, exec_context: ExecutionContext, body: dict[str, Any]
    ) -> Any:
        return body

    service = make_service(APIEndpoint("POST", "/x", delegate))
    answer = await ask(service, "POST", content=BAD_JSON[name], headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["cid"] == "cid-1"
    assert "ERROR" not in log.text


async def test_json_is_read_whatever_its_content_type_and_kept_exact() -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        assert await request.json() is await request.json()
        return [await request.json(), (await request.body()).decode()]

    service = make_service(APIEndpoint("POST", "/x", delegate))
    for text in ('{"a": 123456789012345678901234567890}', "[1.0, 18446744073709551616, -9223372036854775809]", '"é"'):
        answer = await ask(service, "POST", content=text, headers={"content-type": "text/plain"})
        assert answer.json() == [json.loads(text), text]
    answer = await ask(service, "POST", content=b"\xef\xbb\xbf[1]")
    assert answer.json()[0] == [1]


async def test_broken_multipart_is_400(log: Log) -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return len(await request.form())

    service = make_service(APIEndpoint("POST", "/x", delegate))
    answer = await ask(
        service, "POST", content=b"--b\r\nbroken", headers={"content-type": "multipart/form-data; boundary=c"}
    )
    assert answer.status_code == 400
    assert answer.json()["code"] == 400
    assert "ERROR" not in log.text


# --- handlers of the user's own ---


class Own(Exception):
    pass


async def test_handlers_of_the_user_come_first() -> None:
    service = make_service(raising(Own), raising(ValidationError, path="/v"), raising(RuntimeError, path="/r"))

    @service.app.exception_handler(Own)
    async def own(request: Request, error: Own) -> JSONResponse:
        return JSONResponse({"own": request.url.path}, 499)

    @service.app.exception_handler(ValidationError)
    def validation(request: Request, error: ValidationError) -> JSONResponse:
        return JSONResponse({"validation": True}, 444)

    @service.app.exception_handler(Exception)
    async def anything(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"any": True}, 555)

    @service.app.exception_handler(404)
    async def missing(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"missing": True}, 404)

    for path, status, body in (
        ("/x", 499, {"own": "/x"}),
        ("/v", 444, {"validation": True}),
        ("/r", 555, {"any": True}),
        ("/n", 404, {"missing": True}),
    ):
        answer = await ask(service, path=path)
        assert (answer.status_code, answer.json()) == (status, body)
        assert answer.headers["x-correlation-id"] == "cid-1"


async def test_handler_of_the_user_can_read_the_body_again() -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> None:
        await request.body()
        raise Own

    service = make_service(APIEndpoint("POST", "/x", delegate))

    @service.app.exception_handler(Own)
    async def own(request: Request, error: Own) -> JSONResponse:
        return JSONResponse({"body": (await request.body()).decode()})

    assert (await ask(service, "POST", content=b"sent")).json() == {"body": "sent"}


@pytest.mark.usefixtures("secret_canary")
async def test_handler_that_fails_is_still_answered(log: Log) -> None:
    service = make_service(raising(Own))

    @service.app.exception_handler(Own)
    async def own(request: Request, error: Own) -> JSONResponse:
        raise RuntimeError(CANARY)

    answer = await ask(service)
    assert (answer.status_code, answer.json()["message"]) == (500, "Internal server error")
    assert CANARY not in log.text


@pytest.mark.usefixtures("secret_canary")
async def test_middleware_that_fails_is_still_answered(log: Log) -> None:
    service = make_service(raising(Own))

    @service.app.middleware("http")
    async def failing(request: Request, call_next: Any) -> Any:
        raise RuntimeError(CANARY)

    answer = await ask(service)
    assert (answer.status_code, answer.json()["cid"]) == (500, "cid-1")
    assert CANARY not in log.text


@pytest.mark.usefixtures("secret_canary")
async def test_stream_that_breaks_off_is_logged_once(log: Log) -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        def pieces() -> Any:
            yield "a"
            raise RuntimeError(CANARY)

        return StreamingResponse(pieces())

    service = make_service(APIEndpoint("GET", "/x", delegate))
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer " + make_token(KEY, "me").encode())]
    await service.app(
        {"type": "http", "method": "GET", "path": "/x", "headers": headers, "query_string": b""}, receive, send
    )
    # Left incomplete, so that the server closes the connection and the caller sees that something is missing.
    assert [message.get("body") for message in sent] == [None, b"a"]
    errors = [record for record in log.records() if record["severity"] == "ERROR"]
    assert len(errors) == 1
    assert CANARY not in log.text


async def test_caller_that_goes_away_is_not_an_error(log: Log) -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return await request.json()

    service = make_service(APIEndpoint("POST", "/x", delegate))

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None: ...

    headers = [(b"authorization", b"Bearer " + make_token(KEY, "me").encode())]
    scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers, "query_string": b""}
    await service.app(scope, receive, send)
    assert "ERROR" not in log.text
