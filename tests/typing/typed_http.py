"""Read by type checkers only: delegates keep their signature, and endpoints and callers have the types users expect."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, assert_type

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from totoms import (
    APIConfiguration,
    APIEndpoint,
    ExecutionContext,
    OIDCIssuer,
    Requires,
    UserContext,
    public,
    toto_delegate,
)


@toto_delegate
async def create(
    request: Request, user_context: UserContext, exec_context: ExecutionContext, title: str, count: int = 1
) -> list[int]:
    assert_type(user_context.claims, Mapping[str, Any])
    assert_type(user_context.roles, frozenset[str])
    assert_type(user_context.scopes, frozenset[str])
    assert_type(user_context.issuer, str)
    assert_type(user_context.subject, str | None)
    assert_type(user_context.authenticated, bool)
    return [count]


@toto_delegate
def in_a_thread(user_context: UserContext, title: str) -> str:
    return title


@toto_delegate
async def stream(user_context: UserContext) -> AsyncIterator[str]:
    yield "a"


@toto_delegate
def stream_from_a_thread(user_context: UserContext) -> Iterator[str]:
    yield "a"


async def call(request: Request, user: UserContext, context: ExecutionContext) -> None:
    assert_type(await create(request, user, context, "title", count=2), list[int])
    assert_type(await in_a_thread(user, "title"), str)
    assert_type(stream(user), AsyncIterator[str])
    assert_type(stream_from_a_thread(user), AsyncIterator[str])
    await in_a_thread(user, 3)  # type: ignore[arg-type]
    await create(request, user)  # type: ignore[call-arg]


async def not_found(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({}, 404)


def dependency() -> None: ...


requires = Requires(scopes={"posts:write"}, roles=frozenset({"admin"}), any_of=[Requires(issuers={"toto"})])
api = APIConfiguration(
    api_endpoints=[
        APIEndpoint(
            method="POST",
            path="/posts",
            delegate=create,
            status_code=201,
            tags=["posts"],
            response_model=None,
            responses={404: {"description": "None"}, "default": {}},
            dependencies=[Depends(dependency)],
            requires=requires,
        )
    ],
    oidc_issuers=[
        OIDCIssuer(
            issuer="https://id.example", audience=["a", "b"], token_use="access", roles_claim="realm_access.roles"
        )
    ],
    routers=[public(APIRouter())],
    middleware=[Middleware(GZipMiddleware, minimum_size=10)],
    exception_handlers={KeyError: not_found, 404: not_found},
)
