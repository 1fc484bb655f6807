"""TestMicroservice: a declared service, started in memory, for the tests of its developers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final

import httpx

from totoms.configuration import MessageBusConfig, TotoMicroserviceConfiguration
from totoms.context import new_cid
from totoms.envelope import Received, Subscription
from totoms.environment import TotoEnvironment, scope_environment
from totoms.errors import ConfigurationError, NotFound
from totoms.messages import ID_ATTRIBUTE, TYPE_ATTRIBUTE, TotoMessage, encode_message
from totoms.messaging import Messaging
from totoms.service import TotoMicroservice
from totoms.storage import CloudStorage
from totoms.testing.bench import Bench, BenchMessageBus, PublishedMessage
from totoms.testing.handled import HandledMessage, WatchedRouter
from totoms.tokens import make_token

DEFAULT_USER: Final = "user@example.com"


class TestMicroservice:
    """A service started in memory: no sockets, nothing of this machine read, nothing left behind.

    ::

        async with TestMicroservice(get_microservice_config(), secrets={"api-key": "..."}) as service:
            answer = await service.client.post("/blog/posts", json={"title": "Hello"})
            await service.settled()

    Everything else is the service itself: its delegates, its handlers with retries and dead letters, its errors. Where
    the configuration says that it runs, and whether messages are pushed or pulled, is replaced. Several may be at work
    at once; each has files, messages, secrets and a clock of its own.

    What the service publishes is delivered to its own handlers, as by a real broker: soon, and at the same time as
    whatever comes next. Wait for it with :meth:`settled`.

    Args:
        configuration: The declaration of the service.
        secrets: By name. A topic's secret may be left out. `secrets` of this object can be changed later.
        user: Whom :attr:`client` is.

    Attributes:
        secrets: What the service reads its secrets from.
        published: What the service published, in order: each a `TotoMessage` with where it went.
        handled: What the handlers were given and how it ended, in the order it ended, redeliveries included.
        environment: Where the service runs, for what asks for one: ``SecretsManager(service.environment)``.
    """

    __test__ = False  # a class of ours, and no test for pytest to collect

    def __init__(
        self, configuration: TotoMicroserviceConfiguration, *, secrets: Mapping[str, str | bytes] | None = None,
        user: str = DEFAULT_USER,
    ) -> None:  # fmt: skip
        self._configuration = configuration
        self._user = user
        self._bench = Bench(secrets)
        self.secrets: MutableMapping[str, str | bytes] = self._bench.secrets
        self.published: list[PublishedMessage] = self._bench.published
        self.handled: list[HandledMessage] = []
        self.environment: TotoEnvironment = self._bench.environment
        self._microservice: TotoMicroservice | None = None
        self._lifespan: AbstractAsyncContextManager[Any] | None = None
        self._router: WatchedRouter | None = None
        self._clients: dict[str | None, httpx.AsyncClient] = {}
        self._settled = asyncio.Event()

    async def __aenter__(self) -> TestMicroservice:
        """Start the service.

        Raises:
            ConfigurationError: As :meth:`TotoMicroservice.init`; a secret that is missing is named.
        """
        try:
            await self._start()
        except BaseException:
            await asyncio.to_thread(self._bench.remove)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the service and remove what it stored."""
        try:
            for client in self._clients.values():
                await client.aclose()
            if self._lifespan is not None:
                await self._lifespan.__aexit__(None, None, None)
        finally:
            await asyncio.to_thread(self._bench.remove)

    @property
    def microservice(self) -> TotoMicroservice:
        """The service itself, with its `config`, its `message_bus` and its `app`."""
        if self._microservice is None:
            raise ConfigurationError("The service was not started: async with TestMicroservice(...) as service.")
        return self._microservice

    # --- HTTP ---

    @property
    def client(self) -> httpx.AsyncClient:
        """A client with a valid token of the default user. Paths begin with the base path."""
        return self.client_of(self._user)

    def client_of(self, user: str | None) -> httpx.AsyncClient:
        """Return a client with a valid token of another user, or for None without a token.

        Raises:
            ConfigurationError: The service's configuration reads no ``jwt-signing-key``, so none can be made.
        """
        client = self._clients.get(user)
        if client is None:
            headers = {}
            if user is not None:
                key = self.microservice.config.jwt_key
                if key is None:
                    raise ConfigurationError("The service takes no tokens of its own: use client_of(None).")
                headers["authorization"] = f"Bearer {make_token(key, user)}"
            transport = httpx.ASGITransport(self.microservice.app)
            # The name is one that a service on a laptop answers to.
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)
            self._clients[user] = client
        return client

    # --- messages ---

    async def deliver(
        self, message: TotoMessage | bytes, *, topic: str | None = None, attempt: int = 1,
        attributes: Mapping[str, str] | None = None,
    ) -> HandledMessage:  # fmt: skip
        """Hand one message to the service, as its broker would, and return what became of it.

        It takes the way of every message: encoded, decoded, its handler found by its type, and judged. It comes once:
        whether it would come again is told by ``outcome.action``.

        Args:
            message: A message, or bytes as somebody else might have published them.
            topic: The logical name of the topic that it comes from; may be left out where there is only one.
            attempt: Which delivery of the message this is.
            attributes: What travelled beside the body, besides the message type and id.

        Raises:
            ConfigurationError: The service has no message bus.
            NotFound: It has no such topic.
        """
        declared, router = self._declared(), self._router
        assert router is not None
        names = [one.logical_name for one in declared.topics]
        name = topic if topic is not None else names[0] if len(names) == 1 else ""
        if name not in names:
            known = ", ".join(names) or "none"
            raise NotFound(f"deliver(..., topic={topic!r}): the service's topics are: {known}.", resource=topic)
        message_id = new_cid()
        beside = {ID_ATTRIBUTE: message_id, **(attributes or {})}
        if isinstance(message, TotoMessage):
            beside.setdefault(TYPE_ATTRIBUTE, message.type)
        subscription = Subscription(
            f"{self.microservice.service_name}-{name}", self.microservice.message_bus.topics[name], name,
            retry=declared.retry,
        )  # fmt: skip
        body = message if isinstance(message, bytes) else encode_message(message)
        received = Received(body, message_id, attempt, subscription, beside)
        with scope_environment(self.environment):
            # A task of its own, as a consumer's: what a handler sets in its context stays there.
            return await asyncio.create_task(router.deliver(received))

    async def settled(self, timeout: float = 10.0) -> None:
        """Wait until no message is at work and none could be: what was published is handled, or waits for its time.

        Args:
            timeout: Seconds, of the real clock.

        Raises:
            TimeoutError: Messages are still being handled.
        """
        bus = self.microservice.message_bus
        if not isinstance(bus, BenchMessageBus):
            return
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._settled.clear()
                    if not await bus.busy():
                        return
                    await self._settled.wait()
        except TimeoutError:
            raise TimeoutError(f"After {timeout:g} s there are still messages being handled.") from None

    async def advance(self, seconds: float) -> None:
        """Let time pass for messages: what is delayed or comes again becomes due, in order, and is handled.

        Only the message bus goes by this clock, which otherwise stands still; tokens and time-outs go by the real one.
        Handlers at work finish before it moves.

        Args:
            seconds: How far.

        Raises:
            TimeoutError: As for :meth:`settled`.
        """
        target = self._bench.now + seconds
        await self.settled()
        bus = self.microservice.message_bus
        while isinstance(bus, BenchMessageBus) and (due := await bus.next_due()) is not None and due <= target:
            self._bench.now = due
            await bus.look()
            await self.settled()
        self._bench.now = target

    # --- files ---

    def files(self, bucket: str) -> CloudStorage:
        """Return the files of a bucket, to put some there and to look at what the service wrote."""
        return CloudStorage(bucket, environment=self.environment)

    # --- starting ---

    async def _start(self) -> None:
        changed: dict[str, Any] = {"environment": self.environment}
        declared = self._configuration.message_bus_configuration
        if declared is not None:
            changed["message_bus_configuration"] = declared.model_copy(update={"delivery": "pull"})
        self._microservice = microservice = await TotoMicroservice.create(
            self._configuration.model_copy(update=changed)
        )
        messaging: Messaging | None = microservice._messaging
        if messaging is not None:
            self._router = WatchedRouter(messaging._router, self.handled)
            messaging._router = messaging.push._router = self._router
        self._bench.settled = self._settled.set
        self._lifespan = microservice.app.router.lifespan_context(microservice.app)
        await self._lifespan.__aenter__()

    def _declared(self) -> MessageBusConfig:
        declared = self.microservice.configuration.message_bus_configuration
        if declared is None:
            raise ConfigurationError(f"{self.microservice.service_name} has no message bus configuration.")
        return declared
