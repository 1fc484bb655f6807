"""The log line of a request: its readable text and its fields."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from support.http.app import USER, Log, Service, make_service, token
from totoms import APIEndpoint, LogConfiguration, toto_delegate
from totoms.logging.formats import JSONFormatter, LineFormatter
from totoms.logging.handler import BatchHandler
from totoms.logging.masking import forget_secrets, remember_secret
from totoms.logging.setup import flush_logging


@toto_delegate
async def read(request: Request, user_context: Any, exec_context: Any) -> dict[str, str]:
    return {}


@toto_delegate
async def read_slug(slug: str, request: Request, user_context: Any, exec_context: Any) -> dict[str, str]:
    return {}


@toto_delegate
async def fail(request: Request, user_context: Any, exec_context: Any) -> dict[str, str]:
    raise RuntimeError


async def raw(request: Request) -> PlainTextResponse:
    return PlainTextResponse("raw")


def all_routes(**more: Any) -> Service:
    """Return a service with routes of every kind."""
    deep = APIRouter(prefix="/deep")
    outer = APIRouter(prefix="/outer")

    @deep.get("/{x}")
    async def nested(x: str) -> str:
        return x

    outer.include_router(deep)
    mounted = FastAPI()

    @mounted.get("/inner/{x}")
    async def inner(x: str) -> str:
        return x

    service = make_service(
        APIEndpoint("GET", "/posts", read),
        APIEndpoint("GET", "/posts/{slug}/raw", read),
        APIEndpoint("GET", "/posts/{slug}", read_slug),
        APIEndpoint("GET", "/fail", fail),
        **more,
    )
    service.app.include_router(outer, prefix="/v1")
    service.app.mount("/mounted", mounted)
    service.app.router.routes.append(Route("/raw/{x}", raw))

    @service.app.websocket("/chat/{room}")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return service


ROUTES = [
    ("GET", "/posts", "/posts", 200),
    ("HEAD", "/posts", "/posts", 200),
    ("GET", "/posts/hello/raw", "/posts/{slug}/raw", 200),
    ("GET", "/posts/hello", "/posts/{slug}", 200),
    ("GET", "/fail", "/fail", 500),
    ("GET", "/v1/outer/deep/7", "/v1/outer/deep/{x}", 200),
    ("GET", "/mounted/inner/7", "/mounted/*", 200),
    ("GET", "/mounted/nothing", "/mounted/*", 404),
    ("GET", "/raw/7", "/raw/{x}", 200),
    ("POST", "/posts/hello", "/posts/{slug}", 405),
    ("GET", "/nothing/7", "", 404),
]


@pytest.mark.parametrize("caller", ["", "a token", "a new token"])
@pytest.mark.parametrize("middleware", [False, True], ids=["", "middleware"])
@pytest.mark.parametrize(("method", "path", "route", "status"), ROUTES)
async def test_line_has_the_template_of_the_route(
    log: Log, method: str, path: str, route: str, status: int, middleware: bool, caller: str
) -> None:
    service = all_routes()
    if middleware:
        service.app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    async with service.client(token() if caller else None) as client:
        if caller == "a token":
            await client.get("/posts")  # from now on it is remembered
            log.lines.clear()
        answer = await client.request(method, path)
    record = log.records()[-1]
    if caller or answer.status_code != 401:
        assert answer.status_code == status
    assert (record["method"], record["route"], record["status"]) == (method, route, answer.status_code)
    assert record["message"].startswith(f"{method} {path} {answer.status_code} ")
    assert record["message"].split(" ms")[0].endswith(f" {record['milliseconds']}")
    assert record.get("subject") == (USER if caller else None)


async def test_websocket_has_a_line_as_well(log: Log) -> None:
    scope = {
        "type": "websocket",
        "path": "/chat/blue",
        "query_string": b"",
        "subprotocols": [],
        "headers": [(b"authorization", f"Bearer {token()}".encode())],
    }

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None: ...

    await all_routes().app(scope, receive, send)
    record = log.records()[-1]
    assert (record["method"], record["route"], record["status"]) == ("WEBSOCKET", "/chat/{room}", 101)
    assert record["subject"] == USER


async def test_subject_is_that_of_the_token_and_can_be_left_out(log: Log) -> None:
    sent = token(sub="user-7")
    for settings in (LogConfiguration(), LogConfiguration(subjects=False)):
        async with make_service(APIEndpoint("GET", "/x", read), log=settings).client(sent) as client:
            await client.get("/x")
    named, unnamed = log.records()
    assert named["subject"] == "user-7"
    assert "subject" not in unnamed
    assert unnamed["route"] == "/x"
    assert USER not in log.lines[1]


async def test_caller_without_a_token_has_no_subject(log: Log) -> None:
    async with make_service(APIEndpoint("GET", "/x", read, public=True)).client() as client:
        await client.get("/x")
    record = log.records()[-1]
    assert (record["route"], record["status"]) == ("/x", 200)
    assert "subject" not in record


async def test_secret_in_path_and_subject_is_masked(log: Log) -> None:
    remember_secret(("test", "requests"), b"canary-secret")
    try:
        async with make_service(APIEndpoint("GET", "/{x}", read)).client(token(sub="canary-secret")) as client:
            await client.get("/canary-secret")
    finally:
        forget_secrets("test")
    assert "canary-secret" not in log.text
    assert log.records()[0]["subject"] == "***"


async def test_probes_are_logged_at_debug(log: Log) -> None:
    service = make_service(APIEndpoint("GET", "/x", read))
    async with service.client() as client:
        for path in ("/", "/health", "/ready"):
            assert (await client.get(path)).status_code == 200
        assert log.lines == []
        logging.getLogger("totoms").setLevel(logging.DEBUG)
        for path in ("/", "/health", "/ready"):
            await client.get(path)
    assert [(one["severity"], one["route"]) for one in log.records()] == [
        ("DEBUG", "/"),
        ("DEBUG", "/health"),
        ("DEBUG", "/ready"),
    ]


async def test_lines_of_requests_can_be_switched_off_and_failures_are_still_logged(log: Log) -> None:
    service = make_service(
        APIEndpoint("GET", "/x", read), APIEndpoint("GET", "/fail", fail), log=LogConfiguration(requests=False)
    )
    async with service.client(token()) as client:
        await client.get("/x")
        await client.get("/fail")
    (failure,) = log.records()
    assert failure["severity"] == "ERROR"
    assert "RuntimeError" in failure["exception"]


# --- past the standard library ---


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The stream of a `BatchHandler` that is the only handler."""
    root, ours = logging.getLogger(), logging.getLogger("totoms")
    before = root.handlers[:], ours.level
    stream = io.StringIO()
    handler = BatchHandler(stream)
    handler.setFormatter(JSONFormatter())
    root.handlers[:] = [handler]
    ours.setLevel(logging.INFO)
    yield stream
    root.handlers[:] = before[0]
    ours.setLevel(before[1])


