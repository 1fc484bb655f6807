"""The HTTP side of a declaration."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Final

import pydantic
from fastapi import APIRouter, params
from pydantic import Field
from starlette.middleware import Middleware

from totoms.declaration.base import Declaration, refuse_duplicates
from totoms.declaration.issuers import OIDCIssuer
from totoms.declaration.requires import Requires
from totoms.threads import MOST_THREADS

METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")
_PATH: Final = re.compile(r"(/[^\s?#]*)?")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""The name of a header (RFC 9110, section 5.6.2)."""


def check_path(value: str) -> str:
    """Return a path or path template. Raises ValueError if it is malformed."""
    if not _PATH.fullmatch(value) or "//" in value:
        raise ValueError("must start with '/' and not contain '//', '?', '#' or white space")
    if not re.fullmatch(r"(?:[^{}]|\{[A-Za-z_][A-Za-z0-9_]*(?::[a-z]+)?\})*", value):
        raise ValueError("has a malformed {parameter}")
    return value


def _pattern(value: str) -> str:
    method, _, path = value.rpartition(" ")
    if method and method not in (*METHODS, "WEBSOCKET"):
        raise ValueError(f"{value!r} must be a path, or a method and a path: 'GET /x', '/static/*'")
    if path == "/*":
        raise ValueError("'/*' would open every route; put public(...) around the mount instead")
    if not path:
        raise ValueError("must name a path")
    check_path(path.removesuffix("/*"))
    if "*" in path.removesuffix("/*"):
        raise ValueError(f"{value!r} may have '*' only as its last part, as in '/static/*'")
    return value


def _dependency(value: Any) -> Any:
    if not isinstance(value, params.Depends):
        raise ValueError("must be Depends(...)")
    return value


def _router(value: Any) -> Any:
    if not isinstance(value, APIRouter):
        raise ValueError("must be a fastapi.APIRouter")
    return value


def _middleware(value: Any) -> Any:
    if not isinstance(value, Middleware):
        name = value.__name__ if isinstance(value, type) else "YourMiddleware"
        raise ValueError(f"must be starlette.middleware.Middleware({name}, ...)")
    return value


def _raised(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
        return value
    if isinstance(value, type) and issubclass(value, Exception):
        return value
    raise ValueError("the key must be a subclass of Exception, or a status from 400 to 599")


def _handler(value: Any) -> Any:
    if not callable(value):
        raise ValueError("must be a function that takes the request and the exception")
    return value


class APIEndpoint(Declaration):
    """One HTTP endpoint. What is not explained here means the same as in FastAPI's ``add_api_route``.

    Attributes:
        method: GET, POST, PUT, DELETE, PATCH, OPTIONS or HEAD.
        path: The path below the base path; ``/posts/{id}`` declares a path parameter.
        delegate: A function decorated with ``@toto_delegate``.
        public: Whether callers need no token.
        status_code: The status of the response, unless the delegate returns a `Response`.
        tags: Groups in ``/docs``.
        summary: The title in ``/docs``.
        description: The text in ``/docs``; by default the delegate's docstring.
        response_model: What the response is validated and filtered by. Left out, the delegate's return annotation; None
            for nothing.
        responses: Further responses for OpenAPI, by status.
        dependencies: ``Depends(...)`` to run before the delegate, once the caller is authenticated.
        deprecated: Whether ``/docs`` strikes it out.
        operation_id: Its name in OpenAPI.
        include_in_schema: Whether OpenAPI and ``/docs`` show it.
        requires: The scopes, roles and issuers that a caller must have; see `Requires`.
    """

    method: Annotated[str, pydantic.BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)]
    path: Annotated[str, pydantic.AfterValidator(check_path)]
    delegate: Any
    public: bool = False
    status_code: Annotated[int, Field(ge=200, le=599)] | None = None
    tags: list[str | Enum] | None = None
    summary: str | None = None
    description: str | None = None
    response_model: Any = None
    responses: dict[int | str, dict[str, Any]] | None = None
    dependencies: list[Annotated[params.Depends, pydantic.BeforeValidator(_dependency)]] | None = None
    deprecated: bool | None = None
    operation_id: str | None = None
    include_in_schema: bool = True
    requires: Requires | None = None

    @pydantic.field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        value = getattr(value, "value", value)
        if value not in METHODS:
            raise ValueError("must be one of " + ", ".join(METHODS))
        return value

    @pydantic.field_validator("delegate")
    @classmethod
    def _callable(cls, value: Any) -> Any:
        if not callable(value):
            raise ValueError("must be a function decorated with @toto_delegate")
        return value

    @pydantic.model_validator(mode="after")
    def _not_both(self) -> APIEndpoint:
        if self.public and self.requires is not None:
            raise ValueError("requires needs a caller with a token: leave out public=True, or requires")
        return self


