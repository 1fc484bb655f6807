"""The outermost layer of the app, for every request and WebSocket.

It sets the correlation id, writes one log line, applies CORS, the body limit and the host check of a local service, and
responds with 500 to unhandled exceptions. It is outside FastAPI, so that agents that patch FastAPI see a
plain app.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from totoms.context import current_cid, current_traceparent, new_cid, remember_traceparent, sane_cid
from totoms.environment import scoped
from totoms.http.context import CORRELATION_ID, Call, Runtime
from totoms.http.cors import CORS
from totoms.http.gate import refuse_websocket
from totoms.http.hosts import has_local_host
from totoms.http.request_log import RequestLog, truncated
from totoms.http.requests import limit_body
from totoms.http.responses import CLIENT_CLOSED, INTERNAL, problem
from totoms.http.routes import PushRoute
from totoms.http.sender import Sender, websocket_sender
from totoms.http.shortcut import Shortcut

_CID: Final = CORRELATION_ID.encode()
_FOREIGN_HOST: Final = "The Host header must name this machine"


class Edge:
    """Wraps a `TotoAPI`.

    Args:
        app: FastAPI with its middleware.
        runtime: The microservice.
        routes: Returns the app's route list.
        shortcut: Serves what FastAPI's middleware would not change.
        cors: The cross-origin rules; None for no CORS.
        log: Writes the line of each request.
        max_body_bytes: The limit for request bodies.
        local: Whether to refuse requests whose Host header does not name this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        runtime: Runtime,
        routes: Callable[[], Sequence[BaseRoute]],
        *,
        shortcut: Shortcut,
        cors: CORS | None,
        log: RequestLog,
        max_body_bytes: int,
        local: bool,
    ) -> None:
        self.app = app
        self._runtime = runtime
        self._shortcut = shortcut
        self._cors = cors
        self._log = log
        self._limit = max_body_bytes
        self._local = local
        self._routes = routes
        self._push_routes: list[PushRoute] | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket.

        Args:
            scope: The ASGI scope.
            receive: ASGI's receive.
            send: ASGI's send.

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
        # A dictionary as long as the list has no header twice.
        sole = headers.get(b"authorization") if len(headers) == len(scope["headers"]) else None
        call = scope["totoms"] = Call(self._runtime, cid, sole)
        try:
            if scope["type"] == "websocket":
                if self._local and not has_local_host(scope, headers):
                    refusal = problem(400, _FOREIGN_HOST)
                    await refuse_websocket(refusal, _FOREIGN_HOST, scope, receive, websocket_sender(send, call))
                else:
                    await self.app(scope, receive, websocket_sender(send, call))
                return
            response = self._early_response(call, scope, headers)
            sender = Sender(send, call, scope)
            if response is not None:
                await response(scope, receive, sender)
                return
            limited = limit_body(receive, self._is_too_large, scope)
            try:
                route = self._shortcut.find(scope)
                if route is not None:
                    call.route = route.path
                    await self._shortcut.serve(route, scope, limited, sender)
                else:
                    await self.app(scope, limited, sender)
            except Exception as error:
                self._log_error(call, scope, error)
                if not call.status:
                    await problem(500, INTERNAL)(scope, receive, sender)
        finally:
            scoped.reset(environment)
            current_cid.reset(token)
            if call.status:
                self._log.write(self._runtime.logger, call, scope)

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
        if length is not None and length.isdigit() and (len(length) > 18 or self._is_too_large(scope, int(length))):
            return problem(413, "Request body too large", headers={"connection": "close"})
        return None

    def _is_too_large(self, scope: Scope, length: int) -> bool:
        return length > self._limit and length > self._limit_of(scope)

    def _limit_of(self, scope: Scope) -> int:
        """Return the limit in bytes for the body of this request."""
        if self._push_routes is None:  # not in __init__, when the app has no routes yet
            self._push_routes = [route for route in self._routes() if isinstance(route, PushRoute)]
        for route in self._push_routes:
            if route.matches(scope)[0] is Match.FULL:
                return route.max_body_bytes
        return self._limit

    def _log_error(self, call: Call, scope: Scope, error: Exception) -> None:
        if isinstance(error, ClientDisconnect):
            call.status = call.status or CLIENT_CLOSED
            return
        self._runtime.logger.log(call.cid, f"{scope['method']} {truncated(scope['path'])} failed", "ERROR", error)
