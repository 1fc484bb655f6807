"""The outermost layer of the app: what holds for every request, whoever answers it.

The correlation id, one log line, CORS, the limit for bodies, the host check of a local service, and the last resort
for exceptions. A request for a delegate's static path, or for the push endpoint, goes on from here directly, as long as
nobody put a middleware of their own in between; everything else goes through FastAPI's middleware and router.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from totoms.caller import CORRELATION_ID, Call, identify_scope
from totoms.context import current_cid, new_cid, sane_cid
from totoms.cors import CORS
from totoms.environment import scoped
from totoms.execution import ExecutionContext, Runtime
from totoms.hosts import is_local_host
from totoms.problems import CLIENT_CLOSED, INTERNAL, problem
from totoms.requests import TotoRequest, limit_body
from totoms.route import JSON_HEADER, DelegateRoute, PushRoute
from totoms.static_paths import StaticPaths
from totoms.tracing import current_traceparent, remember_traceparent

_CID: Final = CORRELATION_ID.encode()


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
        """Serve one connection. Never raises for a request that was begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
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
            refusal = self._refuse(call, scope, headers)
            if refusal is not None:
                await refusal(scope, receive, _with_headers(send, call))
            elif not await self._answer_directly(call, scope, headers, receive, send):
                await self._answer(call, scope, headers, receive, send)
        finally:
            scoped.reset(environment)
            current_cid.reset(token)
            if call.status:
                elapsed = (time.perf_counter() - call.started) * 1000
                note = f": {call.note}" if call.note else ""
                line = f"{scope['method']} {scope['path']} {call.status} {elapsed:.1f} ms{note}"
                self._runtime.logger.log(cid, line)

    def _refuse(self, call: Call, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """Return the answer to a request that goes no further; also settles which headers every answer gets."""
        if self._local and not is_local_host(headers.get(b"host")):
            return problem(400, "This service answers to the names of this machine only")
        if self._cors is not None:
            origin = headers.get(b"origin")
            if origin is not None and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                return self._cors.preflight(scope)
            call.headers += self._cors.headers(origin)
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and (len(length) > 18 or int(length) > self._limit):
            return problem(413, "Request body too large", headers={"connection": "close"})
        return None

    async def _answer(
        self, call: Call, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Answer through the app and all of its middleware."""
        wrapped = _with_headers(send, call)
        try:
            await self.app(scope, limit_body(receive, self._limit), wrapped)
        except Exception as error:
            self._log_error(call, scope, error)
            if not call.status:
                await problem(500, INTERNAL)(scope, receive, wrapped)

    async def _answer_directly(
        self, call: Call, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> bool:
        """Answer the short way. False when the app is to answer, or to handle the exception."""
        route = self._paths.find(scope) if self._direct and "fastapi.telemetry" not in scope else None
        if route is None:
            return False
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        request = TotoRequest(scope, receive, send, self._limit)
        try:
            answer = await self._run(route, request, call, headers)
            if isinstance(answer, bytes):
                call.status = 200
                # No browser pushes: the rules for those are nothing to a broker.
                more = call.headers[:1] if isinstance(route, PushRoute) else call.headers
                head = [(b"content-length", b"%d" % len(answer)), JSON_HEADER, *more]
                await send({"type": "http.response.start", "status": 200, "headers": head})
                await send({"type": "http.response.body", "body": answer})
            else:
                await answer(scope, receive, _with_headers(send, call))
        except Exception as error:
            if not call.status:
                call.error, call.request = error, request
                return False
            self._log_error(call, scope, error)
        finally:
            if request._form is not None:
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
            user = call.user = runtime.authenticator.remembered(authorization)
        if user is None:
            user = await identify_scope(request.scope)
        context = ExecutionContext(runtime.logger, call.cid, runtime.config, runtime.message_bus, runtime.environment)
        return await route.respond(request, user, context)

    def _log_error(self, call: Call, scope: Scope, error: Exception) -> None:
        if isinstance(error, ClientDisconnect):
            call.status = call.status or CLIENT_CLOSED
            return
        self._runtime.logger.log(call.cid, f"{scope['method']} {scope['path']} failed", "ERROR", error)


def _with_headers(send: Send, call: Call) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            call.status = message["status"]
            own = list(message.get("headers", ()))
            names = {name.lower() for name, _ in own}
            own += [(name, value) for name, value in call.headers if name == b"vary" or name not in names]
            message["headers"] = own
        await send(message)

    return wrapped
