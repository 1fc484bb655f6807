"""The context of a request: the caller, authenticated once, and its `ExecutionContext`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.types import Scope

from totoms.auth.user import UserContext
from totoms.context import current_cid, sane_cid
from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError, Unauthorized, Undecidable
from totoms.execution import ExecutionContext
from totoms.logging.logger import TotoLogger

if TYPE_CHECKING:
    from totoms.auth.authenticator import Authenticator
    from totoms.controller_config import TotoControllerConfig
    from totoms.health import Readiness
    from totoms.messages.bus import MessageBus


class Runtime(Protocol):
    """A microservice, as far as HTTP needs it."""

    @property
    def service_name(self) -> str:
        """The name in logs and in ``/health``."""
        ...

    @property
    def config(self) -> TotoControllerConfig:
        """The loaded configuration."""
        ...

    @property
    def logger(self) -> TotoLogger:
        """The service's logger."""
        ...

    @property
    def message_bus(self) -> MessageBus:
        """The message bus; False in a service that declares none."""
        ...

    @property
    def environment(self) -> TotoEnvironment:
        """The environment."""
        ...

    @property
    def authenticator(self) -> Authenticator:
        """Authenticates callers."""
        ...

    @property
    def state(self) -> str:
        """One of "starting", "ready", "draining" and "stopped"."""
        ...

    @property
    def awaited_topics(self) -> list[str]:
        """Logical names of the topics whose push subscription is not confirmed yet."""
        ...

    @property
    def readiness(self) -> Readiness:
        """The readiness checks."""
        ...


_default: Runtime | None = None


def set_default_runtime(runtime: Runtime | None) -> None:
    """Set the microservice for delegates that are called outside a `TotoAPI`; None removes it."""
    global _default
    _default = runtime


def runtime_of(scope: Any) -> Runtime:
    """Return the microservice of a request.

    Args:
        scope: The ASGI scope of the request.

    Raises:
        ConfigurationError: The app does not belong to a microservice, and the process has no default one.
    """
    call = scope.get("totoms")
    runtime: Runtime | None
    if call is not None:
        runtime = call.runtime
    else:
        runtime = getattr(getattr(scope.get("app"), "state", None), "totoms", None) or _default
    if runtime is None:
        raise ConfigurationError(
            "A delegate was called outside a microservice: await TotoMicroservice.init(...) first."
        )
    return runtime


CORRELATION_ID: Final = "x-correlation-id"
_HEADER: Final = CORRELATION_ID.encode()


class Call:
    """The state of one request or WebSocket, in ``scope["totoms"]``.

    Args:
        runtime: The microservice.
        cid: The correlation id.
        authorization: The ``Authorization`` header, if it is known to be the only one.

    Attributes:
        started: The start time, by `time.perf_counter`.
        user: The caller, once authenticated.
        headers: Headers to add to the response.
        route: The path template of the route that serves the request; "" if no route does.
        status: The status of the response, once it has started.
        note: The reason for a refusal, for the log.
    """

    __slots__ = ("authorization", "cid", "headers", "note", "route", "runtime", "started", "status", "user")

    def __init__(self, runtime: Runtime, cid: str, authorization: bytes | None = None) -> None:
        self.runtime = runtime
        self.cid = cid
        self.authorization = authorization
        self.started = time.perf_counter()
        self.user: UserContext | None = None
        self.headers: list[tuple[bytes, bytes]] = [(_HEADER, cid.encode())]
        self.route = ""
        self.status = 0
        self.note = ""


async def identify(request: HTTPConnection) -> UserContext:
    """Return the caller, authenticating the request if needed.

    Raises:
        Unauthorized: There is no valid token, and the route is closed.
        Undecidable: The token cannot be verified now.
        HTTPException: Either of them, in an app without totoms's exception handlers.
        WebSocketException: The same, for a WebSocket.
    """
    return await identify_scope(request.scope)


async def identify_scope(scope: Scope) -> UserContext:
    """Return the caller; see `identify`. In a `TotoAPI` the gate has authenticated the request already."""
    call: Call | None = scope.get("totoms")
    if call is not None and call.user is not None:
        return call.user
    runtime = runtime_of(scope)
    authorization = authorization_of(scope)
    try:
        user = await runtime.authenticator.authenticate(authorization)
    except (Unauthorized, Undecidable) as error:
        if call is None:
            raise _as_http_exception(scope, error, sent=bool(authorization)) from error
        call.note = error.message
        raise
    if call is not None:
        call.user = user
    return user


def authorization_of(scope: Scope) -> list[bytes]:
    """Return the values of all ``Authorization`` headers."""
    return [value for name, value in scope["headers"] if name == b"authorization"]


def _as_http_exception(scope: Scope, error: Unauthorized | Undecidable, *, sent: bool) -> Exception:
    if scope["type"] == "websocket":
        return WebSocketException(1008, error.message)
    if isinstance(error, Undecidable):
        return HTTPException(error.status, error.message, {"Retry-After": str(max(1, error.retry_after))})
    challenge = 'Bearer error="invalid_token"' if sent else "Bearer"  # RFC 6750, section 3.1
    return HTTPException(error.status, error.message, {"WWW-Authenticate": challenge})


def execution_context(request: Request) -> ExecutionContext:
    """Return the `ExecutionContext` of a request."""
    call: Call | None = request.scope.get("totoms")
    if call is not None:
        runtime, cid = call.runtime, call.cid
    else:
        runtime = runtime_of(request.scope)
        cid = current_cid.get() or sane_cid(request.headers.get(CORRELATION_ID))
    return ExecutionContext(runtime.logger, cid, runtime.config, runtime.message_bus, runtime.environment)


async def execution_dependency(request: Request) -> ExecutionContext:
    """Return the `ExecutionContext` of a request. Async, because FastAPI runs a plain `def` dependency in a thread."""
    return execution_context(request)


class BearerToken(SecurityBase):
    """The dependency that authenticates, and declares the bearer scheme in OpenAPI."""

    def __init__(self) -> None:
        self.model: Any = HTTPBearerModel(bearerFormat="JWT", description="A token in the Authorization header.")
        self.scheme_name = "bearer"

    async def __call__(self, connection: HTTPConnection) -> UserContext:
        """Return the caller; see `identify`."""
        return await identify(connection)


CALLER: Final = BearerToken()
current_user: Final = CALLER
"""The caller, in plain FastAPI endpoints and WebSockets: ``user: Annotated[UserContext, Depends(current_user)]``."""
DEPENDENCIES: Final[dict[str, tuple[Callable[..., Any], ...]]] = {
    "request": (),
    "user": (CALLER, identify),
    "execution": (execution_context, execution_dependency),
}
"""The dependencies that a delegate may declare for each of totoms's parameters: they return the same value."""
