"""The declaration of a microservice."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import pydantic
from pydantic import Field

from totoms.controller_config import TotoControllerConfig
from totoms.declaration.api import APIConfiguration, check_path
from totoms.declaration.base import Declaration
from totoms.declaration.logging import LogConfiguration
from totoms.declaration.messaging import MessageBusConfig
from totoms.declaration.server import ServerConfiguration
from totoms.environment import TotoEnvironment

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
    version: Annotated[str, Field(min_length=1)] = "0.1.0"
    description: str = ""
