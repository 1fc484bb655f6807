"""Serve a service with several worker processes."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final

from totoms.cli.declarations import load_configuration
from totoms.http.server.connections import MAX_BODY_BYTES
from totoms.http.server.server import bind, http_protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_PLACE_VARIABLE: Final = "_TOTOMS_PLACE"
"""Where the workers find the declaration: each starts with a new interpreter."""


def run_workers(place: str, port: int | None, host: str | None, number: int) -> None:
    """Serve a service with several workers, until SIGINT or SIGTERM.

    Args:
        place: Where its declaration is, such as ``service:configuration``.
        port: The port; None for ``PORT``, else 8080.
        host: The address; None for the hyperscaler's default.
        number: How many workers.

    Raises:
        ConfigurationError: The declaration cannot be loaded, or the port is in use.
    """
    import uvicorn

    from totoms.environment import TotoEnvironment
    from totoms.serving import port_of_variable

    configuration = load_configuration(place)
    environment = configuration.environment or TotoEnvironment.from_variables()
    address = host or environment.hyperscaler_configuration.default_host
    wanted = port_of_variable() if port is None else port
    bind(address, wanted).close()  # so that a port in use is one line; uvicorn binds it again
    os.environ[_PLACE_VARIABLE] = place
    uvicorn.run(
        f"{__name__}:app",
        factory=True,
        host=address,
        port=wanted,
        workers=number,
        http=f"{__name__}:Protocol",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(configuration.shutdown_grace),
    )


def app() -> ASGIApp:
    """Return the app of one worker."""
    from totoms.service import TotoMicroservice

    return TotoMicroservice.asgi(load_configuration(os.environ[_PLACE_VARIABLE]))


def __getattr__(name: str) -> Any:
    if name != "Protocol":
        raise AttributeError(name)
    configuration = load_configuration(os.environ[_PLACE_VARIABLE])
    api = configuration.api_configuration
    return http_protocol(configuration.server, MAX_BODY_BYTES if api is None else api.max_body_bytes)
