"""The caller that a delegate gets comes from authentication only, however its parameters are written."""

from __future__ import annotations
import __future__

import functools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from totoms import APIConfiguration, APIEndpoint, ConfigurationError, TotoMicroserviceConfiguration, toto_delegate
from totoms.auth.user import UserContext
from totoms.execution import ExecutionContext
from totoms.testing import TestMicroservice

KEY = "a signing key of at least thirty-two bytes"
VICTIM = "victim@example.com"
CALLER = "caller@example.com"

PREAMBLE = """
import collections, dataclasses, functools, logging, typing
from collections.abc import Callable, Mapping, Sequence
from typing import *
import fastapi
import typing_extensions
from fastapi import BackgroundTasks, Body, Cookie, Depends, File, Form, Header, Query, Request, Response, Security
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection
import totoms
from totoms import ExecutionContext, TotoControllerConfig, UserContext
from totoms.http.context import CALLER as current, execution_context as context_of

class Config(TotoControllerConfig): pass
class MyRequest(Request): pass
class MyUser(UserContext): pass
class MyContext(ExecutionContext[Config]): pass
T = TypeVar("T")
class GenericContext(ExecutionContext[T]): pass
class NewPost(BaseModel): email: str = ""
class Post(BaseModel): title: str = ""
class Bag(BaseModel): user: UserContext
class BagOfBags(BaseModel): bags: list[Bag] = []
@dataclasses.dataclass
class Plain: user: "UserContext"
class Dict(TypedDict): user: UserContext
class Tuple(NamedTuple): user: UserContext
class Repo: pass
class RepoLike(Protocol):
    def find(self) -> str: ...

Caller: TypeAlias = UserContext
Text = "UserContext"
AliasType = typing_extensions.TypeAliasType("AliasType", UserContext)
OptionalAlias = typing_extensions.TypeAliasType("OptionalAlias", Optional[UserContext])
ContextOf = typing_extensions.TypeAliasType("ContextOf", ExecutionContext[T], type_params=(T,))
Late = typing_extensions.TypeAliasType("Late", "UserContext")
NewUser = NewType("NewUser", UserContext)
Bound = TypeVar("Bound", bound=UserContext)
LateBound = TypeVar("LateBound", bound="UserContext")
Either = TypeVar("Either", UserContext, str)
Free = TypeVar("Free")

def given(email: str = "") -> str: return email
def of_user(user: UserContext) -> str: return user.email
def of_optional_user(user: Optional[UserContext] = None) -> Any: return user
def of_context(context: "ExecutionContext") -> str: return context.cid
def deep(value: Annotated[str, Depends(of_user)]) -> str: return value
def of_the_true_user(user: Annotated[UserContext, Depends(current)]) -> str: return user.email
class Service:
    def __init__(self, user: UserContext): self.user = user
def tell(found):
    def one(value):
        if isinstance(value, UserContext): return f"user {value.email}"
        if isinstance(value, ExecutionContext): return f"context of {value.config.environment.hyperscaler}"
        if isinstance(value, Request): return f"request {value.method}"
        return repr(value)
    return {name: [one(v) for v in value] if isinstance(value, tuple) else one(value) for name, value in found.items()}
"""

# Only type checkers import these; at run time their names are unknown.
UNIMPORTED = """
del UserContext, ExecutionContext, Request, Config, totoms
"""

USER = f"user {CALLER}"
CONTEXT = "context of testing"
REQUEST = "request POST"

