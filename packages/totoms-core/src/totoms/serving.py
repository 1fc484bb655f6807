"""Serve a microservice over HTTP until a signal or `stop` ends it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from totoms.declaration.api import APIConfiguration
from totoms.errors import ConfigurationError
from totoms.http.lifespan import Lifespan
from totoms.http.server.server import Server, bind, url_of, uvicorn_config

if TYPE_CHECKING:
    from totoms.service import TotoMicroservice


class Serving:
    """One run of the HTTP server of a microservice.

    Args:
        service: The microservice.
    """

    def __init__(self, service: TotoMicroservice) -> None:
        self._service = service
        self._server: Server | None = None
        self.url = ""
        """The address that it listens on, once it does."""

    @property
    def listening(self) -> bool:
        """Whether the server is running."""
        return self._server is not None

    async def run(self, port: int | None, host: str | None) -> None:
        """Serve until it is ended, then drain and stop the service; see `TotoMicroservice.start`."""
        service, configuration = self._service, self._service.configuration
        address: str = host or service.environment.hyperscaler_configuration.default_host
        listener = bind(address, port_of_variable() if port is None else port)
        lifespan = Lifespan(service.app)
        try:
            await lifespan.start()
            if service.state != "ready":  # stopped in the meantime
                return
            service._share.update(lifespan.state)
            loop = asyncio.get_running_loop()
            api = configuration.api_configuration or APIConfiguration()
            config = uvicorn_config(service.app, configuration.shutdown_grace, configuration.server, api.max_body_bytes)
            self._server = Server(config, on_signal=partial(loop.call_soon_threadsafe, self._end_soon))
            self.url = url_of(listener, address)
            service.logger.log("init", f"Listening on {self.url}")
            await self._server.serve(sockets=[listener])
        finally:
            listener.close()
            self._server = None
            await service._lifecycle.drain()
            await lifespan.stop()
            await service._lifecycle.close()
        if service._lifecycle.failure is not None:
            raise service._lifecycle.failure

    def end(self) -> None:
        """Stop listening, and start to drain."""
        if self._server is not None:
            self._server.should_exit = True
        self._service._lifecycle.begin_to_drain()

    def _end_soon(self) -> None:
        """Report not ready, and end after the shutdown delay, in which load balancers notice it."""
        service = self._service
        delay = service.configuration.server.shutdown_delay
        if not delay or self._server is None or service.state != "ready":
            self.end()
            return
        service.state = "draining"
        service.logger.log("shutdown", f"{service.service_name} is no longer ready; it stops in {delay:g} s.")
        self._server.wind_down()
        asyncio.get_running_loop().call_later(delay, self.end)


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, on uvloop if that is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        asyncio.run(work)
    else:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(work)


def port_of_variable() -> int:
    """Return the port that ``PORT`` names, else 8080.

    Raises:
        ConfigurationError: It is not a port.
    """
    text = os.environ.get("PORT", "8080")
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigurationError("PORT must be a number from 0 to 65535.")
    return int(text)
