"""Who calls, for one request: found once, by the route or, in an app of the user's own, by a dependency."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from starlette.types import Scope

from totoms.context import current_cid, sane_cid
from totoms.errors import Unauthorized
from totoms.execution import ExecutionContext, Runtime, UserContext, runtime_of

CORRELATION_ID: Final = "x-correlation-id"
_HEADER: Final = CORRELATION_ID.encode()


class Call:
    """One request on its way through the app, under ``scope["totoms"]``.

    Attributes:
        runtime: The microservice it came to.
        cid: Its correlation id.
        started: When it began, by the performance counter.
        user: Who calls, once that is known.
        headers: What is added to the headers of the response.
        status: Of the response, once it began.
        note: Why it was refused, for the log.
        error: An exception met on the short way, to be raised where the app's exception handlers see it.
        request: The request that the exception was met with.
    """

    __slots__ = ("cid", "error", "headers", "note", "request", "runtime", "started", "status", "user")

    def __init__(self, runtime: Runtime, cid: str) -> None:
        self.runtime = runtime
        self.cid = cid
        self.started = time.perf_counter()
        self.user: UserContext | None = None
        self.headers: list[tuple[bytes, bytes]] = [(_HEADER, cid.encode())]
        self.status = 0
        self.note = ""
        self.error: Exception | None = None
        self.request: Request | None = None


async def identify(request: Request) -> UserContext:
    """Return who calls.

    Raises:
        Unauthorized: There is no valid token, and the path is not open.
        Undecidable: It cannot be told now.
    """
    return await identify_scope(request.scope)


async def identify_scope(scope: Scope) -> UserContext:
    """Return who calls; see `identify`."""
    call: Call | None = scope.get("totoms")
    if call is not None and call.user is not None:
        return call.user
    runtime = runtime_of(scope)
    authorization = [value for name, value in scope["headers"] if name == b"authorization"]
    try:
        if not authorization and runtime.config.is_path_excluded(scope["path"]):
            user = UserContext(None)
        else:
            user = await runtime.authenticator.authenticate(authorization)
    except Unauthorized as error:
        if call is not None:
            call.note = error.message
        raise
    if call is not None:
        call.user = user
    return user


def execution_context(request: Request) -> ExecutionContext:
    """Return the `ExecutionContext` of a request."""
    runtime = runtime_of(request.scope)
    cid = current_cid.get() or sane_cid(request.headers.get(CORRELATION_ID))
    return ExecutionContext(runtime.logger, cid, runtime.config, runtime.message_bus, runtime.environment)


class BearerToken(SecurityBase):
    """The dependency that authenticates, and shows in OpenAPI that it does."""

    def __init__(self) -> None:
        self.model: Any = HTTPBearerModel(bearerFormat="JWT", description="A token in the Authorization header.")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> UserContext:
        """Return who calls; see `identify`."""
        return await identify(request)


CALLER: Final = BearerToken()
