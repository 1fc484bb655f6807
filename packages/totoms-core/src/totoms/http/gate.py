"""The gate: it authenticates requests after the user's middleware and before the router."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from totoms.auth.user import UserContext
from totoms.context import current_cid, new_cid
from totoms.errors import Unauthorized, Undecidable
from totoms.http.access import Access, Decisions
from totoms.http.context import Call, Runtime, authorization_of, identify_scope
from totoms.http.responses import on_toto_error
from totoms.http.routes import DelegateRoute
from totoms.telemetry import state as telemetry

_POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1


class Gate:
    """Wraps the router and lets a request pass if it has a valid token or if its route is open.

    Args:
        router: The app's router.
        decisions: The access of each route.
        runtime: The microservice.
    """

    def __init__(self, router: ASGIApp, decisions: Decisions, runtime: Runtime) -> None:
        self.app = router
        self._decisions = decisions
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate a connection, then pass it to the router. A WebSocket is refused before it is accepted.

        Raises:
            Unauthorized: The route is closed and the request has no valid token. The app's handlers respond.
            Undecidable: The token cannot be verified now.
        """
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        call: Call | None = scope.get("totoms")
        if call is None or call.runtime is not self._runtime:  # a middleware made a new scope
            call = scope["totoms"] = Call(self._runtime, current_cid.get() or new_cid())
        if telemetry.active is not None:
            telemetry.active.annotate_request(call.cid)
        path, root = scope["path"], scope.get("root_path", "")
        try:
            if call.user is None and not self.recognize(scope, call):
                try:
                    await self.authenticate(scope, call)
                except (Unauthorized, Undecidable) as error:
                    if scope["type"] == "http":
                        raise
                    answer = await on_toto_error(Request({**scope, "type": "http"}), error)
                    await refuse_websocket(answer, error.message, scope, receive, send)
                    return
            await self.app(scope, receive, send)
        finally:
            call.route = self._decisions.template(scope, path, root)

    def recognize(self, scope: Scope, call: Call) -> bool:
        """Set the caller if the token was verified lately. This is not a coroutine, because most requests end here.

        Returns:
            Whether the caller is known now.
        """
        header = call.authorization
        if header is None:
            values = authorization_of(scope)
            header = values[0] if len(values) == 1 else None
        if header is not None:
            call.user = self._runtime.authenticator.cached(header)
        return call.user is not None

    async def authenticate(self, scope: Scope, call: Call, route: DelegateRoute | None = None) -> None:
        """Set the caller of a connection, if its route may be reached.

        Args:
            scope: The ASGI scope.
            call: Its state.
            route: Its route; if None, the access is that of the route that the router would choose.

        Raises:
            Unauthorized: The route is closed and there is no valid token, or a token of a public route is invalid.
            Undecidable: The token cannot be verified now.
        """
        authorization = authorization_of(scope)
        decisions = self._decisions
        access = decisions.find(scope) if route is None else decisions.of(route, route.path, scope["method"])
        if access is Access.OWN or (access is Access.NOTHING and not authorization):
            return
        if access is Access.PUBLIC and not authorization:
            call.user = UserContext(None)
        else:
            await identify_scope(scope)


async def refuse_websocket(refusal: Response, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket before it is accepted.

    Args:
        refusal: The response, if the server supports one (the ASGI extension ``websocket.http.response``). Other
            servers respond with 403.
        reason: The reason for the other servers.
        scope: The ASGI scope.
        receive: ASGI's receive.
        send: ASGI's send.
    """
    if "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(refusal)
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
