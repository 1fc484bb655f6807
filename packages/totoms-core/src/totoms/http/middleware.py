"""The outermost layer of the app, for every request and WebSocket.

It sets the correlation id, writes one log line, applies CORS, the body limit and the host check of a local service, and
responds with 500 to unhandled exceptions. It is outside FastAPI, so that agents that patch FastAPI see a plain app. It
calls delegates with a static path, and the push endpoint, directly while the app has no other middleware or agent;
everything else goes through FastAPI's middleware and router.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from totoms.auth.user import UserContext
from totoms.context import current_cid, current_traceparent, new_cid, remember_traceparent, sane_cid
from totoms.environment import scoped
from totoms.execution import ExecutionContext
from totoms.http.access import Access, Decisions
from totoms.http.context import CORRELATION_ID, Call, Runtime, identify_scope
from totoms.http.cors import CORS
from totoms.http.gate import refuse_websocket
from totoms.http.hosts import has_local_host
from totoms.http.requests import TotoRequest, limit_body
from totoms.http.responses import CLIENT_CLOSED, INTERNAL, problem
from totoms.http.routes import JSON_HEADER, DelegateRoute, PushRoute, StaticPaths
from totoms.http.server.response_heads import check_headers, check_status
from totoms.logging.masking import mask, mask_again

_CID: Final = CORRELATION_ID.encode()
_MAX_LOGGED_PATH: Final = 2000
_FOREIGN_HOST: Final = "The Host header must name this machine"


class Edge:
    """Wraps a `TotoAPI`.

    Args:
        app: FastAPI with its middleware.
        runtime: The microservice.
        routes: Returns the app's route list.
        decisions: The access to each route.
        cors: The cross-origin rules; None for no CORS.
        max_body_bytes: The limit for request bodies.
        local: Whether to refuse requests whose Host header does not name this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        runtime: Runtime,
        routes: Callable[[], Sequence[BaseRoute]],
        *,
        decisions: Decisions,
        cors: CORS | None,
        max_body_bytes: int,
        local: bool,
    ) -> None:
        self.app = app
        self._runtime = runtime
        self._decisions = decisions
        self._cors = cors
        self._limit = max_body_bytes
        self._local = local
        self._paths = StaticPaths(routes)
        self._routes = routes
        self._push_routes: list[PushRoute] | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send, direct: bool) -> None:
        """Serve one request or WebSocket.

        Args:
            scope: The ASGI scope.
            receive: ASGI's receive.
            send: ASGI's send.
            direct: Whether delegates may be called directly.

        Raises:
            Exception: Any exception of a WebSocket endpoint, as in FastAPI. HTTP requests never raise.
        """
        headers: dict[bytes, bytes] = dict(scope["headers"])
        sent = headers.get(_CID)
        cid = sane_cid(sent.decode("latin-1")) if sent else new_cid()
        token = current_cid.set(cid)
        environment = scoped.set(self._runtime.environment)
        trace = headers.get(b"traceparent")
        if trace or current_traceparent():
            remember_traceparent(trace.decode("latin-1") if trace else None)
        call = scope["totoms"] = Call(self._runtime, cid)
        try:
            if scope["type"] == "websocket":
                if self._local and not has_local_host(scope, headers):
                    refusal = problem(400, _FOREIGN_HOST)
                    await refuse_websocket(refusal, _FOREIGN_HOST, scope, receive, _for_websocket(send, call))
                else:
                    await self.app(scope, receive, _for_websocket(send, call))
                return
            response = self._early_response(call, scope, headers)
            if response is not None:
                await response(scope, receive, _for_http(send, call, scope))
            elif not (direct and await self._serve_directly(call, scope, headers, receive, send)):
                await self._serve_by_app(call, scope, receive, send)
        finally:
            scoped.reset(environment)
            current_cid.reset(token)
            if call.status:
                elapsed = (time.perf_counter() - call.started) * 1000
                note = f": {mask(call.note)}" if call.note else ""
                path = mask_again(scope["path"])
                if len(path) > _MAX_LOGGED_PATH:
                    path = _truncated(path)
                line = f"{scope.get('method', 'WEBSOCKET')} {path} {call.status} {elapsed:.1f} ms{note}"
                self._runtime.logger.log_masked(cid, line)

    def _early_response(self, call: Call, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """Return the response to a foreign host, a preflight or a body over the limit; else None. Adds CORS headers."""
        if self._local and not has_local_host(scope, headers):
            return problem(400, _FOREIGN_HOST)
        if self._cors is not None:
            origin = headers.get(b"origin")
            if origin is not None and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                return self._cors.preflight(scope)
            call.headers += self._cors.headers(origin)
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and (len(length) > 18 or self._is_too_large(int(length), scope)):
            return problem(413, "Request body too large", headers={"connection": "close"})
        return None

    def _is_too_large(self, length: int, scope: Scope) -> bool:
        return length > self._limit and length > self._limit_of(scope)

    def _limit_of(self, scope: Scope) -> int:
        """Return the limit in bytes for the body of this request."""
        if self._push_routes is None:  # not in __init__, when the app has no routes yet
            self._push_routes = [route for route in self._routes() if isinstance(route, PushRoute)]
        for route in self._push_routes:
            if route.matches(scope)[0] is Match.FULL:
                return route.max_body_bytes
        return self._limit

    async def _serve_by_app(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request through FastAPI's middleware and router."""
        wrapped = _for_http(send, call, scope)
        try:
            await self.app(scope, limit_body(receive, self._limit_of(scope)), wrapped)
        except Exception as error:
            self._log_error(call, scope, error)
            if not call.status:
                await problem(500, INTERNAL)(scope, receive, wrapped)

    async def _serve_directly(
        self, call: Call, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> bool:
        """Serve a request on the fast path.

        Returns:
            False if the app must serve the request: it has no fast path, or its exception needs the app's handlers.
        """
        route = self._paths.find(scope)
        if route is None:
            return False
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        request = TotoRequest(scope, receive, send, self._limit)
        try:
            answer = await self._run(route, request, call, headers)
            if isinstance(answer, bytes):
                call.status = 200
                # Brokers are not browsers: they get the correlation id, which is first, without the CORS headers.
                more = call.headers[:1] if isinstance(route, PushRoute) else call.headers
                head = [(b"content-length", b"%d" % len(answer)), JSON_HEADER, *more]
                await send({"type": "http.response.start", "status": 200, "headers": head})
                await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer})
            else:
                await answer(scope, receive, _for_http(send, call, scope))
        except Exception as error:
            if not call.status:
                call.error, call.request = error, request
                return False
            self._log_error(call, scope, error)
        finally:
            await request.close()
        return True

    async def _run(
        self, route: DelegateRoute | PushRoute, request: TotoRequest, call: Call, headers: dict[bytes, bytes]
    ) -> bytes | Response:
        if isinstance(route, PushRoute):
            return await route.respond(request)
        runtime = self._runtime
        authorization = headers.get(b"authorization")
        user = None
        if authorization is not None and len(headers) == len(request.scope["headers"]):
            user = call.user = runtime.authenticator.cached(authorization)
        if user is None:
            if authorization is None and self._is_public(route, request.scope):
                user = call.user = UserContext(None)
            else:
                user = await identify_scope(request.scope)
        context = ExecutionContext(runtime.logger, call.cid, runtime.config, runtime.message_bus, runtime.environment)
        return await route.respond(request, user, context)

    def _is_public(self, route: DelegateRoute, scope: Scope) -> bool:
        return self._decisions.of(route, route.path, scope["method"]) is Access.PUBLIC

    def _log_error(self, call: Call, scope: Scope, error: Exception) -> None:
        if isinstance(error, ClientDisconnect):
            call.status = call.status or CLIENT_CLOSED
            return
        self._runtime.logger.log(call.cid, f"{scope['method']} {_truncated(scope['path'])} failed", "ERROR", error)


def _truncated(path: str) -> str:
    """Return `path` for the log; callers must not be able to fill it."""
    return path if len(path) <= _MAX_LOGGED_PATH else f"{path[:_MAX_LOGGED_PATH]}... ({len(path)} characters)"


def _for_http(send: Send, call: Call, scope: Scope) -> Send:
    """Return a `send` that checks responses, adds the call's headers, records the status, and drops bodies for HEAD."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            check_status(message["status"])
            check_headers(own)  # before anything is sent, so that the response can still be 500
            call.status = message["status"]
            names = {name.lower() for name, _ in own}
            own += [(name, value) for name, value in call.headers if name == b"vary" or name not in names]
            message["headers"] = own
        elif scope["method"] == "HEAD" and message.get("body"):
            message["body"] = b""  # RFC 9110, section 9.3.2
        await send(message)

    return wrapped


def _for_websocket(send: Send, call: Call) -> Send:
    """Return a `send` that adds the call's headers to the handshake and records its status."""

    async def wrapped(message: Message) -> None:
        kind = message["type"]
        if kind in ("websocket.accept", "websocket.http.response.start"):
            call.status = message.get("status", 101)
            message["headers"] = [*message.get("headers", ()), *call.headers]
        elif kind == "websocket.close" and not call.status:
            call.status = 403
        await send(message)

    return wrapped
