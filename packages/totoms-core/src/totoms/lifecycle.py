"""The order in which a service starts, drains and stops. docs/lifecycle.md shows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI

from totoms.clients import close_clients
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.environment import scope_environment
from totoms.errors import BackendError, Closed, ConfigurationError
from totoms.loading import close_config
from totoms.logging.describe import describe_error
from totoms.logging.setup import adopt_servers, flush_logging
from totoms.loop_watch import LoopWatch
from totoms.telemetry import setup as telemetry
from totoms.telemetry import state
from totoms.threads import run_in_thread

if TYPE_CHECKING:
    from totoms.messaging import Messaging
    from totoms.service import TotoMicroservice

_FLUSH_PATIENCE: Final = 5.0
"""Seconds to export what is recorded. The SDK's exporter over HTTP does not keep to the time that a flush is given."""


class ServiceLifecycle:
    """Starts, drains and closes one service, each of them once.

    Args:
        service: The microservice, whose `state` it sets.
        messaging: Its messaging, if it has any.
        forget: Called at the end; it removes the service from the process's registry, and returns whether it was the
            last one.

    Attributes:
        failure: Why the service ends the process by itself; None while it does not.
    """

    def __init__(self, service: TotoMicroservice, messaging: Messaging | None, forget: Callable[[], bool]) -> None:
        self._service = service
        self._messaging = messaging
        self._forget = forget
        self._watch = messaging.watch if messaging is not None else LoopWatch(service.logger)
        self._started = False
        self._closed = False
        self._drain_task: asyncio.Task[None] | None = None
        self.failure: ConfigurationError | None = None
        if messaging is not None:
            messaging.end = self.fail

    @contextlib.asynccontextmanager
    async def lifespan(self, users: Any, app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        """Start and stop with ``app.router.lifespan_context``, for an app that mounts the service's.

        Under a server, the app itself does both (:mod:`totoms.http.lifespan`).

        Args:
            users: The lifespan of the user's, which is entered first.
            app: The service's app.
        """
        async with users(app) as state:
            if app.state.under_server:
                yield state
                return
            try:
                await self.start()
                yield state
            finally:
                await self.close()

    async def start(self) -> None:
        """Decide the access to each route, subscribe, and begin to receive messages.

        Raises:
            ConfigurationError: The service cannot start as configured.
            Closed: It was stopped.
        """
        service = self._service
        if service.state in ("draining", "stopped"):
            raise Closed("This microservice was stopped; create a new one.", resource=service.service_name)
        if self._started:
            return
        self._started = True
        service._seal()
        # Again: the service may have set a provider in `load`.
        telemetry.configure(service.service_name, service.configuration.version, service.logger)
        adopt_servers(access=service.configuration.log.requests)  # a server may set up its log after the service's
        self._watch.start()
        with scope_environment(service.environment):
            if self._messaging is not None:
                try:
                    await self._messaging.start()
                except BackendError as error:
                    await self.close()
                    raise cannot_start(service.configuration, error) from error
        service.state = "ready"

    def fail(self, why: str) -> None:
        """Drain and end the process, because the service cannot continue. A second call does nothing.

        Args:
            why: The reason, for the log and for the error that ends the process with exit status 2.
        """
        if self.failure is None:
            service = self._service
            self.failure = ConfigurationError(f"{service.service_name} stops: {why}")
            service.logger.log("shutdown", self.failure, "ERROR")
            service._end()

    def begin_to_drain(self) -> None:
        """Start to drain, in the background."""
        if self._drain_task is None:
            service = self._service
            service.state = "draining"
            service.logger.log("shutdown", f"{service.service_name} is draining.")
            grace = service.configuration.shutdown_grace
            messaging = self._messaging
            self._drain_task = asyncio.create_task(messaging.stop_receiving(grace) if messaging else asyncio.sleep(0))

    async def drain(self) -> None:
        """Stop receiving messages, and wait for running handlers, at most for the grace."""
        self.begin_to_drain()
        assert self._drain_task is not None
        await asyncio.wait({self._drain_task})

    async def close(self) -> None:
        """Drain, then close the configuration and the message bus. A second call does nothing."""
        await self.drain()
        done, self._closed = self._closed, True
        if done:
            return
        service = self._service
        service.state = "stopped"
        self._watch.stop()
        with scope_environment(service.environment):
            try:
                await close_config(service.config, service.logger)
            finally:
                if self._messaging is not None:
                    await self._messaging.close()
        if self._forget():
            await run_in_thread(close_clients)
        if state.active is not None:
            await self._flush_telemetry()
        service.logger.log("shutdown", f"{service.service_name} has stopped.")
        flush_logging()

    async def _flush_telemetry(self) -> None:
        try:
            async with asyncio.timeout(_FLUSH_PATIENCE):
                await run_in_thread(telemetry.flush)
        except Exception as error:  # an exporter that hangs, or a provider that raises
            text = f"The last spans and metrics may be missing: {describe_error(error)}"
            self._service.logger.log("shutdown", text, "WARNING")


def cannot_start(configuration: TotoMicroserviceConfiguration, error: BackendError) -> ConfigurationError:
    """Return the error that ends the start with one line, for an error of a backend."""
    return ConfigurationError(f"{configuration.service_name} cannot start: {error.message}", resource=error.resource)
