"""Around a delegate happens what happens in a plain FastAPI app, with middleware and without."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.convertors import CONVERTOR_TYPES, Convertor, register_url_convertor
from starlette.middleware import exceptions

from support.http.app import KEY, Log, make_service
from totoms import APIEndpoint, ExecutionContext, UserContext, toto_delegate
from totoms.auth.tokens import make_token
from totoms.http import private_api
from totoms.http.shortcut import Shortcut

APPS = ["short cut", "middleware"]


class Refused(Exception):
    pass


class Conflict(Exception):
    pass


class Chained(Exception):
    pass


async def failing(request: Request) -> None:
    kinds: dict[str, Callable[[], Exception]] = {
        "class": Refused,
        "sync": Conflict,
        "status": lambda: HTTPException(418, "teapot"),
        "chained": Chained,
        "unexpected": RuntimeError,
    }
    await request.json()
    raise kinds[request.query_params["kind"]]()


async def on_refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"refused": await request.json(), "path": request.path_params}, 409)


def on_conflict(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({"conflict": True}, 410)


async def on_teapot(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"teapot": str(error)}, 418)


async def on_chained(_request: Request, error: Exception) -> JSONResponse:
    raise HTTPException(418, "chained") from error


async def on_unexpected(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"unexpected": type(error).__name__}, 500)


def with_handlers(app: FastAPI) -> FastAPI:
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(Conflict, on_conflict)
    app.add_exception_handler(418, on_teapot)
    app.add_exception_handler(Chained, on_chained)
    app.add_exception_handler(Exception, on_unexpected)
    return app


def service_app(kind: str, function: Any, *paths: str, method: str = "POST") -> FastAPI:
    delegate = toto_delegate(function)
    service = make_service(*(APIEndpoint(method, path, delegate) for path in paths))
    if kind == "middleware":

        @service.app.middleware("http")
        async def passing(request: Request, call_next: Any) -> Any:
            return await call_next(request)

    return service.app


async def ask(app: FastAPI, path: str, method: str = "POST", **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {make_token(KEY, 'me')}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        return await client.request(method, path, **options)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that took the short cut."""
    found: list[str] = []
    serve = Shortcut.serve

    async def recording(self: Shortcut, route: Any, scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["path"])
        await serve(self, route, scope, receive, send)

    monkeypatch.setattr(Shortcut, "serve", recording)
    return found


async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> None:
    await failing(request)


@pytest.mark.parametrize("raised", ["class", "sync", "status", "chained", "unexpected"])
@pytest.mark.parametrize("path", ["/fail", "/fail/7"])
@pytest.mark.parametrize("kind", APPS)
async def test_exception_gets_the_response_of_the_apps_handler(
    kind: str, path: str, raised: str, taken: list[str]
) -> None:
    plain = with_handlers(FastAPI())
    for one in ("/fail", "/fail/{number}"):
        plain.add_api_route(one, failing, methods=["POST"])
    ours = with_handlers(service_app(kind, delegate, "/fail", "/fail/{number}"))
    expected, answer = [await ask(app, f"{path}?kind={raised}", json=[1]) for app in (plain, ours)]
    assert expected.status_code in (409, 410, 418, 500)
    assert (answer.status_code, answer.json()) == (expected.status_code, expected.json())
    assert answer.headers["x-correlation-id"]
    assert taken == ([path] if kind == "short cut" else [])


async def test_exception_handler_without_the_key_in_the_scope_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("totoms.http.shortcut.EXCEPTION_HANDLERS", "gone")
    app = with_handlers(service_app("short cut", delegate, "/fail"))
    assert (await ask(app, "/fail?kind=sync", json=[1])).json() == {"conflict": True}


def test_starlette_reads_the_handlers_under_the_key() -> None:
    assert f'"{private_api.EXCEPTION_HANDLERS}"' in inspect.getsource(exceptions)


