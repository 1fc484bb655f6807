"""The routes of delegates and of the push endpoint, and an index to find them.

FastAPI's handler (dependencies, exit stacks, `jsonable_encoder`) costs more than everything that a delegate with only
the three parameters needs, so the route of such a delegate is a plain ASGI callable: it is fast. A delegate with
further parameters, or a route with options that change the response, goes through FastAPI's handler, authenticated
before the body is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeGuard

from fastapi import Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.exceptions import FastAPIError, ResponseValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute, compile_path
from starlette.types import Receive, Scope, Send

from totoms.http import private_api
from totoms.http.context import Call, execution_context, identify, identify_scope
from totoms.http.delegate import Delegate, delegate_of
from totoms.http.private_api import handle_error
from totoms.http.requests import TotoRequest
from totoms.http.responses import encode_json, reject_nan
from totoms.http.sender import Sender
from totoms.threads import run_delegate

Push = Callable[[Request], Awaitable[bytes | Response]]
HANDSHAKE_HEADER: Final = "webhook-request-origin"
"""The header of a broker's OPTIONS request for permission to push (CloudEvents webhooks)."""


class DelegateRoute(APIRoute):
    """An `APIRoute` that authenticates delegates. Other endpoints are served as in FastAPI.

    Attributes:
        delegate: The delegate; None for another endpoint.
        fast: Whether the delegate is called without FastAPI's handler.
        head_of_get: Whether the route answers HEAD for the GET route of the same path.
    """

    head_of_get = False

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.delegate: Delegate | None = delegate_of(endpoint)
        if self.delegate is not None:
            options["openapi_extra"] = _path_parameters(path, self.delegate, options.get("openapi_extra"))
        try:
            super().__init__(path, endpoint, **options)
        except FastAPIError:
            given = options.get("response_model")
            if self.delegate is None or not (given is None or isinstance(given, DefaultPlaceholder)):
                raise
            # The return annotation is not a response model. totoms 1.x ignored it, so it declares nothing.
            options["response_model"] = None
            super().__init__(path, endpoint, **options)
        self._response_field = private_api.response_field_of(self)
        if self.delegate is not None and self._response_field is not None:
            reject_nan(self._response_field)
        plain = private_api.has_stock_handler() and private_api.has_plain_response(self)
        self._status = self.status_code or 200
        self.fast = plain and self.delegate is not None and self.delegate.fast
        if self.fast:
            self.app = self._serve_fast

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, behind authentication. `include_router` calls this for each route it rebuilds."""
        handler = super().get_route_handler()
        if self.delegate is None:
            return handler

        delegate = self.delegate

        async def authenticated(request: Request) -> Response:
            delegate.check(await identify(request), request)
            return await handler(TotoRequest(request.scope, request.receive, private_api.send_of(request)))

        return authenticated

    async def _serve_fast(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the delegate and respond with what it returns."""
        delegate = self.delegate
        assert delegate is not None
        request = TotoRequest(scope, receive, send)
        try:
            call: Call | None = scope.get("totoms")
            user = (call and call.user) or await identify_scope(scope)
            context = execution_context(request)
            if delegate.is_async:
                result = await delegate.call(request, user, context)
            else:
                result = await run_delegate(delegate.call, request, user, context)
                if inspect.isawaitable(result):
                    result = await result
            answer = result if isinstance(result, Response) else self._json(result)
            if isinstance(answer, bytes) and isinstance(send, Sender):
                await send.send_json(answer, self._status)
            else:
                await _response(answer, self._status)(scope, receive, send)
        except Exception as error:
            await _respond_to(error, request, send)
        finally:
            await request.close()

    def _json(self, result: object) -> bytes:
        """Return the JSON of what a delegate returned.

        Raises:
            NotSerializable: It cannot be written as JSON.
            ResponseValidationError: It does not match the return annotation.
        """
        field = self._response_field
        if field is None:
            return encode_json(result)
        # A return annotation: validate, filter and serialize by its model, as FastAPI does.
        value, errors = field.validate(result, {}, loc=("response",))
        if errors:
            raise ResponseValidationError(errors=errors, body=None)
        body: bytes = field.serialize_json(value)
        return body


class HeadRoute(DelegateRoute):
    """The HEAD route of a delegate for GET (RFC 9110, section 9.3.2).

    Args:
        path: The path of the GET route.
        endpoint: The delegate.
        options: The options of the GET route.
    """

    head_of_get = True

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, methods=["HEAD"], include_in_schema=False, **options)


