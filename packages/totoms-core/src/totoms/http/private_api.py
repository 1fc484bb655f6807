"""Undocumented members of FastAPI, Starlette and uvicorn that totoms uses, each with a reason and a fallback.

Without a member, a route stays closed, or a request takes FastAPI's whole way instead of the fast path.
`tests/http/test_private_api.py` fails when a member is gone, and shows each fallback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

import fastapi.routing
from fastapi import Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.routing import APIRoute, APIRouter
from fastapi.utils import is_body_allowed_for_status_code
from starlette.routing import BaseRoute, Match, Route, Router, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from uvicorn import Config

# --- FastAPI: included routers ---
#
# FastAPI keeps an included router as one entry of the route list and looks for the route inside it on each request.
# The public `iter_route_contexts` lists these routes, but only `_IncludedRouter._match` says which of them a request
# reaches. Without a member, an included router is a route of an unknown kind: closed unless it is itself marked as
# public.


def _included_router() -> Any:
    kind = getattr(fastapi.routing, "_IncludedRouter", None)
    return kind if all(hasattr(kind, name) for name in ("effective_candidates", "_match")) else None


_Included: Any = _included_router()


def is_included(route: object) -> bool:
    """Return whether `route` stands for an included router."""
    return _Included is not None and isinstance(route, _Included)


def router_of(included: Any) -> Router | None:
    """Return the router that was included; None without FastAPI's member."""
    router: Router | None = getattr(included, "original_router", None)
    return router


def routes_of(included: Any) -> Iterator[tuple[BaseRoute, str]]:
    """Yield the routes of an included router as they were declared, with their path under all prefixes."""
    for candidate in included.effective_candidates():
        if is_included(candidate):
            yield candidate, ""
        elif (route := getattr(candidate, "original_route", None)) is not None:
            yield route, _path(candidate)


def match_included(included: Any, scope: Scope) -> tuple[Match, BaseRoute | None, str]:
    """Return how an included router matches a request, the route that serves it, and that route's path."""
    match, _, route, candidate = included._match(scope)
    if candidate is None:
        return match, route, ""
    return match, getattr(candidate, "original_route", None), _path(candidate)


def _path(candidate: Any) -> str:
    route = getattr(candidate, "starlette_route", None)
    return str(getattr(route, "path", None) or getattr(candidate, "path", ""))


# --- FastAPI: fallback routes (`app.frontend`) ---
#
# They serve what no other route matches. No public method finds them. Without the member, whatever no other route
# matches is closed.

_UNKNOWN: Final = BaseRoute()


def match_fallbacks(router: Any, scope: Scope) -> tuple[Match, BaseRoute | None]:
    """Return how a router's fallback routes match a request, and which of them serves it."""
    find = getattr(router, "_match_low_priority", None)
    if find is None:
        return (Match.FULL, _UNKNOWN) if hasattr(router, "frontend") else (Match.NONE, None)
    match, _, route, candidate = find(scope)
    return match, route if candidate is None else getattr(candidate, "original_route", _UNKNOWN)


def fallbacks_of(router: Any) -> list[BaseRoute]:
    """Return a router's own fallback routes."""
    return list(getattr(router, "_low_priority_routes", ()))


# --- FastAPI: documentation ---


def is_documentation(endpoint: object) -> bool:
    """Return whether `endpoint` serves ``/docs``, ``/redoc`` or ``/openapi.json``.

    Nothing public marks them; they are functions inside `FastAPI.setup`. Unrecognised, they are logged as routes of the
    service's own.
    """
    return getattr(endpoint, "__qualname__", "").startswith("FastAPI.setup.")


# --- FastAPI and Starlette: whether the fast path gives the same result as the whole way ---


def is_stock(function: object, module: ModuleType) -> bool:
    """Return whether `function` is defined in `module`, and not a wrapper that an agent put there."""
    return isinstance(function, FunctionType) and function.__code__.co_filename == module.__file__


def has_stock_handler() -> bool:
    """Return whether `fastapi.routing.get_request_handler` is FastAPI's. Sentry replaces it to record requests."""
    return is_stock(getattr(fastapi.routing, "get_request_handler", None), fastapi.routing)


def has_plain_response(route: APIRoute) -> bool:
    """Return whether a route has no option with which FastAPI changes the response; False without one of the fields."""
    try:
        return (
            isinstance(route.response_class, DefaultPlaceholder)
            # With 205 FastAPI sends the length of a body, and no body.
            and (route.status_code == 204 or is_body_allowed_for_status_code(route.status_code))
            and not route.dependencies
            and getattr(route, "max_body_size", None) is None  # missing in older versions of FastAPI
            and not (route.response_model_include or route.response_model_exclude)
            and not (route.response_model_exclude_unset or route.response_model_exclude_defaults)
            and not route.response_model_exclude_none
            and bool(route.response_model_by_alias)
            and (route.response_field is None or is_response_field(route.response_field))
        )
    except AttributeError:
        return False


def is_response_field(field: object) -> bool:
    """Return whether `field` validates and serializes a response by a declared type: FastAPI's `ModelField`."""
    return callable(getattr(field, "validate", None)) and callable(getattr(field, "serialize_json", None))


def response_field_of(route: APIRoute) -> Any:
    """Return the `ModelField` of a route's response; None without a declared type, or without FastAPI's members."""
    field = getattr(route, "response_field", None)
    return field if is_response_field(field) else None