# What stands in the parentheses of the delegate, and what each parameter then is.
OURS: dict[str, dict[str, Any]] = {
    "request: Request, user_context: UserContext, exec_context: ExecutionContext": {
        "request": REQUEST,
        "user_context": USER,
        "exec_context": CONTEXT,
    },
    **{
        f"request: Request, user_context: {text}, exec_context: ExecutionContext": {
            "request": REQUEST,
            "user_context": USER,
            "exec_context": CONTEXT,
        }
        for text in (
            "Optional[UserContext]",
            "UserContext | None",
            "None | UserContext",
            "Union[None, UserContext]",
            "Union[UserContext, MyUser, None]",
            "Optional['UserContext']",
            "'Optional[UserContext]'",
            "'UserContext'",
            "'totoms.UserContext'",
            "totoms.UserContext",
            'Annotated[UserContext, "text"]',
            'Annotated[Optional[UserContext], "text"]',
            'Optional[Annotated[UserContext, "text"]]',
            'Annotated[Annotated[UserContext, "a"], Field(description="b")]',
            "Annotated['UserContext', 1]",
            "Any",
            "object",
            "Optional[Any]",
            "Annotated[Any, 1]",
            "MyUser",
            "Optional[MyUser]",
            "Caller",
            "Optional[Caller]",
            "Text",
            "AliasType",
            "Optional[AliasType]",
            "OptionalAlias",
            "Late",
            "NewUser",
            "Optional[NewUser]",
            "Bound",
            "LateBound",
            "Free",
            "Annotated[UserContext, Depends(current)]",
        )
    },
    **{
        f"request: Request, user_context: {text} = None, exec_context: ExecutionContext = None": {
            "request": REQUEST,
            "user_context": USER,
            "exec_context": CONTEXT,
        }
        for text in ("Optional[UserContext]", "UserContext | None", "UserContext", "Any", "object", "AliasType")
    },
    "user: UserContext = Depends(current)": {"user": USER},
    "context: ExecutionContext = Depends(context_of)": {"context": CONTEXT},
    "request, user_context=None, exec_context=None": {
        "request": REQUEST,
        "user_context": USER,
        "exec_context": CONTEXT,
    },
    "request=None, user_context={}, execution_context=0": {
        "request": REQUEST,
        "user_context": USER,
        "execution_context": CONTEXT,
    },
    "user_context=None": {"user_context": USER},
    "*, user_context=None, request: Any = None": {"user_context": USER, "request": REQUEST},
    "user_context: Optional[UserContext] = None, /": {"user_context": USER},
    "request: HTTPConnection": {"request": REQUEST},
    "request: 'Optional[MyRequest]', who: Optional[UserContext]": {"request": REQUEST, "who": USER},
    "req: Any, who: 'UserContext | None'": {"req": REQUEST, "who": USER},
    **{
        f"user_context: UserContext, exec_context: {text}": {"user_context": USER, "exec_context": CONTEXT}
        for text in (
            "ExecutionContext[Config]",
            "ExecutionContext['Config']",
            "Optional[ExecutionContext]",
            "ExecutionContext[Config] | None",
            "ExecutionContext[Any]",
            "GenericContext[Config]",
            "MyContext",
            "ContextOf[Config]",
            "Annotated[ExecutionContext[Config], 1]",
            "ExecutionContext[T]",
            "ExecutionContext[Config] | ExecutionContext[TotoControllerConfig]",
        )
    },
    "execution_context: ExecutionContext[Config], u: UserContext": {"execution_context": CONTEXT, "u": USER},
    "a, b, c": {"a": REQUEST, "b": USER, "c": CONTEXT},
    # --- *rest gets what 1.5.0 gave ---
    "*rest": {"rest": [REQUEST, USER, CONTEXT]},
    "*rest, **more": {"rest": [REQUEST, USER, CONTEXT], "more": "{}"},
    "request, *rest": {"request": REQUEST, "rest": [USER, CONTEXT]},
    "request: Request, user_context: Optional[UserContext], *rest": {
        "request": REQUEST,
        "user_context": USER,
        "rest": [CONTEXT],
    },
    "request, user_context, exec_context, *rest": {
        "request": REQUEST,
        "user_context": USER,
        "exec_context": CONTEXT,
        "rest": [],
    },
    "request, dry_run=True, *rest": {"request": REQUEST, "dry_run": "True", "rest": [USER, CONTEXT]},
    "request, /, *rest, flag=False": {"request": REQUEST, "rest": [USER, CONTEXT], "flag": "False"},
    "request, page: int = 1, *rest": {"request": REQUEST, "page": "7", "rest": [USER, CONTEXT]},
    "context: ExecutionContext, *rest": {"context": CONTEXT, "rest": [REQUEST, USER]},
    # --- parameters of the service's own, with a default that callers must not set ---
    "request, user_context, exec_context, dry_run=True, email='mine'": {
        "request": REQUEST,
        "user_context": USER,
        "exec_context": CONTEXT,
        "dry_run": "True",
        "email": "'mine'",
    },
    "user_context, email=None, *, admin=False": {"user_context": USER, "email": "None", "admin": "False"},
    "request: Request, user_context: UserContext, exec_context: ExecutionContext, repo: Repo = None": {
        "request": REQUEST,
        "user_context": USER,
        "exec_context": CONTEXT,
        "repo": "None",
    },
    **{
        f"user_context: UserContext, thing: {text} = None": {"user_context": USER, "thing": "None"}
        for text in (
            "Repo",
            "'Repo'",
            "Optional[Repo]",
            "RepoLike",
            "type[Repo]",
            "list[Repo]",
            "Callable[[], float]",
            "logging.Logger",
            "Annotated[Repo, 'text']",
        )
    },
    "user_context=None, repo: Repo = None, /, page: int = 1": {"user_context": USER, "repo": "None", "page": "7"},
    # --- and FastAPI's go on ---
    "user_context, page: int = 1": {"user_context": USER, "page": "7"},
    "user_context, page=Query(1)": {"user_context": USER, "page": "'7'"},
    "user_context, tasks: BackgroundTasks = None, r: Response = None, c: HTTPConnection = None": None,
    "user_context, it=Depends(of_the_true_user)": {"user_context": USER, "it": repr(CALLER)},
    "user_context, it: Annotated[str, Depends(of_the_true_user)]": {"user_context": USER, "it": repr(CALLER)},
    "post: Post, user: UserContext | None = None": {"post": "Post(title='t')", "user": USER},
}

