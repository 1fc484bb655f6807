"""What the HTTP side of a declaration says holds under `start`, `run`, `asgi` and in `TestMicroservice` alike."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException

from standins.ports import free_port
from support.http.app import KEY, Log, Settings, make_service, token
from support.processes import Process
from support.services import declared as declared_service
from totoms import (
    APIEndpoint,
    ConfigurationError,
    CORSConfiguration,
    ExecutionContext,
    Forbidden,
    Requires,
    UserContext,
    current_user,
    toto_delegate,
)
from totoms.testing import TestMicroservice

SERVICE = Path(declared_service.__file__)
Ask = Callable[..., Awaitable[httpx.Response]]


@contextlib.contextmanager
def _process(way: str, folder: Path) -> Any:
    variables = {"HYPERSCALER": "local", "JWT_SIGNING_KEY": KEY, "PYTHONPATH": str(SERVICE.parents[2])}
    if way == "asgi":
        port = free_port()
        command = [
            "uvicorn",
            "--factory",
            "support.services.declared:application",
            "--workers",
            "2",
            "--port",
            str(port),
        ]
        process = Process("-m", *command, root=str(folder), env=variables, cwd=folder)
    else:
        process, port = Process(SERVICE, way, root=str(folder), env=variables, cwd=folder), 0
    try:
        if way == "asgi":
            process.expect("Application startup complete")
        yield f"http://127.0.0.1:{port or process.port()}"
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            process.send(signal.SIGTERM)
            process.wait(20)
        process.kill()


@pytest.fixture(params=["TestMicroservice", "start", "run", "asgi"])
async def ask(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ask]:
    """Send a request to the service, with a token that has these claims."""
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "TestMicroservice":
            service = await stack.enter_async_context(
                TestMicroservice(declared_service.configuration(), secrets={"jwt-signing-key": KEY})
            )
            client = service.client_of(None)
        else:
            address = stack.enter_context(_process(request.param, tmp_path))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=address))

        async def asking(method: str, path: str, claims: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
            headers = {} if claims is None else {"authorization": f"Bearer {token(**claims)}"}
            return await client.request(method, path, headers=headers, **more)

        yield asking


async def test_declaration_holds_under_every_way_to_run(ask: Ask) -> None:
    # Status and requirement.
    post = {"json": {"slug": "a"}}
    assert (await ask("POST", "/blog/posts", **post)).status_code == 401
    refused = await ask("POST", "/blog/posts", {"scope": "posts:read"}, **post)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (403, 'Bearer error="insufficient_scope"')
    assert set(refused.json()) == {"code", "message", "cid", "detail"}
    created = await ask("POST", "/blog/posts", {"scope": "posts:read posts:write"}, **post)
    assert (created.status_code, created.json()) == (201, {"slug": "a"})
    for claims, status in (({}, 403), ({"roles": "editor"}, 204), ({"roles": ["x", "admin"]}, 204)):
        assert (await ask("DELETE", "/blog/posts/a", claims)).status_code == status, claims
    # Middleware in order, outside authentication.
    answer = await ask("GET", "/blog/posts/a")
    assert answer.json()["marks"] == ["first", "second"]
    assert answer.headers.get_list("x-marked") == ["second", "first"]
    assert refused.headers.get_list("x-marked") == ["second", "first"]
    assert answer.headers["access-control-expose-headers"] == "x-correlation-id, ETag, x-marked"
    # Exception handlers, for delegates and for routers.
    for path, claims in (("/blog/posts/none", None), ("/blog/admin/missing", {}), ("/blog/secret/none", {})):
        answer = await ask("GET", path, claims)
        assert (answer.status_code, answer.json(), answer.headers["x-handled"]) == (404, {"no": "post"}, "yes"), path
    # Routers, closed and open.
    assert (await ask("GET", "/blog/admin/missing")).status_code == 401
    assert (await ask("POST", "/blog/admin/who")).status_code == 401
    assert (await ask("GET", "/blog/open/status")).json() == {"open": True}
    # OpenAPI.
    document = (await ask("GET", "/openapi.json")).json()
    about = document["info"]
    assert (about["title"], about["version"], about["description"]) == (
        "declared",
        "1.4.0",
        "Posts and their **digest**.",
    )
    operation = document["paths"]["/blog/posts"]["post"]
    assert (operation["operationId"], operation["tags"], operation["summary"], operation["description"]) == (
        "createPost",
        ["posts"],
        "Write a post",
        "Writes it.",
    )
    assert {"201", "409", "default"} <= set(operation["responses"])
    removed = document["paths"]["/blog/posts/{slug}"]["delete"]
    assert (removed["deprecated"], removed["description"]) == (True, "Remove a post.")
    assert "/blog/secret/{slug}" not in document["paths"]
    assert document["paths"]["/blog/admin/who"]["post"]["tags"] == ["admin"]


async def test_all_workers_serve_the_declaration(tmp_path: Path) -> None:
    with _process("asgi", tmp_path) as address:
        seen: set[int] = set()
        for _ in range(2000):
            async with httpx.AsyncClient(base_url=address) as client:  # a connection for each, so that both get some
                answer = await client.get("/blog/posts/a")
            assert answer.json()["marks"] == ["first", "second"]
            seen.add(answer.json()["process"])
            if len(seen) == 2:
                return
        raise AssertionError(f"one worker only: {seen}")


# --- requires ---


def counting(*, rich: bool) -> tuple[Any, list[str]]:
    runs: list[str] = []

    @toto_delegate
    async def plain(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> str:
        runs.append(str(user_context.email))
        return "ran"

    @toto_delegate
    async def body(
        request: Request, user_context: UserContext, exec_context: ExecutionContext, post: dict[str, Any]
    ) -> str:
        runs.append(str(user_context.email))
        return "ran"

    return (body if rich else plain), runs


@pytest.mark.parametrize("rich", [False, True])
@pytest.mark.parametrize("middleware", [False, True])
async def test_refused_caller_runs_nothing_and_what_is_missing_is_only_logged(
    rich: bool, middleware: bool, log: Log
) -> None:
    delegate, runs = counting(rich=rich)
    requires = Requires(scopes={"a:write"}, roles={"admin"}, issuers={"toto"}, any_of=[Requires(roles={"x"})])
    service = make_service(
        APIEndpoint(
            "POST", "/x", delegate, requires=requires, dependencies=[Depends(lambda: runs.append("dependency"))]
        )
        if rich
        else APIEndpoint("POST", "/x", delegate, requires=requires)
    )
    if middleware:
        service.app.add_middleware(declared_service.Marking, name="m")
    for claims in ({}, {"scope": "a:write"}, {"scope": "a:write", "roles": ["admin"]}):
        async with service.client(token(**claims)) as client:
            answer = await client.post("/x", content=b"{not json")
        assert (answer.status_code, answer.json()["message"]) == (403, "The caller's token does not allow this.")
    assert runs == []
    lines = [record["message"].partition("ms: ")[2] for record in log.records() if " 403 " in record["message"]]
    assert lines == [
        "the caller lacks scopes a:write and roles admin and (roles x)",
        "the caller lacks roles admin and (roles x)",
        "the caller lacks (roles x)",
    ]
    async with service.client(token(scope="a:write", roles=["admin", "x"])) as client:
        assert (await client.post("/x", json={})).json() == "ran"


async def test_head_of_a_get_requires_the_same() -> None:
    delegate, runs = counting(rich=False)
    service = make_service(APIEndpoint("GET", "/x", delegate, requires=Requires(roles={"admin"})))
    for claims, status in (({}, 403), ({"roles": "admin"}, 200)):
        async with service.client(token(**claims)) as client:
            assert (await client.head("/x")).status_code == status
    assert len(runs) == 1


async def test_one_delegate_may_require_different_things_at_two_endpoints() -> None:
    delegate, _ = counting(rich=False)
    service = make_service(
        APIEndpoint("GET", "/a", delegate, requires=Requires(roles={"a"})),
        APIEndpoint("GET", "/b", delegate, requires=Requires(roles={"b"})),
        APIEndpoint("GET", "/any", delegate),
    )
    async with service.client(token(roles=["a"])) as client:
        found = [(await client.get(path)).status_code for path in ("/a", "/b", "/any")]
    assert found == [200, 403, 200]


async def test_what_an_endpoint_requires_goes_with_it_into_another_router() -> None:
    delegate, runs = counting(rich=False)
    service = make_service(APIEndpoint("GET", "/x", delegate, requires=Requires(roles={"admin"})))
    outer = APIRouter()
    outer.routes.append(service.app.routes[-2])
    service.app.include_router(outer, prefix="/again")
    async with service.client(token()) as client:
        assert (await client.get("/again/x")).status_code == 403
    assert runs == []


async def test_handler_for_forbidden_gets_the_refusal() -> None:
    async def own(_request: Request, error: Exception) -> Any:
        return declared_service.JSONResponse({"own": type(error).__name__}, 403)

    delegate, _ = counting(rich=False)
    service = make_service(
        APIEndpoint("GET", "/x", delegate, requires=Requires(roles={"admin"})), exception_handlers={Forbidden: own}
    )
    async with service.client(token()) as client:
        assert (await client.get("/x")).json() == {"own": "InsufficientScope"}


@pytest.mark.parametrize(
    "opened", [{"public_routes": ["GET /x"]}, {"config": "excluded"}], ids=["public_routes", "is_path_excluded"]
)
def test_open_endpoint_cannot_require_anything(opened: dict[str, Any]) -> None:
    if opened.get("config"):
        opened = {"config": Settings(open_paths=["/x"])}
    delegate, _ = counting(rich=False)
    with pytest.raises(
        ConfigurationError, match=r"^GET /x has requires, but public_routes or is_path_excluded opens it"
    ):
        make_service(APIEndpoint("GET", "/x", delegate, requires=Requires(roles={"admin"})), **opened)


# --- exception handlers, middleware, routers ---


@pytest.mark.parametrize("rich", [False, True])
@pytest.mark.parametrize("key", [404, HTTPException, 500, Exception])
async def test_exception_handler_by_status_or_class_answers_as_in_fastapi(key: Any, rich: bool) -> None:
    async def own(_request: Request, error: Exception) -> Any:
        return declared_service.JSONResponse({"own": type(error).__name__}, 418)

    @toto_delegate
    async def plain(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> None:
        raise HTTPException(404) if key in (404, HTTPException) else RuntimeError

    @toto_delegate
    async def with_query(user_context: UserContext, limit: int = 1) -> None:
        raise HTTPException(404) if key in (404, HTTPException) else RuntimeError

    delegate = with_query if rich else plain
    service = make_service(APIEndpoint("GET", "/x", delegate), exception_handlers={key: own})
    async with service.client(token()) as client:
        answer = await client.get("/x")
    assert answer.status_code == 418
    assert answer.headers["x-correlation-id"]


async def test_middleware_sees_what_authentication_refuses() -> None:
    delegate, runs = counting(rich=False)
    marking = declared_service.Middleware(declared_service.Marking, name="m")
    service = make_service(APIEndpoint("GET", "/x", delegate), middleware=[marking])
    async with service.client() as client:
        answer = await client.get("/x")
    assert (answer.status_code, answer.headers["x-marked"], runs) == (401, "m", [])
    async with service.client() as client:
        preflight = await client.options(
            "/x", headers={"origin": "https://a.example", "access-control-request-method": "GET"}
        )
        large = await client.post("/x", content=b"", headers={"content-length": "999999999"})
    assert "x-marked" not in preflight.headers  # CORS and limits are outside
    assert (large.status_code, "x-marked" in large.headers) == (413, False)


async def test_lifespan_of_a_router_runs() -> None:
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        events.append("start")
        yield
        events.append("stop")

    declared = declared_service.configuration()
    assert declared.api_configuration is not None
    declared.api_configuration.routers.append(APIRouter(lifespan=lifespan))
    async with TestMicroservice(declared, secrets={"jwt-signing-key": KEY}):
        assert events == ["start"]
    assert events == ["start", "stop"]


async def test_same_configuration_serves_twice() -> None:
    declared = declared_service.configuration()
    for _ in range(2):
        async with TestMicroservice(declared, secrets={"jwt-signing-key": KEY}) as service:
            answer = await service.client_of(None).get("/blog/posts/a")
            assert answer.headers.get_list("x-marked") == ["second", "first"]


@pytest.mark.parametrize("where", ["endpoint", "router"])
def test_dependency_that_would_read_the_caller_from_the_request_is_refused(where: str) -> None:
    def dependency(user: UserContext) -> None: ...

    delegate, _ = counting(rich=False)
    depends = [Depends(dependency)]
    endpoints = [APIEndpoint("GET", "/x", delegate, dependencies=depends if where == "endpoint" else None)]
    routers = [APIRouter(dependencies=depends if where == "router" else None)]
    with pytest.raises(ConfigurationError, match="which would read 'user' from the request"):
        make_service(*endpoints, routers=routers)


async def test_dependency_of_a_router_may_check_the_caller() -> None:
    async def admin(user: Annotated[UserContext, Depends(current_user)]) -> None:
        if "admin" not in user.roles:
            raise Forbidden("Admins only.")

    router = APIRouter(prefix="/admin", dependencies=[Depends(admin)])
    router.add_api_route("/x", lambda: "in")
    service = make_service(routers=[router])
    found = []
    for claims in ({}, {"roles": ["admin"]}):
        async with service.client(token(**claims)) as client:
            found.append((await client.get("/admin/x")).status_code)
    assert found == [403, 200]


async def test_headers_to_expose_are_named_for_every_origin() -> None:
    delegate, _ = counting(rich=False)
    cors = CORSConfiguration(allow_origins=["https://a.example"], expose_headers=["ETag"])
    service = make_service(APIEndpoint("GET", "/x", delegate), cors=cors)
    async with service.client(token(), origin="https://a.example") as client:
        assert (await client.get("/x")).headers["access-control-expose-headers"] == "x-correlation-id, ETag"


# --- direct calls ---


async def test_delegate_is_called_with_its_own_arguments_in_a_unit_test() -> None:
    @toto_delegate
    async def create(request: Request, user: UserContext, context: ExecutionContext, title: str, count: int = 1) -> Any:
        return title, count, user.email

    @toto_delegate
    def reordered(title: str, user: UserContext) -> Any:
        return title, user.email

    service = make_service()
    request = Request({"type": "http", "headers": []})
    context: Any = ExecutionContext(service.logger, "c", service.config, None, service.environment)  # type: ignore[arg-type]
    me = UserContext("me")
    assert await create(request, me, context, "t", 2) == ("t", 2, "me")
    assert await create(request, me, context, title="t") == ("t", 1, "me")
    assert await reordered("t", me) == ("t", "me")
    with pytest.raises(TypeError, match="at most 2 positional"):
        await reordered("t", me, 3)  # type: ignore[call-arg]
