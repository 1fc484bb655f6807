"""Every route is closed unless it is declared public, however it came into the app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from support.http.app import KEY, Log, Service, Settings, make_service
from support.http.sockets import Running
from totoms import (
    APIConfiguration,
    APIEndpoint,
    ConfigurationError,
    ExecutionContext,
    UserContext,
    current_user,
    public,
    toto_delegate,
)
from totoms.auth.tokens import make_token
from totoms.http.context import set_default_runtime

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@toto_delegate
async def who(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    RAN.append(request.url.path)
    return {"who": user_context.email}


@toto_delegate
async def declared(
    request: Request, user_context: UserContext, exec_context: ExecutionContext, limit: int = 1
) -> dict[str, Any]:
    RAN.append(request.url.path)
    return {"who": user_context.email}


async def own(request: Request) -> PlainTextResponse:
    RAN.append(request.url.path)
    return PlainTextResponse("own")


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    RAN.append(scope["path"])
    await PlainTextResponse("asgi")(scope, receive, send)


async def ask(
    service: Service, path: str, method: str = "GET", *, token: str | None = None, root_path: str = "", **headers: str
) -> httpx.Response:
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    transport = httpx.ASGITransport(service.app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        return await client.request(method, path)


async def status(service: Service, path: str, method: str = "GET", **options: Any) -> int:
    return (await ask(service, path, method, **options)).status_code


def good() -> str:
    return make_token(KEY, "me")


# --- every way of adding a route ---


def _api_route(app: FastAPI) -> None:
    app.add_api_route("/x", own)


def _decorated(app: FastAPI) -> None:
    app.get("/x")(own)


def _starlette(app: FastAPI) -> None:
    app.add_route("/x", own)


def _appended(app: FastAPI) -> None:
    app.router.routes.append(Route("/x", own))


def _inserted(app: FastAPI) -> None:
    app.router.routes.insert(0, Route("/{anything:path}", own))


def _asgi_class(app: FastAPI) -> None:
    class Endpoint:
        def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.arguments = (scope, receive, send)

        def __await__(self) -> Any:
            return asgi(*self.arguments).__await__()

    app.router.routes.append(Route("/x", Endpoint))


def _router(app: FastAPI) -> None:
    router, inner = APIRouter(), APIRouter(prefix="/x")
    inner.add_api_route("", own)
    router.include_router(inner)
    app.include_router(router)


def _plain_router(app: FastAPI) -> None:
    router = APIRouter()
    router.add_route("/x", own)
    app.include_router(router)


def _mount(app: FastAPI) -> None:
    app.mount("/x", asgi)


def _mount_at_root(app: FastAPI) -> None:
    app.mount("", asgi)


def _mount_of_routes(app: FastAPI) -> None:
    app.router.routes.append(Mount("/x", routes=[Route("/", own)]))


def _mount_in_router(app: FastAPI) -> None:
    router = APIRouter()
    router.mount("/x", asgi)
    app.include_router(router)


def _sub_application(app: FastAPI) -> None:
    inner = FastAPI()
    inner.add_api_route("/", own)
    app.mount("/x", inner)


def _sub_starlette(app: FastAPI) -> None:
    app.mount("/x", Starlette(routes=[Route("/", own)]))


def _delegate_in_sub_application(app: FastAPI) -> None:
    inner = FastAPI()
    inner.add_api_route("/", who)
    app.mount("/x", inner)


def _host(app: FastAPI) -> None:
    app.router.routes.append(Host("test", app=asgi))


def _own_class(app: FastAPI) -> None:
    class Anything(BaseRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return Match.FULL, {}

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asgi(scope, receive, send)

    app.router.routes.append(Anything())


def _partial(app: FastAPI) -> None:
    class Anything(BaseRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return Match.PARTIAL, {}

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asgi(scope, receive, send)

    app.router.routes.append(Anything())


def _default(app: FastAPI) -> None:
    app.router.default = asgi


def _delegate(app: FastAPI) -> None:
    app.add_api_route("/x", who)


def _delegate_with_options(app: FastAPI) -> None:
    app.add_api_route("/x", declared, status_code=201)


def _middleware_that_sends_there(app: FastAPI) -> None:
    app.add_api_route("/target", own)
    app.add_middleware(Rewriting, to="/target")


class Rewriting:
    def __init__(self, app: ASGIApp, to: str) -> None:
        self.app, self.to = app, to

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in ("/health",):
            scope = {**scope, "path": self.to, "raw_path": self.to.encode()}
        await self.app(scope, receive, send)


ADDED: list[Callable[[FastAPI], None]] = [
    _api_route,
    _decorated,
    _starlette,
    _appended,
    _inserted,
    _asgi_class,
    _router,
    _plain_router,
    _mount,
    _mount_at_root,
    _mount_of_routes,
    _mount_in_router,
    _sub_application,
    _sub_starlette,
    _delegate_in_sub_application,
    _host,
    _own_class,
    _partial,
    _default,
    _delegate,
    _delegate_with_options,
    _middleware_that_sends_there,
]


@pytest.mark.parametrize("add", ADDED, ids=lambda add: add.__name__)
@pytest.mark.parametrize("path", ["/x/", "/x"])
async def test_what_is_added_is_closed(add: Callable[[FastAPI], None], path: str) -> None:
    service = make_service()
    add(service.app)
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PROPFIND"):
        answer = await ask(service, path, method)
        assert answer.status_code in (401, 404, 405, 307), (method, answer.text)
        assert RAN == [], method
        if answer.status_code == 401 and method != "HEAD":
            assert answer.headers["www-authenticate"] == "Bearer"
            assert set(answer.json()) == {"code", "message", "cid", "detail"}
    for bad in ("", "Bearer", "Bearer a.b.c", f"Basic {good()}"):
        assert await status(service, path, authorization=bad) == 401, bad
    assert RAN == []
    assert [await status(service, path, token=good()), bool(RAN)] in ([200, True], [201, True], [307, False])


@pytest.mark.parametrize("add", ADDED, ids=lambda add: add.__name__)
async def test_what_is_added_after_the_start_is_closed(add: Callable[[FastAPI], None]) -> None:
    service = make_service(
        APIEndpoint("GET", "/open", who, public=True),
        config=Settings(open_paths=["/x", "/x/", "", "/", "/{anything:path}", "/target"]),
        public_routes=["/x", "/x/*"],
    )
    assert await status(service, "/open") == 200
    if add is _middleware_that_sends_there:
        return
    add(service.app)
    for path in ("/x", "/x/", "/open"):
        RAN.clear()
        assert await status(service, path) in (401, 307, 200), path
        assert path == "/open" or RAN == []


@pytest.mark.parametrize("place", ["default", "middleware_stack", "handle"])
async def test_what_answers_in_place_of_the_router_is_closed(place: str) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("in")(scope, receive, send)

    service = make_service()
    if place == "handle":
        route = Route("/x", PlainTextResponse("in"), methods=["POST"])
        service.app.router.routes.append(route)
    else:
        route = service.app.router
    setattr(route, place, answer)
    async with service.client() as client:
        assert (await client.get("/x")).status_code == 401


async def test_replaced_router_is_not_served() -> None:
    service = make_service()
    service.app.router = APIRouter()
    service.app.add_api_route("/x", lambda: "in")
    with pytest.raises(ConfigurationError, match="router was replaced"):
        await service.client().get("/x")


async def test_a_route_put_before_an_open_one_is_closed() -> None:
    service = make_service(APIEndpoint("GET", "/open", who, public=True))
    assert await status(service, "/open") == 200
    service.app.router.routes.insert(0, Route("/open", own))
    assert await status(service, "/open") == 401


async def test_an_open_route_that_is_changed_is_closed() -> None:
    service = make_service()
    service.app.add_route("/open", own)
    route = service.app.router.routes[-1]
    public(route)
    assert await status(service, "/open") == 200
    route.methods.add("DELETE")  # type: ignore[attr-defined]
    assert await status(service, "/open", "DELETE") == 401
    route.path = "/other"  # type: ignore[attr-defined]
    assert await status(service, "/open") == 401


# --- what is open ---


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
async def test_status_needs_no_token_and_looks_at_none(path: str) -> None:
    service = make_service(base_path="/api")
    assert await status(service, path) == 200
    assert await status(service, path, authorization="Bearer a.b.c") == 200
    assert await status(service, path, "POST") == 405


@pytest.mark.parametrize("middleware", [False, True])
async def test_push_is_judged_by_its_own_rules_whatever_token_comes(middleware: bool) -> None:
    async def push(request: Request) -> Any:
        return b"{}"

    service = make_service(base_path="/api", push=push)
    if middleware:
        service.app.add_middleware(Passing)
    for headers in ({}, {"authorization": "Bearer a.b.c"}, {"authorization": f"Bearer {good()}"}):
        assert await status(service, "/api/events", "POST", **headers) == 200


class Passing:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("delegate", [who, declared])
async def test_public_endpoint_has_no_caller_and_verifies_a_token(delegate: Any, middleware: bool) -> None:
    service = make_service(APIEndpoint("GET", "/x", delegate, public=True), APIEndpoint("GET", "/y/{a}", delegate))
    if middleware:
        service.app.add_middleware(Passing)
    assert (await ask(service, "/x")).json() == {"who": None}
    assert (await ask(service, "/x", token=good())).json() == {"who": "me"}
    for bad in ("", "Bearer", "Bearer a.b.c", f"Basic {good()}"):
        assert await status(service, "/x", authorization=bad) == 401, bad
    assert await status(service, "/y/1") == 401
    assert await status(service, "/x", "HEAD") == 200
    assert await status(service, "/x", "OPTIONS") == 405
    assert await status(service, "/x", "DELETE") == 405


async def test_two_authorization_headers_are_refused_on_an_open_path() -> None:
    service = make_service(APIEndpoint("GET", "/x", who, public=True))
    async with service.client() as client:
        headers = [("authorization", f"Bearer {good()}")] * 2
        assert (await client.get("/x", headers=headers)).status_code == 401


async def test_opening_one_method_opens_no_other() -> None:
    service = make_service(
        APIEndpoint("GET", "/x", who, public=True),
        APIEndpoint("DELETE", "/x", who),
        APIEndpoint("PUT", "/x", who),
        public_routes=["PUT /x"],
    )
    assert [await status(service, "/x", method) for method in ("GET", "PUT", "DELETE")] == [200, 200, 401]


async def test_the_route_that_is_reached_decides_where_templates_overlap() -> None:
    service = make_service(
        APIEndpoint("GET", "/posts/new", who),
        APIEndpoint("GET", "/posts/{slug}", who, public=True),
        APIEndpoint("GET", "/a/{slug}", who),
        public_routes=["/a/open"],
    )
    for path in ("/posts/hidden", "/a/open"):  # what is declared so is refused: see test_overlaps.py
        service.app.add_route(path, own)
    assert [await status(service, f"/posts/{end}") for end in ("new", "old", "hidden")] == [401, 200, 200]
    assert await status(service, "/a/open") == 401  # the closed one comes first, and answers it


@pytest.mark.parametrize(
    "path",
    [
        "/open/../closed",
        "/open/..;/closed",
        "/open;/../closed",
        "//closed",
        "/open//closed",
        "/closed/",
        "/CLOSED",
        "/open/%2e%2e/closed",
        "/open%2F..%2Fclosed",
        "/%63losed",
        "/closed%20",
        "/closed;a=b",
        "/./closed",
        "/closed?x=/open",
        "/open/%252e%252e/closed",
        "/closed%00",
        "/closed#/open",
        "/health/../closed",
        "/health/%2e%2e/closed",
        "/ready//closed",
    ],
)
@pytest.mark.parametrize("middleware", [False, True])
async def test_no_spelling_of_a_path_reaches_a_closed_route(path: str, middleware: bool) -> None:
    service = make_service(
        APIEndpoint("GET", "/closed", who),
        APIEndpoint("GET", "/open", declared, public=True),
        APIEndpoint("GET", "/open/{a}", declared, public=True),
    )
    if middleware:
        service.app.add_middleware(Passing)
    scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"", "path": path.partition("?")[0]}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await service.app(scope, receive, send)
    assert "/closed" not in RAN
    await status(service, path)  # and as an HTTP client writes it
    assert "/closed" not in RAN


@pytest.mark.parametrize("root_path", ["", "/api", "/blog", "/blog/admin"])
async def test_a_prefix_of_a_proxy_changes_no_decision(root_path: str) -> None:
    class Config(Settings):
        def is_path_excluded(self, path: str) -> bool:
            return not path.startswith("/blog/admin")

    service = make_service(
        APIEndpoint("GET", "/admin", who),
        APIEndpoint("GET", "/admin/{a}", declared),
        APIEndpoint("GET", "/post", who),
        base_path="/blog",
        config=Config(),
    )
    prefixes = {"", root_path, f"{root_path}{root_path}"}
    for prefix in prefixes:
        for end, expected in (("admin", 401), ("admin/1", 401), ("post", 200)):
            answer = await ask(service, f"{prefix}/blog/{end}", root_path=root_path, **{"x-forwarded-prefix": "/x"})
            assert answer.status_code in (expected, 404, 307), (prefix, end)
    assert not any("admin" in path.removeprefix(root_path) for path in RAN)
    outer = FastAPI()
    outer.mount("/api", service.app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://test") as client:
        assert (await client.get("/api/blog/admin")).status_code == 401
        assert (await client.get("/api/blog/post")).status_code == 200


# --- is_path_excluded ---


async def test_exclusion_is_asked_once_with_the_template_and_never_with_a_path() -> None:
    asked: list[tuple[str, ...]] = []

    class Config(Settings):
        def is_path_excluded(self, *asking: Any) -> bool:
            asked.append(asking)
            return asking[0].endswith("/status")

    service = make_service(
        APIEndpoint("GET", "/item/{id}", who), APIEndpoint("GET", "/status", who), base_path="/s", config=Config()
    )
    assert asked == [("/s/item/{id}", "GET"), ("/s/status", "GET")]
    assert [await status(service, path) for path in ("/s/item/status", "/s/status", "/s/item/1")] == [401, 200, 401]
    assert len(asked) == 2


async def test_exclusion_may_know_the_method() -> None:
    class Config(Settings):
        def is_path_excluded(self, path: str, method: str = "GET") -> bool:
            return method == "GET"

    service = make_service(APIEndpoint("GET", "/x", who), APIEndpoint("DELETE", "/x", who), config=Config())
    assert [await status(service, "/x", method) for method in ("GET", "HEAD", "DELETE")] == [200, 200, 401]


@pytest.mark.parametrize("answer", [None, "yes", 1, 0, [], object()])
def test_exclusion_that_answers_neither_true_nor_false_ends_the_start(answer: Any) -> None:
    class Config(Settings):
        def is_path_excluded(self, path: str) -> Any:
            return answer

    with pytest.raises(ConfigurationError, match=rf"Config\.is_path_excluded\('/x'\).*{type(answer).__name__}.*GET /x"):
        make_service(APIEndpoint("GET", "/x", who), config=Config())


def test_exclusion_that_is_a_coroutine_ends_the_start() -> None:
    class Coroutine(Settings):
        async def is_path_excluded(self, path: str) -> bool:  # type: ignore[override]
            return False

    class Hidden(Settings):
        def is_path_excluded(self, path: str) -> Any:
            return Coroutine.is_path_excluded(self, path)  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match=r"Coroutine\.is_path_excluded is a coroutine function"):
        make_service(config=Coroutine())
    with pytest.raises(ConfigurationError, match=r"Hidden\.is_path_excluded.*coroutine"):
        make_service(APIEndpoint("GET", "/x", who), config=Hidden())


async def test_exclusion_opens_routes_of_the_app_but_no_mount() -> None:
    class Config(Settings):
        def is_path_excluded(self, path: str) -> bool:
            return not path.startswith("/blog/admin")

    service = make_service(config=Config())
    service.app.add_route("/metrics", own)
    service.app.mount("/blog", asgi)
    assert await status(service, "/metrics") == 200
    assert await status(service, "/blog/admin") == 401
    assert await status(service, "/blog/post") == 401  # what is below a mount was never asked
    assert await status(service, "/docs") == 401  # has a switch of its own


# --- public() and public_routes ---


async def test_public_opens_a_route_a_router_and_a_mount(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("file")
    service = make_service(APIEndpoint("GET", "/closed", who))
    app = service.app
    router, nested = APIRouter(prefix="/r"), APIRouter(prefix="/n")
    router.add_api_route("/a", own)
    nested.add_api_route("/b", own)
    router.include_router(nested)
    router.mount("/m", asgi)
    app.include_router(public(router), prefix="/p")
    half = APIRouter(prefix="/half")
    half.add_api_route("/open", own)
    public(half.routes[-1])
    half.add_api_route("/closed", own)
    app.include_router(half)
    app.include_router(half, prefix="/again")
    app.router.routes.append(public(Mount("/static", app=StaticFiles(directory=tmp_path))))
    app.router.routes.append(public(Route("/route", own)))
    for path in ("/p/r/a", "/p/r/n/b", "/p/m/x", "/half/open", "/again/half/open", "/static/a.txt", "/route"):
        assert await status(service, path) == 200, path
        assert await status(service, path, authorization="Bearer a.b.c") == 401, path
    for path in ("/half/closed", "/again/half/closed", "/closed"):
        assert await status(service, path) == 401, path
    assert await status(service, "/static/%2e%2e/closed") == 404
    assert await status(service, "/static/missing") == 404


@pytest.mark.parametrize("target", [own, "GET /x", None, FastAPI])
def test_public_refuses_other_arguments(target: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"not a {type(target).__name__}"):
        public(target)


async def test_public_of_the_apps_own_router_is_refused() -> None:
    service = make_service()
    public(service.app.router)
    with pytest.raises(ConfigurationError, match="own router"):
        service.app.seal()  # type: ignore[attr-defined]


async def test_public_routes_open_by_template() -> None:
    service = make_service(
        APIEndpoint("GET", "/posts/{slug}", who),
        APIEndpoint("GET", "/posts", who),
        APIEndpoint("GET", "/p/a", who),
        APIEndpoint("POST", "/p/a", who),
        base_path="/b",
        public_routes=["GET /b/posts/{slug}", "/b/p/*", "/static/*", "/any", "GET /docs", "WEBSOCKET /ws"],
    )
    service.app.mount("/static", asgi)
    service.app.mount("/statics", asgi)
    service.app.api_route("/any", methods=["GET", "DELETE"])(own)
    opened = ["/b/posts/1", "/b/p/a", "/static/x", "/any", "/docs"]
    assert [await status(service, path) for path in opened] == [200] * len(opened)
    assert await status(service, "/b/p/a", "POST") == await status(service, "/any", "DELETE") == 200
    for path in ("/b/posts", "/statics/x", "/openapi.json", "/static"):
        assert await status(service, path) in (401, 307), path


NO_PATTERNS = ["", "x", "GET", "get /x", "FETCH /x", "/*", "GET /*", "/a*", "/*/b", "/a/**", "GET  /x"]


@pytest.mark.parametrize("pattern", NO_PATTERNS)
def test_public_routes_that_are_no_pattern_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="public_routes"):
        APIConfiguration(public_routes=[pattern])


# --- documentation ---

DOCS = ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"]


@pytest.mark.parametrize(
    ("host", "docs", "expected"),
    [
        ("0.0.0.0", None, 401),
        ("0.0.0.0", True, 200),
        ("0.0.0.0", False, 401),
        ("127.0.0.1", None, 200),
        ("127.0.0.1", False, 401),
    ],
)
async def test_documentation_is_open_on_local_or_if_declared(host: str, docs: bool | None, expected: int) -> None:
    service = make_service(APIEndpoint("GET", "/x", who), host=host, docs=docs)
    assert [await status(service, path) for path in DOCS] == [expected] * 4
    assert [await status(service, path, token=good()) for path in DOCS] == [200] * 4


# --- what is not there ---


async def test_unknown_path_is_404_without_a_token() -> None:
    service = make_service(APIEndpoint("GET", "/x", who), APIEndpoint("GET", "/y/", who))
    assert await status(service, "/nowhere") == 404
    assert await status(service, "/x", "POST") == 405
    assert await status(service, "/y") == 307
    assert await status(service, "/nowhere", authorization="Bearer a.b.c") == 401


# --- head ---


@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("delegate", [who, declared])
async def test_head_is_get_without_the_body(delegate: Any, middleware: bool) -> None:
    service = make_service(APIEndpoint("GET", "/x", delegate), APIEndpoint("GET", "/x/{a}", delegate))
    if middleware:
        service.app.add_middleware(Passing)
    for path in ("/x", "/x/1"):
        got, head = await ask(service, path, token=good()), await ask(service, path, "HEAD", token=good())
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
        assert await status(service, path, "HEAD") == 401
    assert "head" not in str((await ask(service, "/openapi.json", token=good())).json()["paths"]["/x"])


def real() -> str:
    return "real"


async def test_head_has_the_dependencies_of_its_get() -> None:
    @toto_delegate
    async def told(
        request: Request, user_context: UserContext, exec_context: ExecutionContext, word: Annotated[str, Depends(real)]
    ) -> Any:
        return PlainTextResponse("", headers={"x-word": word})

    service = make_service(APIEndpoint("GET", "/x", told))
    service.app.dependency_overrides[real] = lambda: "replaced"
    for method in ("GET", "HEAD"):
        assert (await ask(service, "/x", method, token=good())).headers["x-word"] == "replaced"


async def test_head_endpoint_of_the_users_own_is_left_alone() -> None:
    @toto_delegate
    async def head(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return PlainTextResponse("", headers={"x-own": "1"})

    service = make_service(APIEndpoint("GET", "/x", who), APIEndpoint("HEAD", "/x", head))
    assert (await ask(service, "/x", "HEAD", token=good())).headers["x-own"] == "1"


# --- WebSockets ---


async def talk(app: Any, path: str, *, extension: bool = True, **headers: str) -> list[Any]:
    """Open a WebSocket; return the messages that the server got."""
    sent: list[Any] = []
    events = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
    scope = {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "subprotocols": [],
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "extensions": {"websocket.http.response": {}} if extension else {},
    }

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def echo(websocket: WebSocket) -> None:
    RAN.append(websocket.url.path)
    await websocket.accept()
    await websocket.close()


async def greet(websocket: WebSocket, user: Annotated[UserContext, Depends(current_user)]) -> None:
    RAN.append(str(user.email))
    await websocket.accept()
    await websocket.send_text(str(user.email))
    await websocket.close()


def sockets() -> Service:
    service = make_service(public_routes=["/open", "/sub/*"])
    app, router = service.app, APIRouter(prefix="/r")
    app.add_api_websocket_route("/plain", echo)
    app.add_api_websocket_route("/user", greet)
    app.router.routes.append(WebSocketRoute("/starlette", echo))
    router.add_api_websocket_route("/ws", echo)
    app.include_router(router)
    app.mount("/mounted", Starlette(routes=[WebSocketRoute("/ws", echo)]))
    app.mount("/sub", Starlette(routes=[WebSocketRoute("/ws", echo)]))
    app.add_api_websocket_route("/open", greet)
    return service


CLOSED_SOCKETS = ["/plain", "/user", "/starlette", "/r/ws", "/mounted/ws"]


@pytest.mark.parametrize("path", CLOSED_SOCKETS)
async def test_websocket_is_refused_before_it_is_accepted(path: str, log: Log) -> None:
    app = sockets().app
    for headers in ({}, {"authorization": "Bearer a.b.c"}):
        start, body = await talk(app, path, **headers)
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
        assert b"token" in body["body"]
        [closed] = await talk(app, path, extension=False, **headers)
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
    assert RAN == []
    assert f"WEBSOCKET {path} 401" in log.text
    assert (await talk(app, path, authorization=f"Bearer {good()}"))[0]["type"] == "websocket.accept"


async def test_websocket_knows_its_caller() -> None:
    app = sockets().app
    sent = await talk(app, "/user", authorization=f"Bearer {good()}")
    assert sent[1] == {"type": "websocket.send", "text": "me"}


async def test_open_websocket_has_no_caller_and_verifies_a_token() -> None:
    app = sockets().app
    assert (await talk(app, "/open"))[1]["text"] == "None"
    assert (await talk(app, "/sub/ws"))[0]["type"] == "websocket.accept"
    assert (await talk(app, "/open", authorization=f"Bearer {good()}"))[1]["text"] == "me"
    assert (await talk(app, "/open", authorization="Bearer a.b.c"))[0]["status"] == 401


async def test_current_user_in_an_endpoint_of_fastapis_own() -> None:
    service = make_service()

    @service.app.get("/x")
    async def endpoint(user: Annotated[UserContext, Depends(current_user)]) -> Any:
        return {"who": user.email}

    assert await status(service, "/x") == 401
    assert (await ask(service, "/x", token=good())).json() == {"who": "me"}


# --- mounted in another app ---


@pytest.mark.parametrize("delegate", [who, declared])
async def test_delegate_in_an_app_of_the_users_own_answers_401(delegate: Any) -> None:
    inner, outer = FastAPI(), FastAPI()
    inner.add_api_route("/x", delegate)
    outer.mount("/in", inner)
    outer.add_api_route("/x", delegate)
    outer.add_api_websocket_route("/ws", greet)
    set_default_runtime(make_service(config=Settings(open_paths=["/x", "/in/x"])))
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://test") as client:
            for path in ("/x", "/in/x"):
                for headers, challenge in (
                    ({}, "Bearer"),
                    ({"authorization": "Bearer a.b.c"}, 'Bearer error="invalid_token"'),
                ):
                    answer = await client.get(path, headers=headers)
                    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, challenge)
                assert (await client.get(path, headers={"authorization": f"Bearer {good()}"})).json() == {"who": "me"}
        assert [one["type"] for one in await talk(outer, "/ws")] == ["websocket.close"]
    finally:
        set_default_runtime(None)


# --- the log ---


async def test_log_lists_what_is_open_and_how_to_open_what_is_closed(log: Log) -> None:
    service = make_service(
        APIEndpoint("GET", "/posts", who, public=True),
        APIEndpoint("POST", "/posts", who),
        base_path="/b",
        config=Settings(open_paths=["/legacy"]),
        public_routes=["GET /metrics", "GET /typo"],
    )
    app = service.app
    for path in ("/metrics", "/legacy", "/closed"):
        app.add_route(path, own)
    app.add_api_route("/delegate", who)
    app.mount("/static", asgi)
    app.mount("", asgi)
    app.add_api_websocket_route("/ws", echo)
    await status(service, "/health")
    lines = [record["message"] for record in log.records() if record["severity"] == "WARNING"]
    closed = "Closed to callers without a token:"
    assert lines == [
        "Open to callers without a token: GET /b/posts.",
        "Open to callers without a token: GET /metrics, GET /legacy.",
        f'{closed} GET /closed. To open it: APIConfiguration(public_routes=["GET /closed"])',
        f'{closed} /static/*. To open it: APIConfiguration(public_routes=["/static/*"])',
        f"{closed} /*. To open it: public(...) around the route or mount",
        f'{closed} WEBSOCKET /ws. To open it: APIConfiguration(public_routes=["WEBSOCKET /ws"])',
        "public_routes: no route matches 'GET /typo'.",
    ]


async def test_the_line_to_paste_opens_the_route(log: Log) -> None:
    import re

    def build(patterns: list[str]) -> Service:
        service = make_service(public_routes=patterns)
        router = APIRouter(prefix="/r")
        router.add_api_route("/{n}", own)
        service.app.include_router(router)
        service.app.mount("/m", asgi)
        return service

    await status(build([]), "/health")
    patterns = re.findall(r'public_routes=\[\\"([^"]+)\\"\]', log.text)
    service = build(patterns)
    assert [await status(service, path) for path in ("/r/1", "/m/x")] == [200, 200]


def test_an_api_route_class_of_the_users_own_in_a_router_decides_by_what_it_matches() -> None:
    class Picky(APIRoute):
        def matches(self, scope: Any) -> Any:
            return Match.FULL, {"endpoint": self.endpoint, "path_params": {}}

    service = make_service()
    router = APIRouter(route_class=Picky)
    router.add_api_route("/picky", own)
    service.app.include_router(router)
    service.app.router.routes.append(public(Route("/open", own)))
    assert isinstance(service.app.router, Router)
    decisions = service.app.decisions  # type: ignore[attr-defined]
    decisions.decide()
    found = decisions.find({"type": "http", "method": "GET", "path": "/open", "headers": []})
    assert found.name == "CLOSED"


def test_websocket_on_a_socket_is_refused_before_it_is_accepted() -> None:
    service = make_service()
    service.app.add_api_websocket_route("/ws", echo)
    handshake = (
        b"GET /ws HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    with Running(service).serving() as running:
        for sent in (b"", b"authorization: Bearer a.b.c\r\n"):
            answer = running.send(handshake + sent + b"\r\n")
            assert answer.split(b" ", 2)[1] in (b"401", b"403"), answer
        assert RAN == []
        with running.connect() as caller:
            caller.sendall(handshake + f"authorization: Bearer {good()}\r\n\r\n".encode())
            assert caller.recv(1000).startswith(b"HTTP/1.1 101")