async def request_line(stream: io.StringIO) -> dict[str, Any]:
    stream.truncate(0)
    stream.seek(0)
    async with make_service(APIEndpoint("GET", "/{x}", read)).client(token()) as client:
        await client.get('/a"b', headers={"x-correlation-id": "c"})
    flush_logging()
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


async def test_both_ways_of_writing_a_line_give_the_same(stream: io.StringIO) -> None:
    short = await request_line(stream)
    logging.getLogger("totoms.tested").addFilter(lambda record: True)
    try:
        long = await request_line(stream)
    finally:
        logging.getLogger("totoms.tested").filters.clear()
    assert list(short) == list(long)
    changing = {"timestamp": "", "milliseconds": 0.0, "message": ""}
    assert short | changing == long | changing
    assert isinstance(short["milliseconds"], float)
    assert short["message"].startswith('GET /a"b 200 ')


async def test_readable_line_does_not_repeat_the_fields(stream: io.StringIO) -> None:
    logging.getLogger().handlers[0].setFormatter(LineFormatter())
    async with make_service(APIEndpoint("GET", "/x", read)).client(token()) as client:
        await client.get("/x", headers={"x-correlation-id": "c"})
    flush_logging()
    (line,) = stream.getvalue().splitlines()
    assert line.partition(" INFO ")[2].lstrip().startswith("[tested] [c] GET /x 200 ")
    assert line.endswith(" ms")