def _header(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise ValueError("must be the name of a header, or '*'")
    return value


class CORSConfiguration(Declaration):
    """Cross-origin rules (https://fetch.spec.whatwg.org/#http-cors-protocol). Default: any origin, no credentials.

    Attributes:
        allow_origins: Allowed origins, or ``["*"]``.
        allow_credentials: Whether browsers may send cookies; requires explicit origins.
        allow_methods: Allowed methods, or ``["*"]``.
        allow_headers: Allowed request headers, or ``["*"]``.
        max_age: Seconds that a browser may cache the answer.
        expose_headers: Response headers that scripts may read in addition to ``x-correlation-id``; or ``["*"]``.
    """

    allow_origins: list[str] = Field(default_factory=lambda: ["*"])
    allow_credentials: bool = False
    allow_methods: list[str] = Field(default_factory=lambda: ["*"])
    allow_headers: list[str] = Field(default_factory=lambda: ["*"])
    max_age: int = 600
    expose_headers: list[Annotated[str, pydantic.AfterValidator(_header)]] = Field(default_factory=list)

    @pydantic.model_validator(mode="after")
    def _no_credentials_for_any(self) -> CORSConfiguration:
        if self.allow_credentials and "*" in self.allow_origins:
            raise ValueError("allow_credentials needs explicit allow_origins: any site could act as the user")
        if self.allow_credentials and "*" in self.expose_headers:
            raise ValueError("allow_credentials needs explicit expose_headers: browsers do not read '*' as any then")
        return self


class APIConfiguration(Declaration):
    """The HTTP side of a service.

    Attributes:
        api_endpoints: The endpoints.
        cors: Cross-origin rules; None to disable CORS.
        oidc_issuers: Issuers whose tokens are accepted in addition to the service's own and Google's.
        max_body_bytes: The largest request body; a larger one is answered 413.
        max_threads: How many delegates written as ``def`` may run at the same time.
        public_routes: Routes that need no token, by method and template as in the log: ``"GET /x"``, ``"/x"`` for every
            method, ``"/static/*"`` for a mount or all routes below.
        docs: Whether ``/docs`` and ``/openapi.json`` need no token; None for only if the service listens on this
            machine's own address, as the local backend does.
        routers: FastAPI's routers, served below the base path after the endpoints. Closed like everything else, unless
            inside ``public(...)``.
        middleware: Starlette's ``Middleware(...)``, the first outermost. It runs after the correlation id, the limits
            and CORS, and before authentication.
        exception_handlers: Handlers by exception class or status, for every route, as in FastAPI.
    """

    api_endpoints: list[APIEndpoint] = Field(default_factory=list)
    cors: CORSConfiguration | None = Field(default_factory=CORSConfiguration)
    oidc_issuers: list[OIDCIssuer] = Field(default_factory=list)
    max_body_bytes: Annotated[int, Field(gt=0)] = 10 * 1024 * 1024
    max_threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] = MOST_THREADS
    public_routes: list[Annotated[str, pydantic.AfterValidator(_pattern)]] = Field(default_factory=list)
    docs: bool | None = None
    routers: list[Annotated[APIRouter, pydantic.BeforeValidator(_router)]] = Field(default_factory=list)
    middleware: list[Annotated[Middleware, pydantic.BeforeValidator(_middleware)]] = Field(default_factory=list)
    exception_handlers: dict[
        Annotated[int | type[Exception], pydantic.BeforeValidator(_raised)],
        Annotated[Callable[..., Any], pydantic.BeforeValidator(_handler)],
    ] = Field(default_factory=dict)

    @pydantic.field_validator("api_endpoints", "oidc_issuers", "public_routes", "routers", "middleware", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value

    @pydantic.field_validator("exception_handlers", mode="before")
    @classmethod
    def _none_is_no_handler(cls, value: Any) -> Any:
        return {} if value is None else value

    @pydantic.field_validator("api_endpoints")
    @classmethod
    def _distinct(cls, value: list[APIEndpoint]) -> list[APIEndpoint]:
        refuse_duplicates("endpoint", [f"{endpoint.method} {endpoint.path}" for endpoint in value])
        refuse_duplicates("operation_id", [one.operation_id for one in value if one.operation_id is not None])
        return value