# As text, with names that only type checkers know.
UNIMPORTED_OURS = [
    "request: Request, user_context: UserContext, exec_context: ExecutionContext",
    "request: Request, user_context: Optional[UserContext], exec_context: ExecutionContext[Config]",
    "request: fastapi.Request, user_context: totoms.UserContext | None, exec_context: totoms.ExecutionContext[Config]",
    'request: "Request", user_context: Annotated[UserContext, 1] = None, exec_context: ExecutionContext | None = None',
]

# Refused: the parameter that the error names.
REFUSED: dict[str, str] = {
    **{
        f"request: Request, exec_context: ExecutionContext, who: {text}": "who"
        for text in (
            "list[UserContext]",
            "dict[str, UserContext]",
            "tuple[UserContext, ...]",
            "Sequence['UserContext']",
            "Callable[[UserContext], str]",
            "Callable[[], UserContext]",
            "type[UserContext]",
            "UserContext | str",
            "Union[str, UserContext, None]",
            "UserContext | ExecutionContext",
            "list[Optional[UserContext]]",
            "'dict[str, list[UserContext]]'",
            "Annotated[list[UserContext], 1]",
            "Either",
            "list[AliasType]",
            "list[NewUser]",
            "list[Bound]",
            "Mapping[str, ExecutionContext[Config]]",
            "list[Request]",
            "Bag",
            "BagOfBags",
            "Plain",
            "Dict",
            "Tuple",
            "Optional[Bag]",
            "list[Plain]",
            "Annotated[UserContext, Depends(given)]",
            "Annotated[UserContext, Body()]",
            "Annotated[UserContext, Query()]",
            "Annotated[UserContext, Depends()]",
            "Annotated[UserContext, Security(given)]",
            "Optional[Annotated[UserContext, Form()]]",
            "UserContext = Depends(given)",
            "UserContext = Body()",
            "Optional[UserContext] = Header(None)",
            "Optional[UserContext] = Cookie(None)",
            "list[UserContext] = []",
            "Unheard",
            "Annotated[str, Depends(unheard)]",
            "Unheard[UserContext]",
            "UserContext | Unheard",
            "Unheard = None",
        )
    },
    **{
        f"request: Request, user_context: {text}": "user_context"
        for text in (
            "dict",
            "dict[str, Any]",
            "NewPost",
            "Optional[NewPost]",
            "str",
            "Optional[dict]",
            "Mapping",
            "Request",
            "ExecutionContext",
            "str = 'x'",
            "dict = None",
            "Annotated[dict, Body()]",
            "Any = Body()",
            "list",
            "Repo",
            "Repo = None",
            "RepoLike",
            "Annotated[Any, Depends(given)]",
        )
    },
    # Without an annotation, in the place of what another parameter is.
    "user, request: Request": "user",
    "slug, request: Request, user_context: UserContext": "slug",
    "request: Request, who, user_context": "who",
    "a: ExecutionContext, request, last": "last",
    "user_context=Depends(given)": "user_context",
    "user_context=Query(None)": "user_context",
    "request: NewPost, user_context: UserContext": "request",
    "request: Post = None": "request",
    "request: Annotated[Request, Body()]": "request",
    "request: Response": "request",
    "exec_context: dict": "exec_context",
    "execution_context: Optional[Post]": "execution_context",
    "exec_context: ExecutionContext = Body()": "exec_context",
    "a: Optional[UserContext], b: UserContext": "b",
    "exec_context, execution_context=None": "execution_context",
    **{
        f"user_context: UserContext, it: {text}": "it"
        for text in (
            "Annotated[str, Depends(of_user)]",
            "str = Depends(of_user)",
            "Annotated[Any, Depends(of_optional_user)]",
            "Annotated[str, Depends(of_context)]",
            "Annotated[str, Depends(deep)]",
            "Annotated[Service, Depends()]",
            "Service = Depends()",
            "Annotated[Any, Depends(Service)]",
        )
    },
    "user_context: UserContext, it=Depends(of_user)": "it",
}


