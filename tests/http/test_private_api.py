"""The undocumented members of FastAPI, Starlette and uvicorn that totoms uses exist, and each fallback works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastapi.routing
import pytest
import starlette.applications
import uvicorn.server
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from support.http.app import make_service
from totoms import APIEndpoint, UserContext, ValidationError, public, toto_delegate
from totoms.http import private_api
from totoms.http.app import TotoAPI
from totoms.http.requests import TotoRequest
from totoms.http.routes import DelegateRoute
from totoms.http.server.protocol import HTTPProtocol
from totoms.http.server.server import uvicorn_config


async def own(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("own")


@toto_delegate
async def delegate(request: Request, user_context: UserContext, exec_context: Any) -> dict[str, str]:
    if request.query_params.get("fail"):
        raise ValidationError("not a number")
    return {"user": "u"}


def service_with(route_delegate: Any = delegate) -> Any:
    return make_service(APIEndpoint("GET", "/x", route_delegate, public=True))


# --- FastAPI: included routers ---


def included_router(path: str = "/x", prefix: str = "/p") -> tuple[APIRouter, BaseRoute]:
    app, router = FastAPI(), APIRouter()
    router.add_api_route(path, own)
    app.include_router(router, prefix=prefix)
    return router, app.router.routes[-1]


def test_routes_of_an_included_router_are_found() -> None:
    router, included = included_router()
    assert private_api.is_included(included)
    assert private_api.router_of(included) is router
    assert list(private_api.routes_of(included)) == [(router.routes[0], "/p/x")]
    scope = {"type": "http", "method": "GET", "path": "/p/x", "headers": []}
    assert private_api.match_included(included, scope)[1:] == (router.routes[0], "/p/x")


@pytest.mark.parametrize("member", ["effective_candidates", "_match"])
def test_without_a_member_no_router_counts_as_included(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fastapi.routing._IncludedRouter, member)  # type: ignore[attr-defined]
    assert private_api._included_router() is None


async def test_without_them_an_included_router_is_closed_unless_it_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_api, "_Included", None)
    service = make_service()
    router = APIRouter()
    router.add_api_route("/x", own)
    public(router.routes[-1])
    service.app.include_router(router)
    async with service.client() as client:
        assert (await client.get("/x")).status_code == 401


# --- FastAPI: fallback routes and documentation ---


@pytest.mark.parametrize("opened", [False, True])
async def test_front_end_of_fastapi_is_closed_unless_its_router_is_public(opened: bool, tmp_path: Path) -> None:
    if not hasattr(APIRouter, "frontend"):
        pytest.skip("this FastAPI has no front ends")
    (tmp_path / "index.html").write_text("<p>front</p>")
    service, router = make_service(), APIRouter()
    router.frontend("/", directory=str(tmp_path))
    service.app.include_router(public(router) if opened else router, prefix="/web")
    async with service.client() as client:
        answer = await client.get("/web/")
        assert answer.status_code == (200 if opened else 401)
        assert (await client.get("/nowhere")).status_code == 404


def test_fallback_routes_have_their_members() -> None:
    router = FastAPI().router
    assert hasattr(router, "_match_low_priority")
    assert hasattr(router, "_low_priority_routes")


async def test_without_the_member_what_no_route_matches_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(APIRouter, "frontend"):
        pytest.skip("this FastAPI has no front ends")
    service = service_with()
    match = private_api.match_fallbacks

    class Hidden:
        frontend = True

    monkeypatch.setattr(private_api, "match_fallbacks", lambda _router, scope: match(Hidden(), scope))
    async with service.client() as client:
        assert (await client.get("/nowhere")).status_code == 401
        assert (await client.get("/x")).status_code == 200


def test_documentation_is_recognised() -> None:
    app = FastAPI()
    assert [route.path for route in app.routes if private_api.is_documentation(route.endpoint)] == [  # type: ignore[attr-defined]
        "/openapi.json",
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
    ]
    assert not private_api.is_documentation(own)


# --- the fast path ---


def test_stock_functions_are_recognised() -> None:
    assert private_api.is_stock(starlette.applications.Starlette.__call__, starlette.applications)
    assert private_api.has_stock_handler()
    assert not private_api.is_stock(own, starlette.applications)


def test_without_get_request_handler_there_is_no_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fastapi.routing, "get_request_handler")
    assert not private_api.has_stock_handler()


FIELDS = ["response_class", "status_code", "dependencies", "response_model_include", "response_model_exclude"]
FIELDS += ["response_model_exclude_unset", "response_model_exclude_defaults", "response_model_exclude_none"]
FIELDS += ["response_model_by_alias", "response_field"]


@pytest.mark.parametrize("field", FIELDS)
def test_without_a_field_of_the_route_there_is_no_fast_path(field: str) -> None:
    route = DelegateRoute("/x", delegate)
    assert private_api.has_plain_response(route)
    delattr(route, field)
    assert not private_api.has_plain_response(route)


def test_response_field_validates_and_serializes() -> None:
    route = DelegateRoute("/x", delegate)
    field = private_api.response_field_of(route)
    assert field is not None
    assert field.validate({"user": "u"}, {}, loc=("response",)) == ({"user": "u"}, [])
    assert field.serialize_json({"user": "u"}) == b'{"user":"u"}'
    route.response_field = object()  # type: ignore[assignment]
    assert private_api.response_field_of(route) is None
    assert not private_api.has_plain_response(route)


def test_telemetry_is_asked() -> None:
    app = FastAPI()
    if private_api.TELEMETRY not in private_api.sys.modules:
        pytest.skip("this FastAPI has no telemetry")
    assert app._native_telemetry.enabled() is False
    assert not private_api.is_traced(app)


def test_without_the_member_telemetry_counts_as_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(private_api.sys.modules, private_api.TELEMETRY, private_api)
    assert private_api.is_traced(object())
    monkeypatch.delitem(private_api.sys.modules, private_api.TELEMETRY)
    assert not private_api.is_traced(object())


def test_only_stock_routes_match_by_their_template() -> None:
    class Own(Route):
        def matches(self, scope: Any) -> Any:
            return super().matches(scope)

    assert private_api.matches_by_template(Route("/x", own))
    assert private_api.matches_by_template(DelegateRoute("/x", delegate))
    assert not private_api.matches_by_template(Own("/x", own))
    assert not private_api.matches_by_template(Mount("/x", app=own))


@pytest.mark.parametrize("field", private_api._ROUTE_FIELDS)
def test_without_a_field_a_route_is_not_indexed(field: str) -> None:
    route = Route("/x", own)
    delattr(route, field)
    assert not private_api.matches_by_template(route)


def test_only_stock_routes_reject_methods_without_running_code() -> None:
    class Own(Route):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            await super().handle(scope, receive, send)

    assert private_api.only_rejects_methods(Route("/x", own))
    assert not private_api.only_rejects_methods(Own("/x", own))
    assert not private_api.only_rejects_methods(object())


@pytest.mark.parametrize("field", ["default", "middleware_stack"])
def test_router_that_may_run_code_without_a_route_is_recognised(field: str) -> None:
    router = FastAPI().router
    assert private_api.only_responds_not_found(router)
    delattr(router, field)
    assert not private_api.only_responds_not_found(router)


def test_router_that_runs_code_before_its_routes_is_recognised() -> None:
    class Own(APIRouter):
        pass

    assert private_api.runs_routes_only(FastAPI().router)
    assert not private_api.runs_routes_only(Own())
    router = FastAPI().router
    del router.middleware_stack
    assert not private_api.runs_routes_only(router)


def test_innermost_app_of_a_stack_is_found_or_the_first_foreign_middleware() -> None:
    app = service_with().app
    assert isinstance(app, TotoAPI)
    stack = app.build_middleware_stack()
    assert type(private_api.innermost(stack, ("fastapi.", "starlette.middleware."))).__name__ == "Gate"
    assert private_api.innermost(stack, ("elsewhere.",)) is stack


# --- Starlette ---


@pytest.mark.parametrize("member", ["there", "gone"])
@pytest.mark.parametrize("path", ["/x", "/item/1"])
async def test_exception_handlers_respond(member: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert private_api._wrap is not None
    if member == "gone":
        monkeypatch.setattr(private_api, "_wrap", None)
    endpoints = [APIEndpoint("GET", one, delegate, public=True) for one in ("/x", "/item/{number}")]
    async with make_service(*endpoints).client() as client:
        answer = await client.get(path, params={"fail": "1"})
    assert (answer.status_code, answer.json()["message"]) == (400, "not a number")


async def test_send_of_a_request_is_found_or_raises() -> None:
    async def receive() -> Any: ...
    async def send(message: Any) -> None: ...

    request = Request({"type": "http", "headers": []}, receive, send)
    assert private_api.send_of(request) is send
    del request._send
    with pytest.raises(RuntimeError, match="not been made available"):
        await private_api.send_of(request)({})


async def test_request_reads_its_body_without_starlettes_private_attributes() -> None:
    messages = [{"type": "http.request", "body": b"[1,", "more_body": True}, {"type": "http.request", "body": b"2]"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None: ...

    request = TotoRequest({"type": "http", "headers": []}, receive, send)
    del request._stream_consumed
    assert await request.json() == [1, 2]
    assert await request.body() == b"[1,2]"
    assert [chunk async for chunk in request.stream()] == [b"[1,2]", b""]


# --- uvicorn ---


def test_uvicorn_shares_what_the_protocol_needs() -> None:
    config = uvicorn_config(service_with().app, 1)
    assert isinstance(config.http, type)
    assert issubclass(config.http, HTTPProtocol)
    config.load()
    assert type(config.loaded_app) is ProxyHeadersMiddleware
    assert private_api.loaded_app(config) is config.loaded_app
    assert private_api.without_proxy_headers(config.loaded_app) is config.app
    assert private_api.without_proxy_headers(own) is own
    assert private_api.asgi_version_of(config) == config.asgi_version == "3.0"
    assert private_api.websocket_protocol(config) is config.ws_protocol_class  # None without a WebSocket library


def test_without_its_members_the_bare_app_is_served_without_websockets() -> None:
    config = uvicorn_config(service_with().app, 1)
    config.load()
    del config.loaded_app
    assert private_api.loaded_app(config) is config.app
    assert private_api.websocket_protocol(config) is None


@pytest.mark.parametrize("member", private_api._SERVER_STATE)
def test_without_a_member_of_the_state_uvicorns_own_protocol_serves(
    member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class State:
        def __init__(self) -> None:
            for name in private_api._SERVER_STATE:
                if name != member:
                    setattr(self, name, None)

    monkeypatch.setattr(uvicorn.server, "ServerState", State)
    assert uvicorn_config(service_with().app, 1).http == "auto"


@pytest.mark.parametrize("member", private_api._CONFIG)
def test_without_a_member_of_the_configuration_uvicorns_own_protocol_serves(
    member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = uvicorn_config(service_with().app, 1)
    monkeypatch.delattr(uvicorn.Config if member == "load" else config, member)
    assert not private_api.supports_protocols(config)
