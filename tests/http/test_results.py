"""What a delegate returns is answered as a plain FastAPI endpoint answers it, although other code does it."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.middleware.base import BaseHTTPMiddleware

from support.http.app import KEY, Log, make_service
from totoms import APIEndpoint, ExecutionContext, UserContext, toto_delegate
from totoms.auth.tokens import make_token
from totoms.http.routes import DelegateRoute

UUID_ = UUID("12345678-1234-5678-1234-567812345678")


class Colour(Enum):
    RED = "red"


class Text(str, Enum):
    A = "a"


class Number(IntEnum):
    ONE = 1


class Pair(NamedTuple):
    left: int
    right: str


@dataclass
class Point:
    x: int
    y: Decimal = Decimal("1.5")
    _hidden: int = 7
    tags: list[str] = field(default_factory=lambda: ["t"])


class Inner(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    some_name: int = Field(1, alias="someName")
    when: datetime = datetime(2026, 1, 2, 3, 4, 5)
    amount: Decimal = Decimal("1.10")
    maybe: int | None = None


class Outer(BaseModel):
    inner: Inner = Inner()
    raw: bytes = b"bytes"
    secret: SecretStr = SecretStr("hidden")
    ratio: float = 1e16

    @computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> int:
        return self.inner.some_name * 2


class NotANumber(BaseModel):
    value: float = float("nan")


class WithVars:
    def __init__(self) -> None:
        self.a = 1


class Sub(str):
    pass


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


VALUES: dict[str, Callable[[], Any]] = {
    "dict": lambda: {"a": 1, "b": [1.5, "x", True, None], "c": {"d": {}}},
    "empty dict": dict,
    "list": lambda: [1, 2, 3],
    "string": lambda: "text",
    "string with odd characters": lambda: 'é "quoted" \\ \n \x00 \u2028 😀 </script>',
    "string subclass": lambda: {"a": Sub("x")},
    "empty string": str,
    "number": lambda: 7,
    "float": lambda: [0.1, 1e16, 1e-7, -0.0, 1.0, 1e22, 123456789.123],
    "true": lambda: True,
    "none": lambda: None,
    "none within": lambda: {"a": None},
    "bytes": lambda: b"bytes",
    "bytes within": lambda: {"a": b"bytes"},
    "datetime": lambda: datetime(2026, 1, 2, 3, 4, 5, 678),
    "datetime with zone": lambda: {"at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
    "early datetime": lambda: {"at": datetime(1, 1, 1)},
    "date, time, duration": lambda: [date(2026, 1, 2), clock_time(3, 4, 5), timedelta(days=1, seconds=1.5)],
    "uuid": lambda: {"id": UUID_},
    "enums": lambda: [Colour.RED, Text.A, Number.ONE],
    "enum alone": lambda: Colour.RED,
    "decimals": lambda: [Decimal("1.5"), Decimal("2"), Decimal("1E+3")],
    "set": lambda: {3},
    "frozenset": lambda: {"a": frozenset([3])},
    "tuple": lambda: (1, "a"),
    "named tuple": lambda: Pair(1, "a"),
    "deque": lambda: deque([1, 2]),
    "ordered and default dicts": lambda: [OrderedDict(a=1), defaultdict(int, b=2)],
    "generator": lambda: (number for number in range(3)),
    "range": lambda: {"a": range(3)},
    "paths": lambda: [Path("/a/b"), PurePosixPath("c")],
    "address": lambda: ip_address("127.0.0.1"),
    "dataclass": lambda: Point(1),
    "dataclass within": lambda: {"points": [Point(1), Point(2)]},
    "model": Outer,
    "model within": lambda: {"models": [Outer(), Inner()]},
    "root model": lambda: RootModel[list[int]]([1, 2]),
    "model with none": lambda: Inner(someName=3),
    "not a number in a model": NotANumber,
    "keys of other kinds": lambda: {1: "a", None: "b", False: "c", 1.5: "d"},
    "enum keys": lambda: {Text.A: 1},
    "uuid keys": lambda: {UUID_: 1},
    "keys of SQLAlchemy": lambda: {"_sa_instance_state": object(), "a": 1, "b": {"_safe": 1}},
    "plain keys of SQLAlchemy": lambda: [{"_sa": 1, "a": 1}, Outer()],
    "value that looks like such a key": lambda: {"a": "_sa_x", "b": '"_sa'},
    "large integers": lambda: [2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**40],
    "not a number": lambda: {"a": float("nan")},
    "infinity": lambda: [float("inf")],
    "not a number beside none": lambda: {"a": None, "b": float("nan")},
    "the word null": lambda: {"a": "null"},
    "lone surrogate": lambda: {"a": "\ud800"},
    "object with attributes": WithVars,
    "object": object,
    "object within": lambda: {"a": object()},
    "function": lambda: {"a": len},
    "exception": lambda: {"a": ValueError("x")},
    "nested": lambda: nested(100),
    "large": lambda: [{"number": number, "text": "x" * 50} for number in range(2000)],
    "response": lambda: Response(b"raw", media_type="application/x-own", headers={"x-own": "1"}),
    "empty response": lambda: Response(status_code=204),
    "json response": lambda: JSONResponse({"a": 1}, 202),
    "text response": lambda: PlainTextResponse("é", 418),
    "html response": lambda: HTMLResponse("<p>"),
    "redirect": lambda: RedirectResponse("/elsewhere"),
    "stream": lambda: StreamingResponse(iter(["a", "b"]), media_type="text/x"),
    "file": lambda: FileResponse(__file__),
}


def cookies() -> Response:
    response = JSONResponse([])
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


VALUES["response that sets cookies"] = cookies


def both(endpoint_of: Callable[[], tuple[Any, Any]]) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
    plain, delegate = endpoint_of()
    app = FastAPI()
    app.add_api_route("/x", plain)
    service = make_service(APIEndpoint("GET", "/x", toto_delegate(delegate)))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test"), service.client(make_token(KEY, "me"))


async def compare(endpoint_of: Callable[[], tuple[Any, Any]]) -> httpx.Response:
    fastapi, ours = both(endpoint_of)
    async with fastapi, ours:
        expected, answer = await fastapi.get("/x"), await ours.get("/x")
    assert answer.status_code == expected.status_code
    if expected.status_code == 500:
        assert answer.json()["message"] == "Internal server error"
        return answer
    assert answer.headers.get("content-type") == expected.headers.get("content-type")
    for name in set(expected.headers) - {"content-length"}:
        assert answer.headers.get_list(name) == expected.headers.get_list(name), name
    if "json" in expected.headers.get("content-type", "") and "jsonl" not in expected.headers["content-type"]:
        assert same(answer.json(), expected.json())
    else:
        assert answer.content == expected.content
    return answer


def same(one: Any, other: Any) -> bool:
    # By repr as well: 1, 1.0 and True are equal, but not the same JSON.
    return bool(one == other) and repr(one) == repr(other)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_value_is_answered_as_by_fastapi(name: str, kind: str) -> None:
    make = VALUES[name]

    def endpoints() -> tuple[Any, Any]:
        async def plain():  # type: ignore[no-untyped-def]
            return make()

        async def delegate(request, user_context, exec_context):  # type: ignore[no-untyped-def]
            return make()

        def plain_sync():  # type: ignore[no-untyped-def]
            return make()

        def delegate_sync(request, user_context, exec_context):  # type: ignore[no-untyped-def]
            return make()

        return (plain, delegate) if kind == "async def" else (plain_sync, delegate_sync)

    await compare(endpoints)


class Public(BaseModel):
    name: str


class Private(Public):
    password: str = "hidden"


ANNOTATED: dict[str, tuple[Any, Callable[[], Any]]] = {
    "model filters what it does not declare": (Public, lambda: Private(name="n")),
    "model from a dict": (Public, lambda: {"name": "n", "password": "hidden"}),
    "list of models": (list[Public], lambda: [Private(name="n")]),
    "dict": (dict[str, Any], lambda: {"a": Decimal("1.5"), "b": None, "c": 0.5}),
    "dataclass": (Point, lambda: Point(1)),
    "none": (type(None), lambda: None),
    "any": (Any, lambda: {"a": 1}),
    "response": (Response, lambda: PlainTextResponse("x")),
    "response despite a model": (Public, lambda: PlainTextResponse("x")),
    "what is not as declared": (Public, lambda: {"nome": "n"}),
    "string": (str, lambda: "x"),
    "converted": (int, lambda: "7"),
}


@pytest.mark.parametrize("name", ANNOTATED)
async def test_return_annotation_counts_as_with_fastapi(name: str) -> None:
    annotation, make = ANNOTATED[name]

    def endpoints() -> tuple[Any, Any]:
        async def plain():  # type: ignore[no-untyped-def]
            return make()

        async def delegate(request, user_context, exec_context):  # type: ignore[no-untyped-def]
            return make()

        plain.__annotations__["return"] = delegate.__annotations__["return"] = annotation
        return plain, delegate

    answer = await compare(endpoints)
    assert '"hidden"' not in answer.text


class Measured(BaseModel):
    value: Any
    maybe: int | None = None


NOT_A_NUMBER: dict[str, tuple[Any, Callable[[], Any]]] = {
    "in a model": (None, lambda: Measured(value=float("nan"))),
    "in a model in a list": (
        None,
        lambda: [Measured(value=[float("inf")])],
    ),
    "in a dataclass": (None, lambda: {"a": Point(1, Decimal("NaN"))}),
    "in a model that is declared": (Measured, lambda: Measured(value=float("nan"))),
    "in a dictionary that is declared": (dict[str, Any], lambda: {"a": {"b": float("-inf")}}),
    "in a model in a list that is declared": (list[Measured], lambda: [{"value": float("nan")}]),
}


@pytest.mark.parametrize("way", ["short", "fastapi's"])
@pytest.mark.parametrize("name", NOT_A_NUMBER)
async def test_nan_is_500_and_logged_where_fastapi_would_write_null(name: str, way: str, log: Log) -> None:
    annotation, make = NOT_A_NUMBER[name]
    if way == "fastapi's" and annotation is None:
        make = partial(dict, a=float("nan"))  # what pydantic infers the form of in a model, FastAPI itself makes null

    async def delegate(request, user_context, exec_context):  # type: ignore[no-untyped-def]
        return make()

    async def with_parameter(request, user_context, exec_context, limit: int = 1):  # type: ignore[no-untyped-def]
        return make()

    function = delegate if way == "short" else with_parameter
    if annotation is not None:
        function.__annotations__["return"] = annotation
    service = make_service(APIEndpoint("GET", "/x", toto_delegate(function)))
    async with service.client(make_token(KEY, "me")) as client:
        answer = await client.get("/x")
    assert answer.status_code == 500
    assert answer.json()["message"] == "Internal server error"
    (error,) = [record for record in log.records() if record["severity"] == "ERROR"]
    assert "Traceback" in error["exception"] or "File " in error["exception"]
    if annotation is not None or way == "short":
        assert "cannot be written as JSON: it holds NaN or infinity" in error["exception"]


@pytest.mark.parametrize("value", [object(), {"a": len}, {"a": "\ud800"}, b"\xff", {"a": float("nan")}])
async def test_what_json_cannot_hold_is_500_and_logged(value: Any, log: Log) -> None:
    async def delegate(request, user_context, exec_context):  # type: ignore[no-untyped-def]
        return value

    service = make_service(APIEndpoint("GET", "/x", toto_delegate(delegate)))
    async with service.client(make_token(KEY, "me")) as client:
        assert (await client.get("/x")).status_code == 500
    (error,) = [record for record in log.records() if record["severity"] == "ERROR"]
    assert "totoms.errors.NotSerializable: The delegate's result cannot be written as JSON" in error["exception"]


async def test_none_next_to_numbers_is_written() -> None:
    async def delegate(request, user_context, exec_context) -> list[Measured]:  # type: ignore[no-untyped-def]
        return [Measured(value={"a": [1.5, None, Decimal(2)]})]

    service = make_service(APIEndpoint("GET", "/x", toto_delegate(delegate)))
    async with service.client(make_token(KEY, "me")) as client:
        assert (await client.get("/x")).json() == [{"value": {"a": [1.5, None, "2"]}, "maybe": None}]


async def items() -> AsyncIterator[dict[str, int]]:
    for number in range(3):
        yield {"n": number}


async def delegate_items(
    request: Request, user_context: UserContext, exec_context: ExecutionContext
) -> AsyncIterator[dict[str, int]]:
    for number in range(3):
        yield {"n": number}


def sync_items() -> Iterator[str]:
    yield from "abc"


def delegate_sync_items(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Iterator[str]:
    yield from "abc"


@pytest.mark.parametrize("pair", [(items, delegate_items), (sync_items, delegate_sync_items)], ids=["async", "sync"])
async def test_generator_is_streamed_as_by_fastapi(pair: tuple[Any, Any]) -> None:
    await compare(lambda: pair)


async def test_background_of_a_response_runs() -> None:
    done: list[str] = []

    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Response:
        tasks = BackgroundTasks([BackgroundTask(done.append, "first")])
        tasks.add_task(done.append, "second")
        return JSONResponse({}, background=tasks)

    service = make_service(APIEndpoint("GET", "/x", toto_delegate(delegate)))
    async with service.client(make_token(KEY, "me")) as client:
        assert (await client.get("/x")).status_code == 200
    assert done == ["first", "second"]


async def test_stream_of_a_response_arrives_piece_by_piece() -> None:
    reached = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await reached.wait()
        yield b"second"

    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Response:
        return StreamingResponse(pieces())

    service = make_service(APIEndpoint("GET", "/x", toto_delegate(delegate)))
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        if message.get("body") == b"first":
            reached.set()

    async def receive() -> Any:
        await asyncio.Event().wait()

    headers = [(b"authorization", b"Bearer " + make_token(KEY, "me").encode())]
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": headers, "query_string": b""}
    await asyncio.wait_for(service.app(scope, receive, send), 120)
    assert b"".join(sent) == b"firstsecond"


def test_values_are_what_they_claim() -> None:
    assert json.loads(json.dumps({"a": 1})) == {"a": 1}
    assert len(VALUES) > 60


# --- with a status that the endpoint declares ---


STATUSES = [200, 201, 202, 203, 204, 205, 206, 207, 304, 404, 422, 503, HTTPStatus.CREATED]
RESULTS: dict[str, Callable[[], Any]] = {
    "object": lambda: {"created": "é"},
    "nothing": lambda: None,
    "model": Outer,
    "response": lambda: JSONResponse({"a": 1}, 418),
    "object that is not JSON": object,
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("behind_middleware", [False, True])
async def test_declared_status_is_answered_as_by_fastapi(status: int, name: str, behind_middleware: bool) -> None:
    make = RESULTS[name]

    async def plain():  # type: ignore[no-untyped-def]
        return make()

    async def delegate(request, user_context, exec_context):  # type: ignore[no-untyped-def]
        return make()

    app = FastAPI()
    app.add_api_route("/x", plain, status_code=status)
    service = make_service(APIEndpoint("GET", "/x", toto_delegate(delegate), status_code=status))
    if behind_middleware:
        service.app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    for method in ("GET", "HEAD"):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            expected = await client.get("/x")
        async with service.client(make_token(KEY, "me")) as client:
            answer = await client.request(method, "/x")
        assert answer.status_code == expected.status_code
        if expected.status_code == 500:
            continue
        assert answer.headers.get("content-type") == expected.headers.get("content-type")
        assert answer.headers.get("content-length") == expected.headers.get("content-length")
        assert answer.content == (expected.content if method == "GET" else b"")


@pytest.mark.parametrize("status", STATUSES)
async def test_declared_status_is_fast_where_the_length_of_the_body_is_right(status: int) -> None:
    async def delegate(request, user_context, exec_context):  # type: ignore[no-untyped-def]
        return None

    service = make_service(APIEndpoint("GET", "/x", toto_delegate(delegate), status_code=status))
    route = next(one for one in service.app.routes if isinstance(one, DelegateRoute) and one.path == "/x")
    assert route.fast == (status not in (205, 304))
