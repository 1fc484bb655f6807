"""The declaration of a microservice."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Annotated, Any, Final

import pydantic
from pydantic import Field

from totoms.controller_config import TotoControllerConfig
from totoms.declaration.api import APIConfiguration, check_path
from totoms.declaration.base import Declaration, refuse_duplicates
from totoms.declaration.logging import LogConfiguration
from totoms.declaration.messaging import MessageBusConfig
from totoms.declaration.resources import Resources
from totoms.declaration.server import ServerConfiguration
from totoms.environment import TotoEnvironment
from totoms.health import ReadinessCheck, name_of

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


def _service_name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError("must be 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit")
    return value


class TotoMicroserviceConfiguration(Declaration):
    """A microservice.

    Attributes:
        service_name: The name in logs, in ``/health`` and in the names of subscriptions.
        base_path: The prefix of every endpoint, such as ``/blog``; by default none.
        environment: Where it runs; by default ``HYPERSCALER``, else ``local``.
        custom_config: A subclass of `TotoControllerConfig`.
        api_configuration: HTTP endpoints.
        message_bus_configuration: Topics and message handlers.
        shutdown_grace: Seconds that running requests and handlers may take to finish after SIGTERM.
        server: Deadlines and limits of the HTTP server.
        log: What the log shows of exceptions.
        version: The version of the service, for OpenAPI.
        description: What the service does, for OpenAPI; Markdown.
        resources: The buckets and secrets that the service uses, which are checked when it starts.
        readiness_checks: Functions ``async def check(config) -> None``; while one of them raises, or takes longer than
            2 s, ``/ready`` answers 503.
    """

    service_name: Annotated[str, pydantic.AfterValidator(_service_name)]
    environment: TotoEnvironment | None = None
    custom_config: type[TotoControllerConfig] = TotoControllerConfig
    base_path: Annotated[str, pydantic.AfterValidator(check_path)] = ""
    api_configuration: APIConfiguration | None = None
    message_bus_configuration: MessageBusConfig | None = None
    shutdown_grace: Annotated[float, Field(ge=0)] = 25.0
    server: ServerConfiguration = Field(default_factory=ServerConfiguration)
    log: LogConfiguration = Field(default_factory=LogConfiguration)
    version: Annotated[str, Field(min_length=1)] = "0.1.0"
    description: str = ""
    resources: Resources | None = None
    readiness_checks: list[ReadinessCheck] = Field(default_factory=list)

    @pydantic.field_validator("base_path", mode="before")
    @classmethod
    def _normal_base_path(cls, value: Any) -> Any:
        return "" if value is None else value.rstrip("/") if isinstance(value, str) else value

    @pydantic.field_validator("readiness_checks", mode="before")
    @classmethod
    def _are_checks(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return [] if value is None else value
        for check in value:
            called = check if inspect.isroutine(check) or isinstance(check, functools.partial) else type(check).__call__
            if not callable(check) or not inspect.iscoroutinefunction(called):
                raise ValueError(f"{name_of(check)} must be an async function: async def check(config) -> None")
            try:
                inspect.signature(check).bind(None)
            except TypeError:
                raise ValueError(f"{name_of(check)} must take one argument, the service's config") from None
        refuse_duplicates("readiness check", [name_of(check) for check in value])
        return value
