"""What holds for every request: paths of the service itself, correlation id, CORS, limits, hosts, routing."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from support.http.app import KEY, Log, Service, Settings, make_service
from totoms import APIEndpoint, ConfigurationError, CORSConfiguration, ExecutionContext, UserContext, toto_delegate
from totoms.auth.tokens import make_token
from totoms.context import current_cid, current_traceparent
from totoms.http.routes import DelegateRoute, RouteIndex


@toto_delegate
async def told(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    trace = current_traceparent()
    return {"cid": exec_context.cid, "current": current_cid.get(), "trace": trace, "params": dict(request.path_params)}


@toto_delegate
async def length(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return len(await request.body())


@toto_delegate
async def declared(
    request: Request, user_context: UserContext, exec_context: ExecutionContext, body: dict[str, Any]
) -> Any:
    return len(body)


@toto_delegate
async def names(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    form = await request.form()
    return [file.filename for file in form.getlist("file")]  # type: ignore[union-attr]


async def ask(service: Service, method: str = "GET", path: str = "/x", **options: Any) -> httpx.Response:
    async with service.client(make_token(KEY, "me")) as client:
        return await client.request(method, path, **options)


# --- the service's own paths ---


@pytest.mark.parametrize("path", ["/", "/health"])
async def test_health_is_never_under_the_base_path_and_needs_no_token(path: str) -> None:
    service = make_service(base_path="/api", config=Settings(key=None))
    async with service.client() as client:
        answer = await client.get(path)
        head = await client.head(path)
        below = await client.get("/api" + path)
    assert answer.json().items() >= {"status": "ok", "apiName": "tested", "message": "Service is running"}.items()
    assert (head.status_code, below.status_code) == (200, 404)


async def test_ready_names_topics_that_await_their_subscription() -> None:
    service = make_service()
    service.awaited_topics.append("posts")
    async with service.client() as client:
        answer = await client.get("/ready")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "topics": {"posts": "awaiting subscription"}}


@pytest.mark.parametrize("state", ["starting", "ready", "draining", "stopped"])
async def test_ready_follows_the_state(state: str) -> None:
    service = make_service()
    service.state = state
    async with service.client() as client:
        answer = await client.get("/ready")
        health = await client.get("/health")
    assert answer.status_code == (200 if state == "ready" else 503)
    assert health.status_code == 200
    if state == "ready":
        assert answer.json() == {"status": "ready"}
    else:
        assert set(answer.json()) == {"code", "message", "cid", "detail"}
        assert "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", ""),
        ("GET", "/health"),
        ("HEAD", "/health"),
        ("GET", "/ready"),
        ("GET", "/docs"),
        ("GET", "/redoc"),
        ("GET", "/openapi.json"),
        ("POST", "/events"),
    ],
)
def test_endpoint_on_a_path_of_the_service_is_refused_by_name(method: str, path: str) -> None:
    async def push(request: Request) -> Any: ...

    with pytest.raises(ConfigurationError, match=f"{method} {path or '/'} is taken"):
        make_service(APIEndpoint(method, path, told), push=push)


def test_other_methods_and_deeper_paths_are_free() -> None:
    make_service(
        APIEndpoint("POST", "/", told), APIEndpoint("GET", "/events", told), APIEndpoint("POST", "/health", told)
    )
    make_service(APIEndpoint("GET", "/", told), APIEndpoint("GET", "/health", told), base_path="/api")


async def test_push_is_served_below_the_base_path_without_our_authentication(log: Log) -> None:
    async def push(request: Request) -> Any:
        return JSONResponse({"got": (await request.body()).decode()})

    service = make_service(base_path="/api", push=push, docs=True)
    async with service.client() as client:
        assert (await client.post("/api/events", content="x")).json() == {"got": "x"}
        assert (await client.get("/api/events")).status_code == 405
        assert "/api/events" not in (await client.get("/openapi.json")).text
    async with make_service(base_path="/api").client() as client:
        assert (await client.post("/api/events", content="x")).status_code == 404


async def test_options_reach_the_push_endpoint_only_as_a_handshake(log: Log) -> None:
    async def push(request: Request) -> Any:
        return JSONResponse({"method": request.method}, headers={"webhook-allowed-origin": "broker.example"})

    for middleware in (False, True):
        service = make_service(base_path="/api", push=push, cors=None)
        if middleware:  # then the edge does not answer by itself
            service.app.add_middleware(GZipMiddleware)
        async with service.client(**{"x-correlation-id": "c"}) as client:
            asked = await client.options("/api/events", headers={"WebHook-Request-Origin": "broker.example"})
            assert (asked.status_code, asked.json()) == (200, {"method": "OPTIONS"})
            assert asked.headers["webhook-allowed-origin"] == "broker.example"
            for answer in (await client.options("/api/events"), await client.put("/api/events")):
                assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
                assert answer.json() == {
                    "code": 405,
                    "message": "Method Not Allowed",
                    "cid": "c",
                    "detail": "Method Not Allowed",
                }


async def test_preflight_of_the_push_endpoint_is_answered_as_any_other() -> None:
    async def push(_request: Request) -> Any:
        raise AssertionError("a preflight is no push")

    headers = {"origin": "https://a.example", "webhook-request-origin": "broker.example", **PREFLIGHT}
    async with make_service(push=push, cors=CORSConfiguration(allow_origins=["https://a.example"])).client() as client:
        answer = await client.options("/events", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


async def test_endpoints_go_on_being_served_while_draining() -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    service.state = "draining"
    assert (await ask(service)).status_code == 200


# --- correlation id ---


@pytest.mark.parametrize("cid", ["abc", "a" * 128, "A-z.0_9:/+=@~"])
async def test_sane_correlation_id_is_taken(cid: str, log: Log) -> None:
    answer = await ask(make_service(APIEndpoint("GET", "/x", told)), headers={"x-correlation-id": cid})
    assert answer.json()["cid"] == answer.json()["current"] == answer.headers["x-correlation-id"] == cid
    assert log.records()[-1]["cid"] == cid


@pytest.mark.parametrize("cid", ["", " ", "a b", "a" * 129, "a\tb", 'a"b', "a{b", "\x1b[31m", "é"])
async def test_other_correlation_id_is_replaced(cid: str, log: Log) -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    answer = await ask(service, headers=[(b"x-correlation-id", cid.encode())])
    made = answer.headers["x-correlation-id"]
    assert len(made) == 32
    assert answer.json()["cid"] == made
    assert len({(await ask(service)).headers["x-correlation-id"] for _ in range(20)}) == 20


async def test_every_answer_has_the_correlation_id() -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    async with service.client() as client:
        for path in ("/", "/health", "/ready", "/docs", "/openapi.json", "/nowhere", "/x", "/x/"):
            answer = await client.get(path, headers={"x-correlation-id": "c"})
            assert answer.headers.get_list("x-correlation-id") == ["c"], path


async def test_traceparent_is_remembered_for_the_request_only() -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert (await ask(service, headers={"traceparent": trace})).json()["trace"] == trace
    assert (await ask(service, headers={"traceparent": "nonsense"})).json()["trace"] == ""
    assert (await ask(service)).json()["trace"] == ""


async def test_one_line_per_request_without_query_and_user(log: Log) -> None:
    await ask(make_service(APIEndpoint("GET", "/x", told)), path="/x?token=canary", headers={"x-correlation-id": "c"})
    (record,) = log.records()
    assert record["message"].startswith("GET /x 200 ")
    assert record["message"].endswith(" ms")
    assert record["service"] == "tested"
    assert "canary" not in log.text
    assert "me" not in record["message"].split()


async def test_path_cannot_forge_a_line(log: Log) -> None:
    await ask(make_service(), path="/a%0a%1b[31m%e2%80%a8b")
    assert len(log.lines) == 1
    assert "\\n" in log.records()[0]["message"]
    assert "\x1b" not in log.text


# --- CORS ---

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-own"}


async def test_any_origin_is_allowed_by_default_without_credentials() -> None:
    service = make_service(APIEndpoint("POST", "/x", told))
    answer = await ask(service, "POST", headers={"origin": "https://any.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert "x-correlation-id" in answer.headers["access-control-expose-headers"]
    async with service.client() as client:
        preflight = await client.options("/x", headers={"origin": "https://any.example", **PREFLIGHT})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "authorization,x-own"
    assert preflight.headers["access-control-max-age"] == "600"


def named(**more: Any) -> Service:
    cors = CORSConfiguration(allow_origins=["https://good.example", "https://two.example"], **more)
    return make_service(APIEndpoint("GET", "/x", told), cors=cors)


async def test_named_origin_is_echoed_with_vary() -> None:
    answer = await ask(named(allow_credentials=True), headers={"origin": "https://two.example"})
    assert answer.headers["access-control-allow-origin"] == "https://two.example"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://good.example.evil.example",
        "null",
        "https://GOOD.example",
        "http://good.example",
        "",
    ],
)
async def test_evil_origin_gets_no_permission(origin: str) -> None:
    service = named()
    answer = await ask(service, headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"
    async with service.client() as client:
        preflight = await client.options("/x", headers={"origin": origin, **PREFLIGHT})
    assert preflight.status_code == 400
    assert set(preflight.json()) == {"code", "message", "cid", "detail"}
    assert "access-control-allow-origin" not in preflight.headers


async def test_without_cors_there_are_no_such_headers() -> None:
    service = make_service(APIEndpoint("GET", "/x", told), cors=None)
    answer = await ask(service, headers={"origin": "https://any.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    async with service.client() as client:
        assert (await client.options("/x", headers={"origin": "https://a.example", **PREFLIGHT})).status_code == 405


async def test_private_network_is_not_opened_to_the_web() -> None:
    headers = {"origin": "https://a.example", **PREFLIGHT, "access-control-request-private-network": "true"}
    async with make_service(APIEndpoint("GET", "/x", told)).client() as client:
        answer = await client.options("/x", headers=headers)
    assert answer.status_code == 400
    assert "access-control-allow-private-network" not in answer.headers


async def test_options_endpoint_of_the_user_is_reached_without_preflight_headers() -> None:
    service = make_service(APIEndpoint("OPTIONS", "/x", told))
    assert (await ask(service, "OPTIONS", headers={"x-correlation-id": "c"})).json()["cid"] == "c"


async def test_cors_headers_of_the_users_own_are_left_alone() -> None:
    @toto_delegate
    async def own(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return PlainTextResponse(
            "x", headers={"access-control-allow-origin": "https://own.example", "x-correlation-id": "own"}
        )

    answer = await ask(make_service(APIEndpoint("GET", "/x", own)))
    assert answer.headers.get_list("access-control-allow-origin") == ["https://own.example"]
    assert answer.headers.get_list("x-correlation-id") == ["own"]


# --- limits ---


async def chunks(count: int, taken: list[int]) -> AsyncIterator[bytes]:
    yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    for number in range(count):
        taken.append(number)
        yield b"x" * 1000


LIMITED = [
    APIEndpoint("POST", "/x", length),
    APIEndpoint("POST", "/key/{key}", length),
    APIEndpoint("POST", "/declared", declared),
    APIEndpoint("POST", "/form", names),
]


@pytest.mark.parametrize("path", ["/x", "/key/1", "/declared", "/form"])
async def test_body_over_the_limit_is_refused_by_its_length(path: str) -> None:
    service = make_service(*LIMITED, max_body_bytes=5000)
    answer = await ask(service, "POST", path, content=b"x" * 5001)
    assert answer.status_code == 413
    assert set(answer.json()) == {"code", "message", "cid", "detail"}
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/x", "/key/1", "/declared", "/form"])
async def test_body_over_the_limit_is_refused_while_it_streams_in(path: str) -> None:
    service = make_service(*LIMITED, max_body_bytes=5000)
    taken: list[int] = []
    headers = {"content-type": "multipart/form-data; boundary=b" if path == "/form" else "application/json"}
    answer = await ask(service, "POST", path, content=chunks(1000, taken), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["code"] == 413
    assert len(taken) < 20


async def test_body_is_refused_before_the_caller_is_looked_at_and_length_may_lie() -> None:
    service = make_service(*LIMITED, max_body_bytes=5000)
    messages = [{"type": "http.request", "body": b"x" * 6000, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    token = b"Bearer " + make_token(KEY, "me").encode()
    headers = [(b"content-length", b"3"), (b"authorization", token)]
    await service.app(
        {"type": "http", "method": "POST", "path": "/x", "headers": headers, "query_string": b""}, receive, send
    )
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("size", [0, 1, 4999, 5000])
async def test_body_within_the_limit_passes(size: int) -> None:
    service = make_service(*LIMITED, max_body_bytes=5000)
    assert (await ask(service, "POST", content=b"x" * size)).json() == size

    async def streamed() -> AsyncIterator[bytes]:
        for start in range(0, size, 1000):
            yield b"x" * min(1000, size - start)

    assert (await ask(service, "POST", content=streamed())).json() == size


@pytest.mark.parametrize("name", ["../../../../tmp/canary", "/etc/passwd", "C:\\x", "a\x00b", "..", "a/../../b"])
async def test_file_name_that_climbs_is_only_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    service = make_service(APIEndpoint("POST", "/x", names))
    body = (
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="'
        + name.encode()
        + b'"\r\n\r\ncontent\r\n--b--\r\n'
    )
    answer = await ask(service, "POST", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code in (200, 400)
    assert list(tmp_path.iterdir()) == []
    assert not Path("/tmp/canary").exists()


async def test_many_files_and_fields_are_refused() -> None:
    service = make_service(APIEndpoint("POST", "/x", names))
    files = [("file", (f"f{number}", io.BytesIO(b"x"))) for number in range(1100)]
    assert (await ask(service, "POST", files=files)).status_code == 400


# --- hosts ---


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:8080",
        "test",
        "blog:8080",
        "me.localhost",
        "192.168.1.7:8080",
    ],
)
async def test_local_service_answers_to_this_machine(host: str) -> None:
    service = make_service(APIEndpoint("GET", "/x", told), host="127.0.0.1")
    assert (await ask(service, headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.localhost.example",
        "127.0.0.1@evil.example",
        "1.2.3.4.5",
        "",
        "[::1].evil.example",
        "localhost evil.example",
        "0x7f.1",
    ],
)
async def test_local_service_refuses_other_names(host: str) -> None:
    service = make_service(APIEndpoint("GET", "/x", told), host="127.0.0.1")
    for path in ("/x", "/health", "/nowhere"):
        answer = await ask(service, path=path, headers={"host": host})
        assert answer.status_code == 400
        assert set(answer.json()) == {"code", "message", "cid", "detail"}


async def test_local_service_refuses_two_names() -> None:
    service = make_service(APIEndpoint("GET", "/x", told), host="127.0.0.1")
    for hosts in (("localhost", "evil.example"), ("evil.example", "localhost"), ("localhost", "localhost")):
        headers = [("host", host) for host in hosts]
        assert (await ask(service, headers=headers)).status_code == 400
    # Other headers may come twice.
    assert (await ask(service, headers=[("x-a", "1"), ("x-a", "2")])).status_code == 200


@pytest.mark.parametrize("hosts", [("evil.example",), ("localhost", "evil.example"), ("evil.example", "localhost")])
@pytest.mark.parametrize("extension", [True, False])
async def test_local_service_refuses_websockets_by_other_names(hosts: tuple[str, ...], extension: bool) -> None:
    service = make_service(host="127.0.0.1", public_routes=["/ws"])
    ran: list[str] = []

    async def echo(websocket: WebSocket) -> None:
        ran.append("ran")
        await websocket.accept()
        await websocket.close()

    service.app.add_api_websocket_route("/ws", echo)

    async def talk(*names: str) -> list[Any]:
        sent: list[Any] = []
        events = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
        scope = {
            "type": "websocket",
            "path": "/ws",
            "query_string": b"",
            "subprotocols": [],
            "headers": [(b"host", name.encode()) for name in names],
            "extensions": {"websocket.http.response": {}} if extension else {},
        }

        async def receive() -> Any:
            return events.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await service.app(scope, receive, send)
        return sent

    refused = await talk(*hosts)
    assert ran == []
    if extension:
        assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 400)
    else:
        assert [(one["type"], one["code"]) for one in refused] == [("websocket.close", 1008)]
    assert (await talk("localhost:8080"))[0]["type"] == "websocket.accept"


async def test_service_in_a_cloud_answers_to_its_name() -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    assert (await ask(service, headers={"host": "blog.example.com"})).status_code == 200


# --- routing ---


def routes_like(service: Service) -> FastAPI:
    """Plain FastAPI with the same routes, to compare with."""
    app = FastAPI()

    async def endpoint(request: Request) -> Any:
        return {"params": dict(request.path_params), "path": request.scope["route"].path}

    for route in service.app.router.routes:
        if isinstance(route, APIRoute):
            app.add_api_route(route.path, endpoint, methods=list(route.methods))
    return app


@toto_delegate
async def matched(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return {"params": dict(request.path_params), "path": request.scope["route"].path}


TABLE = [
    ("GET", "/a"),
    ("POST", "/a"),
    ("GET", "/a/{x}"),
    ("GET", "/a/b"),
    ("PUT", "/a/b"),
    ("GET", "/c/"),
    ("GET", "/d/e"),
    ("GET", "/{any:path}/z"),
    ("GET", "/f/z"),
    ("HEAD", "/h"),
    ("GET", "/i/{n:int}"),
    ("GET", "/i/7"),
    ("DELETE", "/i/7"),
    ("GET", "/j%20k"),
    ("GET", "/é"),
]
ASKED = [
    "/a",
    "/a/",
    "/a/b",
    "/a/b/",
    "/a/other",
    "/c",
    "/c/",
    "/d/e",
    "/d",
    "/f/z",
    "/q/z",
    "/h",
    "/i/7",
    "/i/8",
    "/i/x",
    "/A",
    "/%2Fa",
    "/a//",
    "/%61",
    "/j%20k",
    "/j%2520k",
    "/é",
    "/d%2Fe",
    "/a?x=1",
]


async def test_routes_are_found_as_by_fastapi() -> None:
    service = make_service(*(APIEndpoint(method, path, matched) for method, path in TABLE))
    plain = routes_like(service)
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(plain), base_url="http://test") as fastapi,
        service.client(make_token(KEY, "me")) as ours,
    ):
        for method in ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"):
            for path in ASKED:
                expected, answer = await fastapi.request(method, path), await ours.request(method, path)
                assert answer.status_code == expected.status_code, (method, path)
                for name in ("allow", "location"):
                    assert answer.headers.get(name) == expected.headers.get(name), (method, path)
                if expected.status_code == 200 and method != "HEAD":
                    assert answer.json() == expected.json(), (method, path)


async def test_routes_changed_later_count() -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    assert (await ask(service)).status_code == 200

    async def other() -> str:
        return "other"

    service.app.add_api_route("/x", other)
    service.app.add_api_route("/y", other)
    assert "cid" in (await ask(service)).json()
    assert (await ask(service, path="/y")).json() == "other"
    routes = service.app.router.routes
    routes.insert(0, routes.pop())
    routes.insert(0, APIRoute("/x", other))
    assert (await ask(service)).json() == "other"
    del routes[0]
    assert "cid" in (await ask(service)).json()
    routes[:] = [route for route in routes if not isinstance(route, DelegateRoute)]
    assert (await ask(service)).status_code == 404


async def test_router_included_before_may_take_a_path_later() -> None:
    service = make_service(APIEndpoint("GET", "/first", told))
    router = APIRouter()
    service.app.include_router(router)
    service.app.add_api_route("/x", told)
    assert "cid" in (await ask(service)).json()

    @router.get("/x")
    async def taken() -> str:
        return "taken"

    assert (await ask(service)).json() == "taken"


class Picky(APIRoute):
    def matches(self, scope: Any) -> Any:
        return super().matches({**scope, "path": "/picky"} if scope["path"] == "/x" else scope)


@pytest.mark.parametrize("kind", ["mount", "host", "own class", "websocket", "starlette"])
async def test_any_kind_of_route_keeps_its_place_before_a_delegate(kind: str) -> None:
    service = make_service()

    async def other(request: Request) -> PlainTextResponse:
        return PlainTextResponse("other")

    routes: dict[str, Any] = {
        "mount": Mount("/x", app=PlainTextResponse("other")),
        "host": Host("test", app=PlainTextResponse("other")),
        "own class": Picky("/picky", other),
        "websocket": WebSocketRoute("/x", other),
        "starlette": Route("/x", other),
    }
    service.app.router.routes.append(routes[kind])
    service.app.add_api_route("/x", told)
    answer = await ask(service)
    assert ("cid" in answer.text) == (kind in ("websocket", "mount"))


def test_static_paths_are_indexed_and_shadowed_ones_are_not() -> None:
    service = make_service(
        APIEndpoint("GET", "/a", told),
        APIEndpoint("GET", "/b/{x}", told),
        APIEndpoint("GET", "/b/c", told),
        APIEndpoint("POST", "/b/c", told),
        APIEndpoint("GET", "/d", declared),
    )
    paths = RouteIndex(lambda: service.app.router.routes)

    def found(method: str, path: str) -> bool:
        return paths.find({"method": method, "path": path}) is not None

    assert found("GET", "/a")
    assert found("POST", "/b/c")
    assert not found("GET", "/b/c")
    assert not found("GET", "/d")
    assert found("HEAD", "/a")
    assert not found("PUT", "/a")
    assert paths.find({"method": "GET", "path": "/a", "root_path": "/proxy"}) is None


async def test_root_path_of_a_proxy_is_respected() -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    transport = httpx.ASGITransport(service.app, root_path="/proxy")
    headers = {"authorization": f"Bearer {make_token(KEY, 'me')}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        assert (await client.get("/proxy/x")).status_code == 200
        assert (await client.get("/x")).status_code == 200


@pytest.mark.parametrize("middleware", [False, True])
async def test_middleware_of_the_user_sees_every_request(middleware: bool) -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    seen: list[str] = []
    if middleware:

        @service.app.middleware("http")
        async def watch(request: Request, call_next: Any) -> Any:
            seen.append(request.url.path)
            answer = await call_next(request)
            answer.headers["x-watched"] = "1"
            return answer

    answer = await ask(service, headers={"x-correlation-id": "c"})
    assert answer.json()["cid"] == "c"
    assert seen == (["/x"] if middleware else [])
    assert ("x-watched" in answer.headers) == middleware
    assert answer.headers.get_list("x-correlation-id") == ["c"]


async def test_telemetry_that_is_switched_on_later_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(APIEndpoint("GET", "/x", told))
    telemetry = getattr(service.app, "_native_telemetry", None)
    if telemetry is None:
        pytest.skip("this FastAPI has no telemetry of its own")
    assert (await ask(service)).status_code == 200
    asked: list[bool] = []
    monkeypatch.setattr(telemetry, "enabled", lambda: bool(asked.append(True)))
    monkeypatch.setattr(service.app._shortcut, "_open_until", 0.0)
    for _ in range(5):
        await ask(service)
    assert len(asked) >= 1


async def test_websockets_and_lifespan_pass_through() -> None:
    service = make_service()
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await service.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