@functools.cache
def preamble() -> dict[str, Any]:
    # Registered, as pydantic and typing look up the names of a class in its module.
    module = sys.modules["a_module_of_a_service"] = ModuleType("a_module_of_a_service")
    exec(compile(PREAMBLE, "service.py", "exec", dont_inherit=True), vars(module))
    return vars(module)


def define(parameters: str, *, text: bool, unimported: bool = False, name: str = "who") -> Any:
    """Return a delegate's function as a module would have it, with its annotations as text or evaluated."""
    source = f"async def {name}({parameters}):\n    return tell(dict(locals()))\n"
    flags = __future__.annotations.compiler_flag if text else 0
    module = dict(preamble())
    if unimported:
        exec(UNIMPORTED, module)
    exec(compile(source, "service.py", "exec", flags, dont_inherit=True), module)
    return module[name]


NAMES = (
    "user_context",
    "user",
    "who",
    "exec_context",
    "execution_context",
    "request",
    "email",
    "dry_run",
    "thing",
    "repo",
    "totoms_user",
    "totoms_caller",
    "totoms_request",
    "totoms_execution",
    "rest",
    "admin",
    "flag",
)


@asynccontextmanager
async def serving(functions: list[Any]) -> AsyncIterator[TestMicroservice]:
    """A service with each function as a delegate, at ``/0``, ``/1`` and so on."""
    endpoints = [APIEndpoint("POST", f"/{number}", toto_delegate(one)) for number, one in enumerate(functions)]
    configuration = TotoMicroserviceConfiguration(
        service_name="who", api_configuration=APIConfiguration(api_endpoints=endpoints)
    )
    async with TestMicroservice(configuration, secrets={"jwt-signing-key": KEY}, user=CALLER) as service:
        service.client.cookies.update(dict.fromkeys(NAMES, VICTIM))
        yield service


