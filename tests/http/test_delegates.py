"""Delegates: how their parameters are found, how they are run, and that they authenticate wherever they are mounted."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    Query,
    Request,
    Response,
    UploadFile,
)
from pydantic import BaseModel, Field
from starlette.routing import Route

import totoms.http.delegate
from support.http.app import KEY, Log, Service, Settings, make_service, token
from totoms import APIEndpoint, ConfigurationError, ExecutionContext, UserContext, toto_delegate
from totoms.auth.tokens import make_token
from totoms.context import current_cid
from totoms.errors import TotoError, ValidationError
from totoms.http.context import set_default_runtime

if TYPE_CHECKING:
    from decimal import Decimal


class Item(BaseModel):
    name: str
    count: int = Field(ge=0)


async def ask(service: Service, method: str = "GET", path: str = "/x", **options: Any) -> Any:
    async with service.client(make_token(KEY, "me")) as client:
        return await client.request(method, path, **options)


def serve(function: Any, method: str = "GET", path: str = "/x", **more: Any) -> Service:
    return make_service(APIEndpoint(method, path, toto_delegate(function)), **more)


# --- parameters ---


async def annotated(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return told(request, user_context, exec_context)


async def bare(request, user_context, exec_context):  # type: ignore[no-untyped-def]
    return told(request, user_context, exec_context)


async def by_place(a, b, c):  # type: ignore[no-untyped-def]
    return told(a, b, c)


async def other_order(exec_context: ExecutionContext, request: Request, user_context: UserContext) -> Any:
    return told(request, user_context, exec_context)


async def other_names(the_request: Request, who: UserContext, how: ExecutionContext) -> Any:
    return told(the_request, who, how)


async def half_annotated(request, user: UserContext, ctx):  # type: ignore[no-untyped-def]
    return told(request, user, ctx)


async def positional_only(request, user_context, exec_context, /):  # type: ignore[no-untyped-def]
    return told(request, user_context, exec_context)


async def keyword_only(*, request, user_context, exec_context):  # type: ignore[no-untyped-def]
    return told(request, user_context, exec_context)


async def any_arguments(*arguments: Any) -> Any:
    return told(*arguments)


def plain(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return told(request, user_context, exec_context)


class Callable:
    async def __call__(self, request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return told(request, user_context, exec_context)


class Holder:
    async def method(self, request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return told(request, user_context, exec_context)


def logged(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        return await function(*arguments, **named)

    return wrapper


async def with_fixed(fixed: int, request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return told(request, user_context, exec_context)


async def with_default(
    request: Request, user_context: UserContext, exec_context: ExecutionContext, limit: int = 3
) -> Any:
    return told(request, user_context, exec_context)


async def with_unknown_name(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Decimal:  # type: ignore[type-var]
    return told(request, user_context, exec_context)  # type: ignore[return-value]


def told(request: Request, user: UserContext, context: ExecutionContext) -> dict[str, Any]:
    return {"method": request.method, "user": user.email, "cid": context.cid}


FORMS = [
    annotated,
    bare,
    by_place,
    other_order,
    other_names,
    half_annotated,
    positional_only,
    keyword_only,
    any_arguments,
    plain,
    Callable(),
    Holder().method,
    logged(annotated),
    functools.partial(with_fixed, 7),
    with_default,
]


@pytest.mark.parametrize("function", FORMS, ids=lambda f: getattr(f, "__name__", type(f).__name__))
async def test_three_parameters_are_found(function: Any) -> None:
    answer = await ask(serve(function), headers={"x-correlation-id": "abc"})
    assert answer.json() == {"method": "GET", "user": "me", "cid": "abc"}


@pytest.mark.parametrize("function", FORMS, ids=lambda f: getattr(f, "__name__", type(f).__name__))
async def test_no_form_of_delegate_runs_without_token(function: Any) -> None:
    async with serve(function).client() as client:
        assert (await client.get("/x")).status_code == 401


async def test_fewer_parameters_will_do() -> None:
    async def only_user(user_context: UserContext) -> Any:
        return user_context.email

    async def nothing() -> Any:
        return 1

    assert (await ask(serve(only_user))).json() == "me"
    assert (await ask(serve(nothing))).json() == 1
    async with serve(nothing).client() as client:
        assert (await client.get("/x")).status_code == 401


def test_two_of_a_kind_are_refused() -> None:
    async def two(request: Request, a: UserContext, b: UserContext) -> None: ...

    with pytest.raises(ConfigurationError, match="UserContext"):
        toto_delegate(two)


def test_undecorated_function_is_refused_as_endpoint() -> None:
    with pytest.raises(ConfigurationError, match="not decorated"):
        make_service(APIEndpoint("GET", "/x", annotated))


def test_decorating_twice_is_decorating_once() -> None:
    once = toto_delegate(annotated)
    assert toto_delegate(once) is once


def test_unknown_annotation_is_refused_so_that_no_dependency_is_dropped() -> None:
    async def odd(request: Request, user_context: UserContext, x: Annotated[str, Depends(no_such)]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match="'x' has a name that is unknown"):
        toto_delegate(odd)


def test_what_fastapi_cannot_serve_is_reported_at_start() -> None:
    async def odd(request: Request, user_context: UserContext, exec_context: ExecutionContext, x: Holder) -> None: ...

    with pytest.raises(ConfigurationError, match="GET /x cannot be served"):
        serve(odd)


async def test_return_annotation_that_is_not_a_model_declares_nothing() -> None:
    async def odd(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Holder:
        return {"a": 1}  # type: ignore[return-value]

    assert (await ask(serve(odd))).json() == {"a": 1}
    assert (await ask(serve(with_unknown_name))).json()["user"] == "me"


# --- FastAPI's parameters ---


@toto_delegate
async def rich(
    request: Request,
    user_context: UserContext,
    exec_context: ExecutionContext,
    key: str,
    item: Item,
    limit: Annotated[int, Query(le=10)] = 3,
    tenant: Annotated[str, Header()] = "none",
    extra: Annotated[str, Depends(lambda: "given")] = "",
) -> dict[str, Any]:
    who = user_context.email
    return {"who": who, "key": key, "item": item.name, "limit": limit, "tenant": tenant, "extra": extra}


RICH = APIEndpoint("POST", "/items/{key}", rich)


async def test_further_parameters_are_solved_by_fastapi() -> None:
    answer = await ask(
        make_service(RICH), "POST", "/items/k?limit=5", json={"name": "n", "count": 1}, headers={"tenant": "t"}
    )
    assert answer.json() == {"who": "me", "key": "k", "item": "n", "limit": 5, "tenant": "t", "extra": "given"}


@pytest.mark.parametrize("body", [b"{", b'{"name": 1}', b"\xff", b""])
async def test_body_is_not_looked_at_before_the_caller_is_known(body: bytes) -> None:
    async with make_service(RICH).client() as client:
        answer = await client.post("/items/k", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 401


async def test_docs_show_further_parameters_and_not_the_three() -> None:
    service = make_service(RICH, APIEndpoint("GET", "/short/{name}", toto_delegate(annotated)), docs=True)
    async with service.client() as client:
        schema = (await client.get("/openapi.json")).json()
        assert (await client.get("/docs")).status_code == 200
    operation = schema["paths"]["/items/{key}"]["post"]
    assert {p["name"] for p in operation["parameters"]} == {"key", "limit", "tenant"}
    assert "Item" in str(operation["requestBody"])
    assert operation["security"] == [{"bearer": []}]
    assert "ErrorBody" in str(operation["responses"]["default"])
    short = schema["paths"]["/short/{name}"]["get"]
    assert [p["name"] for p in short["parameters"]] == ["name"]
    assert "requestBody" not in short
    assert short["security"] == [{"bearer": []}]
    assert schema["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert set(schema["components"]["schemas"]["ErrorBody"]["required"]) == {"code", "message", "cid", "detail"}


async def test_upload_with_a_form() -> None:
    @toto_delegate
    async def upload(
        request: Request,
        user_context: UserContext,
        exec_context: ExecutionContext,
        file: Annotated[UploadFile, File()],
        title: Annotated[str, Form()],
    ) -> Any:
        return [title, file.filename, (await file.read()).decode()]

    service = make_service(APIEndpoint("POST", "/x", upload))
    answer = await ask(service, "POST", data={"title": "t"}, files={"file": ("f.txt", b"content")})
    assert answer.json() == ["t", "f.txt", "content"]


async def test_upload_read_from_the_request() -> None:
    @toto_delegate
    async def upload(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        form = await request.form()
        file = form["file"]
        return [form["title"], file.filename, (await file.read()).decode()]  # type: ignore[union-attr]

    service = make_service(APIEndpoint("POST", "/x", upload))
    answer = await ask(service, "POST", data={"title": "t"}, files={"file": ("f.txt", b"content" * 300_000)})
    assert answer.json() == ["t", "f.txt", "content" * 300_000]


async def test_background_tasks_run() -> None:
    done = asyncio.Event()

    @toto_delegate
    async def later(
        request: Request, user_context: UserContext, exec_context: ExecutionContext, tasks: BackgroundTasks
    ) -> Any:
        tasks.add_task(done.set)
        return 1

    assert (await ask(make_service(APIEndpoint("GET", "/x", later)))).json() == 1
    assert done.is_set()


def real() -> str:
    return "real"


async def test_dependency_overrides_of_tests_work() -> None:
    @toto_delegate
    async def delegate(
        request: Request, user_context: UserContext, exec_context: ExecutionContext, v: Annotated[str, Depends(real)]
    ) -> Any:
        return v

    service = make_service(APIEndpoint("GET", "/x", delegate))
    service.app.dependency_overrides[real] = lambda: "replaced"
    assert (await ask(service)).json() == "replaced"


# --- how they are run ---


async def test_plain_function_runs_in_a_worker_thread_with_the_context_of_the_request() -> None:
    @toto_delegate
    def blocking(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return [threading.current_thread() is threading.main_thread(), current_cid.get()]

    @toto_delegate
    def with_parameter(request: Request, user_context: UserContext, exec_context: ExecutionContext, q: int = 1) -> Any:
        return [threading.current_thread() is threading.main_thread(), current_cid.get()]

    service = make_service(APIEndpoint("GET", "/a", blocking), APIEndpoint("GET", "/b", with_parameter))
    for path in ("/a", "/b"):
        answer = await ask(service, path=path, headers={"x-correlation-id": "abc"})
        assert answer.json() == [False, "abc"]


async def test_requests_at_once_keep_their_own_contexts() -> None:
    gate = asyncio.Event()
    waiting = 0

    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        nonlocal waiting
        waiting += 1
        if waiting == 20:
            gate.set()
        await gate.wait()
        return [user_context.email, exec_context.cid, current_cid.get()]

    service = make_service(APIEndpoint("GET", "/x", delegate))

    async def one(number: int) -> Any:
        async with service.client(make_token(KEY, f"u{number}")) as client:
            return (await client.get("/x", headers={"x-correlation-id": f"c{number}"})).json()

    found = await asyncio.gather(*(one(number) for number in range(20)))
    assert found == [[f"u{n}", f"c{n}", f"c{n}"] for n in range(20)]


async def test_changing_the_user_context_reaches_no_other_request() -> None:
    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        found = user_context.email
        user_context.email = "changed"
        return found

    service = make_service(APIEndpoint("GET", "/x", delegate))
    assert [(await ask(service)).json() for _ in range(3)] == ["me"] * 3


async def test_correlation_id_does_not_leak_out_of_a_request() -> None:
    await ask(serve(annotated))
    assert current_cid.get() == ""


# --- wherever it is mounted ---


async def test_delegate_on_the_users_own_routes_authenticates() -> None:
    service = serve(annotated)
    router = APIRouter(prefix="/router")
    inner = APIRouter()
    inner.add_api_route("/inner", toto_delegate(annotated))
    router.include_router(inner, prefix="/deep")
    router.get("/direct")(toto_delegate(annotated))
    router.post("/rich/{key}")(rich)
    service.app.add_api_route("/added", toto_delegate(annotated))
    service.app.add_api_route("/created", toto_delegate(annotated), status_code=201)
    service.app.get("/decorated")(toto_delegate(plain))
    service.app.include_router(router)
    service.app.router.routes.append(Route("/starlette", starlette_endpoint))
    paths = ["/added", "/created", "/decorated", "/router/direct", "/router/deep/inner", "/starlette"]
    for path in paths:
        async with service.client() as client:
            assert (await client.get(path)).status_code == 401, path
        answer = await ask(service, path=path, headers={"x-correlation-id": "abc"})
        assert answer.status_code == (201 if path == "/created" else 200)
        assert answer.json()["user"] == "me"
        assert answer.json()["cid"] == "abc"
    async with service.client() as client:
        body = {"name": "n", "count": 1}
        assert (await client.post("/router/rich/k", json=body)).status_code == 401
    assert (await ask(service, "POST", "/router/rich/k", json=body)).json()["who"] == "me"


async def starlette_endpoint(request: Request) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse(await toto_delegate(annotated)(request))


async def test_delegate_in_a_mounted_app_authenticates() -> None:
    service = serve(annotated)
    other = FastAPI()
    other.add_api_route("/x", toto_delegate(annotated))
    service.app.mount("/mounted", other)
    async with service.client() as client:
        refused = await client.get("/mounted/x")
    assert refused.status_code == 401
    assert (await ask(service, path="/mounted/x")).json()["user"] == "me"


async def refusing(request: Request, user_context: UserContext) -> Any:
    raise ValidationError("The title is missing")


async def refusing_without_a_request(page: int = 1) -> Any:
    raise ValidationError("The title is missing")


def plainly_refusing(user_context: UserContext) -> Any:
    raise ValidationError("The title is missing")


@pytest.mark.parametrize("delegate", [refusing, refusing_without_a_request, plainly_refusing])
@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "foreign"])
async def test_validation_error_in_another_app_is_answered_as_in_the_service(delegate: Any, mounted: bool) -> None:
    service, other = serve(annotated), FastAPI()
    other.add_api_route("/x", toto_delegate(delegate))
    if mounted:
        service.app.mount("/mounted", other)
    set_default_runtime(service)
    try:
        headers = {"authorization": f"Bearer {make_token(KEY, 'me')}", "x-correlation-id": "abc"}
        foreign = httpx.AsyncClient(transport=httpx.ASGITransport(other), base_url="http://test")
        async with service.client() if mounted else foreign as client:
            answer = await client.get("/mounted/x" if mounted else "/x", headers=headers)
    finally:
        set_default_runtime(None)
    message = "The title is missing"
    assert (answer.status_code, answer.json()) == (
        400,
        {"code": 400, "message": message, "cid": "abc", "detail": message},
    )


@pytest.mark.parametrize("kind", [ValidationError, TotoError])
async def test_other_app_answers_errors_that_it_has_a_handler_for(kind: type[Exception]) -> None:
    async def own(_request: Request, _error: Exception) -> Response:
        return Response("its own", 418)

    service, other = serve(annotated), FastAPI(exception_handlers={kind: own})
    other.add_api_route("/x", toto_delegate(refusing))
    service.app.mount("/mounted", other)
    answer = await ask(service, path="/mounted/x")
    assert (answer.status_code, answer.text) == (418, "its own")


async def test_delegate_that_a_test_calls_by_itself_raises() -> None:
    request = Request({"type": "http", "headers": [], "app": FastAPI()})
    with pytest.raises(ValidationError, match="title"):
        await toto_delegate(refusing)(request, UserContext("me"))


async def test_delegate_in_a_foreign_app_uses_the_default_service() -> None:
    foreign = FastAPI()
    foreign.add_api_route("/x", toto_delegate(annotated))
    set_default_runtime(serve(annotated))
    try:
        headers = {"authorization": f"Bearer {make_token(KEY, 'me')}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(foreign), base_url="http://test") as client:
            assert (await client.get("/x", headers=headers)).json()["user"] == "me"
            refused = await client.get("/x")
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    finally:
        set_default_runtime(None)


async def test_delegate_outside_any_service_says_so() -> None:
    foreign = FastAPI()
    foreign.add_api_route("/x", toto_delegate(annotated))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(foreign), base_url="http://test") as client:
        with pytest.raises(ConfigurationError, match="outside a microservice"):
            await client.get("/x")


async def test_two_services_in_one_process_keep_their_own() -> None:
    one = make_service(APIEndpoint("GET", "/x", toto_delegate(annotated)), config=Settings("1" * 32))
    two = make_service(APIEndpoint("GET", "/x", toto_delegate(annotated)), config=Settings("2" * 32))
    for service, key, status in ((one, "1", 200), (two, "2", 200), (one, "2", 401), (two, "1", 401)):
        async with service.client(make_token(key * 32, "me")) as client:
            assert (await client.get("/x")).status_code == status


async def test_delegate_can_be_called_in_a_unit_test() -> None:
    service = serve(annotated)
    request = Request({"type": "http", "method": "PUT", "headers": []})
    context = ExecutionContext(service.logger, "c", service.config, None, service.environment)
    found = await toto_delegate(annotated)(request, UserContext("me"), context)
    named = await toto_delegate(annotated)(request=request, user_context=UserContext("me"), exec_context=context)
    assert found == named == {"method": "PUT", "user": "me", "cid": "c"}


async def test_delegate_called_without_user_is_an_error() -> None:
    with pytest.raises(TypeError, match="needs a UserContext"):
        await toto_delegate(annotated)(user_context=None)


# --- open paths ---


async def test_open_path_needs_no_token_but_verifies_one_that_is_sent(log: Log) -> None:
    service = serve(annotated, config=Settings(open_paths=["/api/x"]), base_path="/api")
    assert any("GET /api/x" in line and "WARNING" in line for line in log.lines)
    async with service.client() as client:
        assert (await client.get("/api/x")).json()["user"] is None
        assert (await client.get("/api/x", headers={"authorization": "Bearer a.b.c"})).status_code == 401
        assert (await client.get("/api/x", headers={"authorization": f"Bearer {token()}"})).json()[
            "user"
        ] == "me@example.com"


async def test_rich_open_path_needs_no_token() -> None:
    service = make_service(RICH, config=Settings(open_paths=["/items/{key}", "/items/k"]))
    async with service.client() as client:
        answer = await client.post("/items/k", json={"name": "n", "count": 1})
    assert answer.json()["who"] is None


async def test_context_variables_of_a_middleware_reach_the_delegate() -> None:
    from starlette.types import ASGIApp, Receive, Scope, Send

    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="")

    class Tenant:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            tenant.set("t1")
            await self.app(scope, receive, send)

    @toto_delegate
    async def delegate(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return tenant.get()

    service = make_service(APIEndpoint("GET", "/x", delegate))
    service.app.add_middleware(Tenant)
    assert (await ask(service)).json() == "t1"


async def test_generator_delegate_streams_and_authenticates() -> None:
    @toto_delegate
    async def stream(
        request: Request, user_context: UserContext, exec_context: ExecutionContext
    ) -> AsyncIterator[dict[str, int]]:
        for number in range(3):
            yield {"n": number}

    service = make_service(APIEndpoint("GET", "/x", stream))
    async with service.client() as client:
        assert (await client.get("/x")).status_code == 401
    answer = await ask(service)
    assert [line.replace(" ", "") for line in answer.text.splitlines()] == ['{"n":0}', '{"n":1}', '{"n":2}']


def test_totoms_delegate_module_names_what_it_makes() -> None:
    assert totoms.http.delegate.delegate_of(toto_delegate(annotated)) is not None
    assert toto_delegate(annotated).__name__ == "annotated"
    assert Body is not None
