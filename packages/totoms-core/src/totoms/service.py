"""TotoMicroservice: build a declared service, start it, and stop it without losing messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from weakref import WeakSet, WeakValueDictionary

from fastapi import FastAPI
from starlette.types import ASGIApp

from totoms.controller_config import TotoControllerConfig
from totoms.declaration.api import APIConfiguration
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment, scope_environment, scoped, set_default_environment
from totoms.errors import BackendError, ConfigurationError
from totoms.health import Readiness
from totoms.http.context import set_default_runtime
from totoms.http.lifespan import Lifecycle, initialised_by_lifespan
from totoms.lifecycle import ServiceLifecycle, cannot_start
from totoms.loading import check_resources, close_config, forgotten_load, load_config, set_up_log
from totoms.logging.logger import TotoLogger
from totoms.logging.setup import configure_logging
from totoms.messages.bus import MessageBus
from totoms.messages.undeclared import UndeclaredMessageBus
from totoms.telemetry.setup import configure as configure_telemetry

if TYPE_CHECKING:
    from totoms.messaging import Messaging
    from totoms.serving import Serving


class TotoMicroservice:
    """A microservice. Create the process's default one with :meth:`init`, further ones with :meth:`create`.

    Attributes:
        configuration: The declaration (also as `microservice_configuration`).
        environment: Where it runs.
        config: The service's loaded `TotoControllerConfig`.
        message_bus: The bus to publish to; a false object without messaging, whose methods say what to declare.
        logger: The logger: ``logger.log(cid, "...")``.
        app: The FastAPI app, for other servers, for tests, and to extend.
        state: "starting", "ready", "draining" or "stopped".
    """

    _default: ClassVar[TotoMicroservice | None] = None
    _initialising: ClassVar[asyncio.Task[TotoMicroservice] | None] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()
    # By the id of its environment, which the microservice keeps alive.
    _by_environment: ClassVar[MutableMapping[int, TotoMicroservice]] = WeakValueDictionary()
    _open: ClassVar[WeakSet[TotoMicroservice]] = WeakSet()  # several may have one environment

    def __init__(
        self,
        configuration: TotoMicroserviceConfiguration,
        environment: TotoEnvironment,
        config: TotoControllerConfig,
        logger: TotoLogger,
        messaging: Messaging | None,
    ) -> None:
        self.configuration = self.microservice_configuration = configuration
        self.service_name = configuration.service_name
        self.environment = environment
        self.config = config
        self.logger = logger
        self.message_bus: MessageBus = messaging.bus if messaging else UndeclaredMessageBus(environment)
        self.state: Literal["starting", "ready", "draining", "stopped"] = "starting"
        from totoms.auth.authenticator import Authenticator  # late, to keep `import totoms` fast
        from totoms.http.app import create_app

        api = configuration.api_configuration or APIConfiguration()
        self.authenticator = Authenticator(config, api)
        self.readiness = Readiness(
            configuration.readiness_checks,
            config,
            logger,
            subscriptions=messaging.states if messaging else dict,
            needs_subscriptions=bool(messaging and messaging.away_is_unready),
        )
        self._messaging = messaging
        self._serving: Serving | None = None
        self._end_process: Callable[[], None] = _terminate
        app = create_app(
            self,
            api,
            configuration.base_path,
            push=messaging.push.respond if messaging else None,
            max_push_bytes=messaging.push.max_body_bytes if messaging else 0,
            log=configuration.log,
            information={"version": configuration.version, "description": configuration.description},
        )
        self._lifecycle = ServiceLifecycle(self, messaging, self._forget)
        app.lifecycle = Lifecycle(self._lifecycle.start, self._lifecycle.drain, self._lifecycle.close)
        app.router.lifespan_context = cast(Any, partial(self._lifecycle.lifespan, app.router.lifespan_context))
        self._seal = app.seal
        self._share = app.shared
        self.app: FastAPI = app
        self._by_environment[id(environment)] = self
        self._open.add(self)

    @property
    def awaited_topics(self) -> list[str]:
        """The logical names of the topics whose push subscriptions are not confirmed."""
        return self._messaging.unconfirmed.topics if self._messaging else []

    @property
    def url(self) -> str:
        """The address that `start` listens on, such as ``http://127.0.0.1:8080``; "" before, and on other servers."""
        return self._serving.url if self._serving is not None else ""

    # --- creating ---

    @classmethod
    async def init(cls, configuration: TotoMicroserviceConfiguration) -> TotoMicroservice:
        """Create the process's default microservice; concurrent and later calls return the same one.

        After a failure it can be called again; after :meth:`stop` it creates a new one.

        Raises:
            ConfigurationError: The service cannot start as configured. Uncaught, it ends the process with one
                line and exit status 2.
        """
        with cls._guard:
            if cls._default is not None:
                if cls._default.configuration is not configuration:
                    cls._default.logger.log("init", "init was called again: using the first microservice.", "WARNING")
                return cls._default
            task = cls._initialising
            if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
                task = cls._initialising = asyncio.create_task(cls._make_default(configuration))
        # Cancelling one caller must not cancel it for the others.
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
        """Create a further microservice, for tests, or for several in one process.

        Raises:
            ConfigurationError: As for :meth:`init`.
        """
        logger = TotoLogger.get_instance(configuration.service_name)  # first, to be named in the line of an error
        configuration.check()
        environment = configuration.environment or TotoEnvironment.from_variables()
        configure_logging(errors=configuration.log.errors)
        set_up_log(configuration, environment)
        origin = "" if configuration.environment else " (HYPERSCALER)" if os.getenv("HYPERSCALER") else " (default)"
        logger.log("init", f"Starting {configuration.service_name} on hyperscaler {environment.hyperscaler}{origin}.")
        configure_telemetry(configuration.service_name, configuration.version, logger)
        with scope_environment(environment):
            try:
                await check_resources(configuration, environment, logger)
                config = await load_config(configuration, environment, logger)
            except BackendError as error:
                raise cannot_start(configuration, error) from error
            try:
                return await cls._build(configuration, environment, config, logger)
            except BaseException as error:
                await close_config(config, logger)
                if isinstance(error, BackendError):
                    raise cannot_start(configuration, error) from error
                raise

    @classmethod
    async def _build(
        cls,
        configuration: TotoMicroserviceConfiguration,
        environment: TotoEnvironment,
        config: TotoControllerConfig,
        logger: TotoLogger,
    ) -> TotoMicroservice:
        messaging = None
        if declared := configuration.message_bus_configuration:
            from totoms.messaging import Messaging  # only for services with messaging

            messaging = await Messaging.build(configuration, declared, environment, config, logger)
        try:
            return cls(configuration, environment, config, logger, messaging)
        except BaseException as error:
            if messaging is not None:
                await messaging.close()
            hint = forgotten_load(config) if isinstance(error, ConfigurationError) else ""
            if hint:
                raise ConfigurationError(f"{error} {hint}") from error
            raise

    @classmethod
    def asgi(cls, configuration: TotoMicroserviceConfiguration) -> ASGIApp:
        """Return an ASGI app for other servers, which initialises the microservice in its lifespan.

        For several workers, run ``uvicorn --factory blog:app --workers 4`` with
        ``def app(): return TotoMicroservice.asgi(configuration())``. Each worker has a microservice of its own.
        """
        environment = configuration.environment
        with contextlib.suppress(ConfigurationError):  # raised again when the server starts, which logs it
            environment = environment or TotoEnvironment.from_variables()
        set_up_log(configuration, environment)

        async def initialise() -> ASGIApp:
            return (await cls.init(configuration)).app

        return initialised_by_lifespan(initialise)

    @classmethod
    def get_instance(cls) -> TotoMicroservice:
        """Return the microservice whose delegate or handler is running, else the default one.

        Raises:
            ConfigurationError: There is no microservice: it was not created yet, or has stopped.
        """
        environment = scoped.get()
        if environment is not None and (cls._default is None or cls._default.environment is not environment):
            current = cls._by_environment.get(id(environment))
            if current is not None:
                return current
        if cls._default is None:
            raise ConfigurationError("There is no microservice: await TotoMicroservice.init(configuration) first.")
        return cls._default

    @classmethod
    def run(
        cls, configuration: TotoMicroserviceConfiguration, port: int | None = None, host: str | None = None
    ) -> None:
        """Create the default microservice and serve until a signal ends it: :meth:`init` and :meth:`start`.

        It runs on uvloop if that is installed, which serves a third more requests than asyncio's own event loop.

        Raises:
            ConfigurationError: As for :meth:`init` and :meth:`start`.
        """

        async def serve() -> None:
            await (await cls.init(configuration)).start(port, host)

        from totoms.serving import run_loop

        run_loop(serve())

    async def start(self, port: int | None = None, host: str | None = None) -> None:
        """Serve until SIGTERM, SIGINT or :meth:`stop`, then drain and return.

        Args:
            port: The port; by default ``PORT``, else 8080.
            host: The address to listen on; by default the hyperscaler's (127.0.0.1 for the local backend).

        Raises:
            ConfigurationError: The port is in use, a subscription does not exist and cannot be created, or one vanished
                and ``vanished_subscriptions="exit"`` is declared.
            Closed: The microservice was stopped; create a new one.
        """
        from totoms.serving import Serving  # imports uvicorn, which other servers do not need

        self._serving = Serving(self)
        await self._serving.run(port, host)

    async def stop(self) -> None:
        """Stop receiving messages, let running handlers finish, give back the rest, and stop."""
        if self._serving is not None and self._serving.listening:
            self._serving.end()
        else:
            await self._lifecycle.close()

    def _end(self) -> None:
        """End the process as a signal does; under another server, by that signal."""
        if self._serving is not None and self._serving.listening:
            self._serving.end()
        else:
            self._end_process()

    def _forget(self) -> bool:
        """Remove the microservice from the process's registry. Return whether it was the last one."""
        if self._by_environment.get(id(self.environment)) is self:
            del self._by_environment[id(self.environment)]
        if TotoMicroservice._default is self:
            TotoMicroservice._default = None
            set_default_environment(None)
            set_default_runtime(None)
        self._open.discard(self)
        return not self._open


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