async def call(service: TestMicroservice, number: int = 0) -> httpx.Response:
    """Call a delegate with a valid token, and name another user wherever a request can name one."""
    user = {"email": VICTIM, "auth_provider": "toto"}
    request: dict[str, Any] = {
        "json": {**user, **dict.fromkeys(NAMES, user), "title": "t"},
        "params": {**dict.fromkeys(NAMES, VICTIM), "page": "7"},
        "headers": {**{name.replace("_", "-"): VICTIM for name in NAMES}, "x-user": VICTIM, "from": VICTIM},
    }
    assert (await service.client_of(None).post(f"/{number}", **request)).status_code == 401
    return await service.client.post(f"/{number}", **request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[TestMicroservice]:
    """Serves every row of `OURS`, first evaluated and then as text."""
    async with serving([define(parameters, text=text) for text in (False, True) for parameters in OURS]) as service:
        yield service


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", [False, True], ids=["evaluated", "as text"])
@pytest.mark.parametrize("parameters", OURS)
async def test_delegate_gets_the_authenticated_caller_whatever_the_request_says(
    parameters: str, text: bool, service: TestMicroservice
) -> None:
    answer = await call(service, list(OURS).index(parameters) + (len(OURS) if text else 0))

    assert answer.status_code == 200, answer.text
    assert VICTIM not in answer.text
    expected = OURS[parameters]
    assert expected is None or answer.json() == expected


@pytest.mark.parametrize("parameters", UNIMPORTED_OURS)
async def test_names_that_only_type_checkers_import_are_ours_by_their_name(parameters: str) -> None:
    async with serving([define(parameters, text=True, unimported=True)]) as service:
        answer = await call(service)

    assert answer.json() == {"request": REQUEST, "user_context": USER, "exec_context": CONTEXT}


@pytest.mark.parametrize("text", [False, True], ids=["evaluated", "as text"])
@pytest.mark.parametrize("parameters", REFUSED)
def test_what_could_be_taken_for_the_caller_is_refused_when_decorating(parameters: str, text: bool) -> None:
    if "nheard" in parameters and not text:
        pytest.skip("Python itself refuses a name that it does not know")
    function = define(parameters, text=text, name="read_account")

    with pytest.raises(ConfigurationError) as caught:
        toto_delegate(function)

    assert "read_account" in str(caught.value)
    assert repr(REFUSED[parameters]) in str(caught.value)


# --- what the function is, instead of how its parameters are written ---


def forms() -> dict[str, Any]:
    parameters = "request: Request, user_context: Optional[UserContext], exec_context: 'ExecutionContext | None' = None"
    function = define(parameters, text=True)
    module = function.__globals__
    exec(
        "class Callable:\n"
        f"    async def __call__(self, {parameters}): return tell(dict(request=request, user_context=user_context,"
        " exec_context=exec_context))\n"
        "class Holder:\n"
        f"    async def method(self, {parameters}): return await function(request, user_context, exec_context)\n"
        "    @classmethod\n"
        f"    async def of_class(cls, {parameters}): return await function(request, user_context, exec_context)\n"
        "    @staticmethod\n"
        f"    async def static({parameters}): return await function(request, user_context, exec_context)\n"
        f"def plain({parameters}): return tell(dict(locals()))\n"
        f"async def fixed(extra, {parameters}):\n"
        "    return await function(request, user_context, exec_context)\n"
        "@functools.wraps(function)\n"
        "async def wrapped(*arguments, **named): return await function(*arguments, **named)\n"
        "async def bare_wrapper(*arguments): return await function(*arguments)\n",
        {**module, "function": function},
        module,
    )
    return {
        "function": function,
        "callable object": module["Callable"](),
        "method": module["Holder"]().method,
        "class method": module["Holder"].of_class,
        "static method": module["Holder"].static,
        "plain function": module["plain"],
        "partial": functools.partial(module["fixed"], 7),
        "partial of a caller": functools.partial(function, user_context=UserContext(VICTIM)),
        "partial of a partial": functools.partial(functools.partial(module["fixed"], 7), exec_context=None),
        "wrapped": module["wrapped"],
        "wrapped without a signature": module["bare_wrapper"],
        "partial of wrapped": functools.partial(module["wrapped"]),
    }


@pytest.mark.parametrize("form", forms())
async def test_every_form_of_delegate_gets_the_caller(form: str) -> None:
    async with serving([forms()[form]]) as service:
        answer = await call(service)

    assert answer.json() == {"request": REQUEST, "user_context": USER, "exec_context": CONTEXT}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is of Python 3.12")
@pytest.mark.parametrize("text", [False, True], ids=["evaluated", "as text"])
async def test_type_statements_and_type_parameters_are_seen_through(text: bool) -> None:
    function = define("a: int", text=False)
    source = (
        "type Me = UserContext | None\n"
        "type Within[C] = ExecutionContext[C]\n"
        "async def who(request: Request, user: Me, context: Within[Config]): return tell(dict(locals()))\n"
        "async def bound[U: UserContext](request: Request, user: U, context: Any = None): return tell(dict(locals()))\n"
    )
    flags = __future__.annotations.compiler_flag if text else 0
    exec(compile(source, "service.py", "exec", flags, dont_inherit=True), function.__globals__)

    async with serving([function.__globals__["who"], function.__globals__["bound"]]) as service:
        answers = [await call(service, number) for number in range(2)]
    assert answers[0].json() == {"request": REQUEST, "user": USER, "context": CONTEXT}
    assert (answers[1].json()["user"], VICTIM in answers[1].text) == (USER, False)


# --- routes that are not delegates: pydantic itself makes no caller of what was sent ---


async def test_no_caller_or_context_is_made_of_what_was_sent_anywhere() -> None:
    app = FastAPI()

    @app.post("/x")
    async def plain(user: UserContext) -> Any:
        return user.email

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/x", json={"email": VICTIM, "auth_provider": "toto"})
    assert answer.status_code == 422


async def test_user_context_may_be_answered() -> None:
    async def answered(user_context: UserContext) -> UserContext:
        return user_context

    async with serving([answered]) as service:
        answer = await call(service)
        schema = (await service.client.get("/openapi.json")).json()
    assert "UserContext" in schema["components"]["schemas"]
    assert answer.json()["email"] == CALLER


def test_execution_context_may_be_parametrised() -> None:
    from totoms import TotoControllerConfig

    assert ExecutionContext[TotoControllerConfig].__origin__ is ExecutionContext  # type: ignore[attr-defined]
