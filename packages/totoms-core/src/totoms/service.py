"""TotoMicroservice: puts a declared service together, starts it, and stops it without losing anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal
from weakref import WeakValueDictionary

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from totoms.api import create_app
from totoms.auth import Authenticator
from totoms.bus import MessageBus
from totoms.config import TotoControllerConfig
from totoms.configuration import APIConfiguration, TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment, scope_environment, scoped, set_default_environment
from totoms.errors import BackendError, Closed, ConfigurationError
from totoms.execution import set_default_runtime
from totoms.logging import TotoLogger, configure_logging, flush_logging

if TYPE_CHECKING:
    from totoms.messaging import Messaging
    from totoms.server import Server


class TotoMicroservice:
    """A running, or soon running, microservice. Make it with :meth:`init`, or :meth:`create` for several.

    Attributes:
        configuration: The declaration it was made from (also as `microservice_configuration`).
        environment: Where it runs.
        config: The service's loaded `TotoControllerConfig`.
        message_bus: To publish; see `ExecutionContext` for a service without one.
        logger: ``logger.log(cid, "...")``.
        app: The FastAPI app, for other servers, for tests, and to add to.
        state: "starting", "ready", "draining" or "stopped".
    """

    _default: ClassVar[TotoMicroservice | None] = None
    _initialising: ClassVar[asyncio.Task[TotoMicroservice] | None] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()
    # By the id of the environment, which each keeps alive: what is at work knows its environment.
    _at_work: ClassVar[MutableMapping[int, TotoMicroservice]] = WeakValueDictionary()

    def __init__(
        self, configuration: TotoMicroserviceConfiguration, environment: TotoEnvironment, config: TotoControllerConfig,
        logger: TotoLogger, messaging: Messaging | None,
    ) -> None:  # fmt: skip
        self.configuration = self.microservice_configuration = configuration
        self.service_name = configuration.service_name
        self.environment = environment
        self.config = config
        self.logger = logger
        self.message_bus: MessageBus = messaging.bus if messaging else None  # type: ignore[assignment]
        self.state: Literal["starting", "ready", "draining", "stopped"] = "starting"
        api = configuration.api_configuration or APIConfiguration()
        self.authenticator = Authenticator(config, api)
        self._messaging = messaging
        self._server: Server | None = None
        self._started = False
        self._stopped = False
        self._drain_task: asyncio.Task[None] | None = None
        self.app: FastAPI = create_app(
            self, api, configuration.base_path, push=messaging.push.respond if messaging else None
        )
        self.app.router.lifespan_context = self._lifespan
        self._at_work[id(environment)] = self

    # --- making one ---

    @classmethod
    async def init(cls, configuration: TotoMicroserviceConfiguration) -> TotoMicroservice:
        """Make the process's default microservice, once: concurrent and later calls give the same one.

        After a failure it can be called again; after :meth:`stop` it makes a new one.

        Raises:
            ConfigurationError: The service cannot start as configured. Uncaught, it ends the process with one
                line and exit status 2.
        """
        with cls._guard:
            if cls._default is not None:
                if cls._default.configuration is not configuration:
                    cls._default.logger.log("init", "init was called again: the first microservice is kept.", "WARNING")
                return cls._default
            task = cls._initialising
            if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
                task = cls._initialising = asyncio.create_task(cls._make_default(configuration))
        # Shielded: a caller that gives up must not take the others' microservice with it.
        return await asyncio.shield(task)

    @classmethod
    async def _make_default(cls, configuration: TotoMicroserviceConfiguration) -> TotoMicroservice:
        try:
            microservice = await cls.create(configuration)
            set_default_environment(microservice.environment)
            set_default_runtime(microservice)
            cls._default = microservice
            return microservice
        finally:
            cls._initialising = None

    @classmethod
    async def create(cls, configuration: TotoMicroserviceConfiguration) -> TotoMicroservice:
        """Make a microservice beside the default one: for tests, and for several in one process.

        Raises:
            ConfigurationError: As for :meth:`init`.
        """
        environment = configuration.environment or TotoEnvironment.from_variables()
        configure_logging()
        logger = TotoLogger.get_instance(configuration.service_name)
        origin = (
            "" if configuration.environment else " (HYPERSCALER)" if os.environ.get("HYPERSCALER") else " (default)"
        )
        logger.log("init", f"Starting {configuration.service_name} on hyperscaler {environment.hyperscaler}{origin}.")
        with scope_environment(environment):
            try:
                made = configuration.custom_config(environment)
                config = await made.load() or made
                messaging = None
                if declared := configuration.message_bus_configuration:
                    from totoms.messaging import Messaging  # loaded by services that have one

                    messaging = await Messaging.build(configuration, declared, environment, config, logger)
            except BackendError as error:
                raise ConfigurationError(
                    f"{configuration.service_name} cannot start: {error.message}", resource=error.resource
                ) from error
            return cls(configuration, environment, config, logger, messaging)

    @classmethod
    def asgi(cls, configuration: TotoMicroserviceConfiguration) -> ASGIApp:
        """Return an ASGI app for other servers, initialised when the server starts it (its lifespan).

        It is what a factory for several workers returns: ``uvicorn --factory blog:app --workers 4`` with
        ``def app(): return TotoMicroservice.asgi(configuration())``. Each worker has a microservice of its own.
        """

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                try:
                    await cls.init(configuration)
                except ConfigurationError as error:
                    await receive()
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
            await cls.get_instance().app(scope, receive, send)

        return app

    @classmethod
    def get_instance(cls) -> TotoMicroservice:
        """Return the microservice that :meth:`init` made; in a delegate or handler of another, that one.

        Raises:
            ConfigurationError: There is none (yet, or any more).
        """
        environment = scoped.get()
        if environment is not None and (cls._default is None or cls._default.environment is not environment):
            own = cls._at_work.get(id(environment))
            if own is not None:
                return own
        if cls._default is None:
            raise ConfigurationError("There is no microservice: await TotoMicroservice.init(configuration) first.")
        return cls._default

    # --- running it ---

    @classmethod
    def run(
        cls, configuration: TotoMicroserviceConfiguration, port: int | None = None, host: str | None = None
    ) -> None:
        """Make the default microservice and serve until a signal ends it: :meth:`init` and :meth:`start` for a script.

        It runs on uvloop where that is installed, which serves a third more requests than asyncio's own event loop.

        Args:
            configuration: The declaration.
            port: As for :meth:`start`.
            host: As for :meth:`start`.

        Raises:
            ConfigurationError: As for both.
        """

        async def serve() -> None:
            await (await cls.init(configuration)).start(port, host)

        try:
            from uvloop import new_event_loop
        except ImportError:
            asyncio.run(serve())
        else:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(serve())

    async def start(self, port: int | None = None, host: str | None = None) -> None:
        """Serve until SIGTERM, SIGINT or :meth:`stop`, then drain and return.

        Args:
            port: Left out, ``PORT`` decides, else 8080.
            host: The address to listen on; left out, the hyperscaler's habit (the local backend: 127.0.0.1).

        Raises:
            ConfigurationError: The port is in use, or a subscription is missing and may not be made.
            Closed: It was stopped before. Make a new one.
        """
        from totoms.server import Server, bind, uvicorn_config  # uvicorn is loaded by those who serve with it

        address: str = host or self.environment.hyperscaler_configuration.default_host
        listener = bind(address, _port() if port is None else port)
        try:
            await self._startup()
            loop = asyncio.get_running_loop()
            config = uvicorn_config(self.app, self.configuration.shutdown_grace)
            self._server = Server(config, on_exit=partial(_soon, loop, self._begin_to_drain))
            self.logger.log("init", f"Listening on http://{address}:{listener.getsockname()[1]}")
            await self._server.serve(sockets=[listener])
        finally:
            listener.close()
            self._server = None
            await self._shutdown()

    async def stop(self) -> None:
        """Drain and stop: no more messages, those at work finish, the rest is given back."""
        if self._server is not None:
            self._server.should_exit = True
            self._begin_to_drain()
        else:
            await self._shutdown()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        # Under our own server `start` does both, so that their errors are typed.
        if self._server is not None:
            yield
            return
        await self._startup()
        try:
            yield
        finally:
            await self._shutdown()

    async def _startup(self) -> None:
        if self.state in ("draining", "stopped"):
            raise Closed("This microservice was stopped; make a new one.", resource=self.service_name)
        if self._started:
            return
        self._started = True
        with scope_environment(self.environment):
            if self._messaging is not None:
                try:
                    await self._messaging.start()
                except BackendError as error:
                    await self._shutdown()
                    raise ConfigurationError(
                        f"{self.service_name} cannot start: {error.message}", resource=error.resource
                    ) from error
        self.state = "ready"

    def _begin_to_drain(self) -> None:
        if self._drain_task is None:
            self.state = "draining"
            self.logger.log("shutdown", f"{self.service_name} is draining.")
            grace = self.configuration.shutdown_grace
            messaging = self._messaging
            self._drain_task = asyncio.create_task(messaging.stop_receiving(grace) if messaging else asyncio.sleep(0))

    async def _shutdown(self) -> None:
        self._begin_to_drain()
        assert self._drain_task is not None
        await asyncio.wait({self._drain_task})
        # Whoever waited first does the rest.
        done, self._stopped = self._stopped, True
        if not done:
            self.state = "stopped"
            if self._messaging is not None:
                await self._messaging.close()
            if self._at_work.get(id(self.environment)) is self:
                del self._at_work[id(self.environment)]
            if TotoMicroservice._default is self:
                TotoMicroservice._default = None
                set_default_environment(None)
                set_default_runtime(None)
            self.logger.log("shutdown", f"{self.service_name} has stopped.")
            flush_logging()


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(callback)


def _port() -> int:
    text = os.environ.get("PORT", "8080")
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigurationError("PORT must be a number from 0 to 65535.")
    return int(text)