class PushRoute(Route):
    """The route of the push endpoint, which authenticates its callers itself.

    Args:
        path: The path.
        push: The handler; it returns a response, or bytes of JSON.
        method: ``POST``, or ``OPTIONS`` for handshakes.
        max_body_bytes: The limit for request bodies. Brokers put messages into envelopes, so it is higher than the
            limit of other routes.
    """

    def __init__(self, path: str, push: Push, method: str, max_body_bytes: int) -> None:
        super().__init__(path, push, methods=[method], include_in_schema=False)
        self._push = push
        self.max_body_bytes = max_body_bytes
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = TotoRequest(scope, receive, send)
        try:
            if scope["method"] == "OPTIONS" and HANDSHAKE_HEADER not in request.headers:
                raise HTTPException(405, headers={"Allow": "POST"})
            answer = await self._push(request)
            if isinstance(answer, bytes) and isinstance(send, Sender):
                await send.send_json(answer)
            else:
                await _response(answer)(scope, receive, send)
        except Exception as error:
            await _respond_to(error, request, send)


def _response(answer: bytes | Response, status: int = 200) -> Response:
    if not isinstance(answer, bytes):
        return answer
    return Response(b"" if status == 204 else answer, status, media_type="application/json")


async def _respond_to(error: Exception, request: TotoRequest, send: Send) -> None:
    call: Call | None = request.scope.get("totoms")
    if call is not None and call.status:
        raise error  # the response has started
    await handle_error(error, request, request.scope, request.receive, send)


def _path_parameters(path: str, delegate: Delegate, extra: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return `extra` with the path parameters that the signature lacks: OpenAPI requires all of them."""
    missing = [name for name in compile_path(path)[2] if name not in delegate.signature.parameters]
    if not missing or (extra and "parameters" in extra):
        return extra
    schema = {"type": "string"}
    return {
        **(extra or {}),
        "parameters": [{"name": name, "in": "path", "required": True, "schema": schema} for name in missing],
    }


class RouteIndex:
    """Finds the route that FastAPI's router would choose, if its delegate is called without FastAPI.

    Routes without path parameters are found in a dictionary.

    Args:
        routes: Returns the route list. When the list changes, the index is built again.
    """

    def __init__(self, routes: Callable[[], Sequence[BaseRoute]]) -> None:
        self._routes = routes
        self._seen: list[BaseRoute] = []
        self._static: dict[tuple[str, str], DelegateRoute | PushRoute] = {}
        self._in_order: list[Route] = []

    def find(self, scope: Scope) -> DelegateRoute | PushRoute | None:
        """Return the route for `scope`, and set it there with its path parameters; None if FastAPI must serve it."""
        if self._routes() != self._seen:
            self._build()
        if not scope.get("root_path"):
            route = self._static.get((scope["method"], scope["path"]))
            if route is not None:
                scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
                return route
        for one in self._in_order:
            try:
                match, found = one.matches(scope)
            except Exception:  # a converter of the user's failed: it does so again in FastAPI's router
                return None
            if match is Match.FULL:
                if not _is_fast(one):
                    return None
                scope.update(found)
                scope["route"] = one
                return one
        return None

    def _build(self) -> None:
        self._seen, self._static, self._in_order = list(self._routes()), {}, []
        taken: set[tuple[str, str]] = set()
        for route in self._seen:
            if isinstance(route, WebSocketRoute):
                continue
            if not isinstance(route, Route) or not private_api.matches_by_template(route):
                break  # a mount, an included router or a subclass: it may match any path, so FastAPI decides
            if not route.param_convertors and route.methods:
                for method in route.methods:
                    key = (method, route.path)
                    if key not in taken and not _shadowed(self._in_order, method, route.path) and _is_fast(route):
                        self._static[key] = route
                    taken.add(key)
            self._in_order.append(route)


def _is_fast(route: Route) -> TypeGuard[DelegateRoute | PushRoute]:
    return isinstance(route, PushRoute) or (isinstance(route, DelegateRoute) and route.fast)


def _shadowed(earlier: list[Route], method: str, path: str) -> bool:
    return any(route.path_regex.match(path) and (not route.methods or method in route.methods) for route in earlier)