@pytest.mark.parametrize("kind", APPS)
async def test_handler_that_is_added_after_the_first_request_does_not_count(kind: str) -> None:
    app = with_handlers(service_app(kind, delegate, "/fail"))
    del app.exception_handlers[Conflict]
    assert (await ask(app, "/fail?kind=sync", json=[1])).status_code == 500
    app.add_exception_handler(Conflict, on_conflict)
    assert (await ask(app, "/fail?kind=sync", json=[1])).status_code == 500


@pytest.mark.parametrize("kind", APPS)
async def test_debug_shows_the_stack_as_in_starlette(kind: str) -> None:
    app = service_app(kind, delegate, "/fail")
    app.debug = True
    answer = await ask(app, "/fail?kind=unexpected", json=[1])
    assert answer.status_code == 500
    assert "Traceback" in answer.text


@pytest.mark.parametrize("kind", APPS)
async def test_exception_after_the_start_of_the_response_is_logged_and_gets_no_second_one(kind: str, log: Log) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"some"
        raise Refused

    async def streams(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return StreamingResponse(chunks())

    app = with_handlers(service_app(kind, streams, "/stream", method="GET"))
    sent: list[str] = []
    token = make_token(KEY, "me").encode()
    scope = {"type": "http", "method": "GET", "path": "/stream", "query_string": b""}
    scope["headers"] = [(b"authorization", b"Bearer " + token)]

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app(scope, receive, send)
    assert sent.count("http.response.start") == 1
    assert any("GET /stream failed" in line for line in log.lines)


class Even(Convertor[int]):
    regex = "[0-9]+"

    def convert(self, value: str) -> int:
        if int(value) % 2:
            raise HTTPException(418, "odd")
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


@pytest.mark.parametrize("kind", APPS)
async def test_converter_that_fails_is_answered_by_the_apps_handler(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONVERTOR_TYPES, "even", Even())
    register_url_convertor("even", Even())

    async def shows(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return request.path_params

    app = with_handlers(service_app(kind, shows, "/x/{number:even}", method="GET"))
    assert (await ask(app, "/x/2", "GET")).json() == {"number": 2}
    assert (await ask(app, "/x/3", "GET")).json() == {"teapot": "418: odd"}


async def test_route_of_the_users_before_a_path_with_parameters_serves(taken: list[str]) -> None:
    async def shows(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return {"delegate": request.path_params}

    app = service_app("short cut", shows, "/x/{number}", method="GET")

    @app.get("/x/me")
    async def me() -> Any:
        return {"plain": True}

    app.router.routes.insert(0, app.router.routes.pop())
    assert (await ask(app, "/x/me", "GET")).json() == {"plain": True}
    assert (await ask(app, "/x/1", "GET")).json() == {"delegate": {"number": "1"}}
    assert (await ask(app, "/x/1", "HEAD")).content == b""
    assert (await ask(app, "/x/1", "PUT")).status_code == 405
    assert taken == ["/x/1", "/x/1"]
    assert json.loads((await ask(app, "/x/a%20b", "GET")).text) == {"delegate": {"number": "a b"}}


async def test_router_with_middleware_of_its_own_sees_every_request(taken: list[str]) -> None:
    async def shows(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return {}

    app = service_app("short cut", shows, "/x", method="GET")
    seen: list[str] = []
    inner = app.router.middleware_stack

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await inner(scope, receive, send)

    app.router.middleware_stack = watching
    assert (await ask(app, "/x", "GET")).status_code == 200
    assert (seen, taken) == (["/x"], [])


async def test_delegate_with_a_path_parameter_is_authenticated_on_the_short_cut(taken: list[str]) -> None:
    app = service_app("short cut", delegate, "/fail/{number}")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = [await client.post("/fail/7", headers=one) for one in ({}, {"authorization": "Bearer x"})]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert [answer.headers["www-authenticate"] for answer in answers] == ["Bearer", 'Bearer error="invalid_token"']
    assert taken == ["/fail/7", "/fail/7"]
