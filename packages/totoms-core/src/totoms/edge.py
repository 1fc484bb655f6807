"""The outermost layer of the app: what holds for every request, whoever answers it.

The correlation id, one log line, CORS, the limit for bodies, the host check of a local service, and the last resort
for exceptions. A request for a delegate's static path goes on from here directly, as long as nobody put a middleware
of their own in between; everything else goes through FastAPI's middleware and router.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from totoms.caller import CORRELATION_ID, Call, identify_scope
from totoms.context import current_cid, new_cid, sane_cid
from totoms.cors import CORS, RawHeaders
from totoms.execution import ExecutionContext, Runtime, UserContext
from totoms.hosts import is_local_host
from totoms.problems import INTERNAL, problem
from totoms.requests import TotoRequest, limit_body
from totoms.route import JSON_HEADER, DelegateRoute
from totoms.static_paths import StaticPaths
from totoms.tracing import current_traceparent, remember_traceparent

_CID: Final = CORRELATION_ID.encode()
_CLIENT_CLOSED: Final = 499
"""The status logged, as nginx does, when the caller went away before it was answered."""


class Edge:
    """Wraps an app.

    Args:
        app: FastAPI with its middleware.
        runtime: The microservice.
        routes: The app's route list.
        cors: Cross-origin rules, or None.
        max_body_bytes: The limit for request bodies.
        local: Whether only requests that name this machine are served.
        direct: Whether delegates may be called without passing through `app`.
    """

    def __init__(
        self, app: ASGIApp, runtime: Runtime, routes: Callable[[], Sequence[BaseRoute]], *, cors: CORS | None,
        max_body_bytes: int, local: bool, direct: bool,
    ) -> None:  # fmt: skip
        self.app = app
        self._runtime = runtime
        self._cors = cors
        self._limit = max_body_bytes
        self._local = local
        self._direct = direct
        self._paths = StaticPaths(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        raw = scope["headers"]
        headers: dict[bytes, bytes] = dict(raw)
        sent = headers.get(_CID)
        cid = sane_cid(sent.decode("latin-1")) if sent else new_cid()
        token = current_cid.set(cid)
        trace = headers.get(b"traceparent")
        if trace or current_traceparent():
            remember_traceparent(trace.decode("latin-1") if trace else None)
        call = scope["totoms"] = Call(self._runtime, cid)
        try:
            await self._answer(call, scope, headers, receive, send)
        finally:
            current_cid.reset(token)
            if call.status:
                elapsed = (time.perf_counter() - call.started) * 1000
                note = f": {call.note}" if call.note else ""
                line = f"{scope['method']} {scope['path']} {call.status} {elapsed:.1f} ms{note}"
                self._runtime.logger.log(cid, line)

    async def _answer(self, call: Call, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        cors = self._cors
        origin = headers.get(b"origin")
        added: RawHeaders = [(_CID, call.cid.encode())]

        async def answer(response: Response) -> None:
            await response(scope, receive, _with_headers(send, call, added))

        if self._local and not is_local_host(headers.get(b"host")):
            await answer(problem(400, "This service answers to the names of this machine only."))
            return
        if cors is not None:
            if origin is not None and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                await answer(cors.preflight(scope))
                return
            added += cors.headers(origin)
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and (len(length) > 18 or int(length) > self._limit):
            # Not read to its end, so nothing else can follow on this connection.
            await answer(problem(413, "Request body too large", headers={"connection": "close"}))
            return
        if length is not None or b"transfer-encoding" in headers or scope["method"] not in ("GET", "HEAD"):
            receive = limit_body(receive, self._limit)
        if self._direct and "fastapi.telemetry" not in scope:
            route = self._paths.find(scope)
            if route is not None and await self._serve(route, call, scope, headers, added, receive, send):
                return
        wrapped = _with_headers(send, call, added)
        try:
            await self.app(scope, receive, wrapped)
        except Exception as error:
            self._log_error(call, scope, error)
            if not call.status:
                await problem(500, INTERNAL)(scope, receive, wrapped)

    async def _serve(
        self, route: DelegateRoute, call: Call, scope: Scope, headers: dict[bytes, bytes], added: RawHeaders,
        receive: Receive, send: Send,
    ) -> bool:  # fmt: skip
        """Answer by a delegate, the short way. False when its exception is to be answered by the app."""
        runtime = self._runtime
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        request = TotoRequest(scope, receive, send)
        try:
            user = await self._identify(call, scope, headers)
            context = ExecutionContext(
                runtime.logger, call.cid, runtime.config, runtime.message_bus, runtime.environment
            )
            answer = await route.respond(request, user, context)
        except Exception as error:
            call.error, call.request = error, request
            return False
        if isinstance(answer, bytes):
            length = (b"content-length", b"%d" % len(answer))
            call.status = 200
            await send({"type": "http.response.start", "status": 200, "headers": [length, JSON_HEADER, *added]})
            await send({"type": "http.response.body", "body": answer})
            return True
        try:
            await answer(scope, receive, _with_headers(send, call, added))
        except Exception as error:
            if not call.status:
                call.error, call.request = error, request
                return False
            self._log_error(call, scope, error)
        return True

    async def _identify(self, call: Call, scope: Scope, headers: dict[bytes, bytes]) -> UserContext:
        authorization = headers.get(b"authorization")
        if authorization is not None and len(headers) == len(scope["headers"]):
            user = self._runtime.authenticator.remembered(authorization)
            if user is not None:
                call.user = user
                return user
        return await identify_scope(scope)

    def _log_error(self, call: Call, scope: Scope, error: Exception) -> None:
        if isinstance(error, ClientDisconnect):
            call.status = call.status or _CLIENT_CLOSED
            return
        self._runtime.logger.log(call.cid, f"{scope['method']} {scope['path']} failed", "ERROR", error)


def _with_headers(send: Send, call: Call, added: RawHeaders) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            call.status = message["status"]
            own: Any = message.get("headers", ())
            names = {name.lower() for name, _ in own}
            message["headers"] = [*own, *((name, value) for name, value in added if name == b"vary" or name not in names)]
        await send(message)

    return wrapped