TELEMETRY: Final = "fastapi.telemetry"
"""FastAPI's key in the scope of a request that it traces."""


def is_traced(app: object) -> bool:
    """Return whether FastAPI's own telemetry is on.

    FastAPI decides by the OpenTelemetry providers of the process and offers no public question. Without the member,
    telemetry counts as on in a FastAPI that has it.
    """
    telemetry = getattr(app, "_native_telemetry", None)
    enabled = getattr(telemetry, "enabled", None)
    return bool(enabled()) if enabled is not None else TELEMETRY in sys.modules


_MATCHES: Final = tuple(kind.matches for kind in (Route, APIRoute) if hasattr(kind, "matches"))
_HANDLES: Final = tuple(kind.handle for kind in (Route, APIRoute) if hasattr(kind, "handle"))
_ROUTE_FIELDS: Final = ("path", "path_regex", "methods", "param_convertors")


def matches_by_template(route: BaseRoute) -> bool:
    """Return whether `route` matches by nothing but its path template and its methods.

    A subclass may override `matches`, and an agent may replace it: such routes are not indexed. Nor are any without
    one of Starlette's fields.
    """
    stock = isinstance(route, Route) and getattr(type(route), "matches", None) in _MATCHES
    return stock and all(hasattr(route, name) for name in _ROUTE_FIELDS)


def only_rejects_methods(route: object) -> bool:
    """Return whether a route whose path matches, but not its methods, responds with 405 and runs nothing.

    True for Starlette's own `handle`; a subclass may run code there.
    """
    return getattr(getattr(route, "handle", None), "__func__", None) in _HANDLES


def only_responds_not_found(router: Any) -> bool:
    """Return whether a router responds with 404 or a redirect where no route matches, and runs nothing.

    False if its `default` was replaced or it has middleware, and without one of these members.
    """
    try:
        return bool(router.default == router.not_found and router.middleware_stack == router.app)
    except AttributeError:
        return False


def runs_routes_only(router: Any) -> bool:
    """Return whether a router runs only its routes, without middleware; False without one of these members."""
    try:
        return bool(router.middleware_stack == router.app and type(router) is APIRouter)
    except AttributeError:
        return False


def innermost(stack: Any, module_prefixes: tuple[str, ...]) -> object:
    """Return what a middleware stack wraps, followed through middleware of these modules only.

    Middleware keeps the app that it wraps in `app`; without that member, the middleware itself is returned.
    """
    while type(stack).__module__.startswith(module_prefixes) and hasattr(stack, "app"):
        stack = stack.app
    return stack


# --- Starlette: exceptions and requests ---

try:
    from starlette import _exception_handler
except ImportError:
    _exception_handler = None  # type: ignore[assignment]
_wrap: Any = getattr(_exception_handler, "wrap_app_handling_exceptions", None)


EXCEPTION_HANDLERS: Final = "starlette.exception_handlers"
"""Starlette's key for the app's exception handlers in the scope, by class and by status. Unknown to Starlette, they are
not called for a delegate on the short cut, but around it, with a request whose body cannot be read again."""


async def handle_error(error: Exception, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
    """Respond to an exception with the app's exception handlers.

    Starlette has no public function for it. Without its private one, `request_response` calls the handlers, with a new
    request whose body cannot be read again.

    Raises:
        Exception: `error`, if no handler is registered for it.
    """

    async def fail(*_arguments: Any) -> Response:
        raise error

    app: ASGIApp = request_response(fail) if _wrap is None else _wrap(fail, request)
    await app(scope, receive, send)


def send_of(request: Request) -> Send:
    """Return the `send` of a request: `Request` has a public `receive` only. Needed for HTTP/2 server push.

    Without the member, the result raises when it is called, as in a request that was made without `send`.
    """
    send: Send = getattr(request, "_send", _no_send)
    return send


async def _no_send(_message: object) -> None:
    raise RuntimeError("Send channel has not been made available")


# --- uvicorn: what its server shares with a protocol class ---
#
# uvicorn documents `http=` with a class, but not what that class is given. Without a member, uvicorn's own protocol
# serves, with uvicorn's limits. Without the two members that `Config.load` sets, there are no WebSockets and no proxy
# headers.

_CONFIG: Final = ("loaded", "load", "app", "root_path", "limit_concurrency")
_SERVER_STATE: Final = ("connections", "tasks", "total_requests", "default_headers")


def supports_protocols(config: Config) -> bool:
    """Return whether uvicorn has what `totoms.http.server.protocol` needs."""
    from uvicorn import server

    state = getattr(server, "ServerState", object)()
    return all(hasattr(config, name) for name in _CONFIG) and all(hasattr(state, name) for name in _SERVER_STATE)


def loaded_app(config: Config) -> Any:
    """Return the application with uvicorn's middleware; without the member, the bare application."""
    return getattr(config, "loaded_app", config.app)


def without_proxy_headers(app: Any) -> Any:
    """Return the application inside uvicorn's proxy middleware; `app` if it is something else."""
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    return getattr(app, "app", app) if type(app) is ProxyHeadersMiddleware else app


def asgi_version_of(config: Config) -> str:
    """Return the ASGI version of the application."""
    return getattr(config, "asgi_version", "3.0")


def websocket_protocol(config: Config) -> Any:
    """Return uvicorn's class for WebSockets, which takes its application from the configuration; None without one."""
    return getattr(config, "ws_protocol_class", None) if hasattr(config, "loaded_app") else None
