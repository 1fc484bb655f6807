"""A service for servers with several workers: ``counted:app`` is a factory. It says which process answered."""

from __future__ import annotations

import os

from fastapi import Request
from starlette.types import ASGIApp

from totoms import (
    APIConfiguration,
    APIEndpoint,
    ExecutionContext,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)


@toto_delegate
async def worker(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, int]:
    """Return the id of the process."""
    return {"process": os.getpid()}


def app() -> ASGIApp:
    """Return the app of one worker."""
    endpoint = APIEndpoint(method="GET", path="/worker", delegate=worker, public=True)
    configuration = TotoMicroserviceConfiguration(
        service_name="counted", api_configuration=APIConfiguration(api_endpoints=[endpoint])
    )
    return TotoMicroservice.asgi(configuration)
