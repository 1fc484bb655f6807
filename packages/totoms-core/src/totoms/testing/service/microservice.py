"""TestMicroservice runs a service in memory, for the tests of its developers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final

import httpx

from totoms.auth.tokens import make_token
from totoms.context import new_cid
from totoms.declaration.messaging import MessageBusConfig
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment, scope_environment
from totoms.errors import ConfigurationError, NotFound
from totoms.http.lifespan import Lifespan
from totoms.messages.dead_letters import DeadLetter
from totoms.messages.events import VERSION_ATTRIBUTE, TotoEvent
from totoms.messages.message import ID_ATTRIBUTE, TYPE_ATTRIBUTE, TotoMessage, encode_message
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription
from totoms.messaging import Messaging
from totoms.service import TotoMicroservice
from totoms.storage.storage import CloudStorage
from totoms.testing.service.backend import PublishedMessage, TestBackend, TestBackendMessageBus
from totoms.testing.service.handled import HandledMessage, RecordingRouter

DEFAULT_USER: Final = "user@example.com"


class TestMicroservice:
    """Runs a service in memory: it opens no sockets, reads nothing from this machine and leaves nothing behind.

    ::

        async with TestMicroservice(get_microservice_config(), secrets={"api-key": "..."}) as service:
            answer = await service.client.post("/blog/posts", json={"title": "Hello"})
            await service.settled()

    The delegates, handlers, retries, dead letters and errors are the service's own. Only the environment in its
    configuration and the choice between push and pull are replaced. Several can run at the same time; each has its own
    files, messages, secrets and clock.

    Messages that the service publishes are delivered to its own handlers as by a real broker: soon, and concurrently
    with the test. Wait for them with :meth:`settled`.

    Args:
        configuration: The declaration of the service.
        secrets: The secrets by name. Those of topics may be left out.
        user: The user of :attr:`client`.

    Attributes:
        secrets: The secrets of the service; a change takes effect at the next read.
        published: The published messages, in order: each a `TotoMessage` with its destination, and with the event as
            its data if one was published.
        handled: The deliveries and their outcomes, in the order in which they ended, redeliveries included.
        environment: The environment of the service, for ``SecretsManager(service.environment)`` and others.
    """

    __test__ = False  # pytest must not collect it

    def __init__(
        self,
        configuration: TotoMicroserviceConfiguration,
        *,
        secrets: Mapping[str, str | bytes] | None = None,
        user: str = DEFAULT_USER,
    ) -> None:
        self._configuration = configuration
        self._user = user
        self._backend = TestBackend(secrets)
        self.secrets: MutableMapping[str, str | bytes] = self._backend.secrets
        self.published: list[PublishedMessage[Any]] = self._backend.published
        self.handled: list[HandledMessage] = []
        self.environment: TotoEnvironment = self._backend.environment
        self._microservice: TotoMicroservice | None = None
        self._lifespan: Lifespan | None = None
        self._router: RecordingRouter | None = None
        self._clients: dict[tuple[str | None, str], httpx.AsyncClient] = {}
        self._settled = asyncio.Event()

    async def __aenter__(self) -> TestMicroservice:
        """Start the service.

        Raises:
            ConfigurationError: As for :meth:`TotoMicroservice.init`; a missing secret is named.
        """
        try:
            await self._start()
        except BaseException:
            await asyncio.to_thread(self._backend.remove)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the service and delete its data."""
        try:
            for client in self._clients.values():
                await client.aclose()
            if self._lifespan is not None:
                await self._lifespan.stop()
        finally:
            await asyncio.to_thread(self._backend.remove)

    @property
    def microservice(self) -> TotoMicroservice:
        """The service itself, with its `config`, its `message_bus` and its `app`."""
        if self._microservice is None:
            raise ConfigurationError("The service was not started: async with TestMicroservice(...) as service.")
        return self._microservice

    # --- HTTP ---

    @property
    def client(self) -> httpx.AsyncClient:
        """A client with a valid token of the default user. Its paths include the base path."""
        return self.client_of(self._user)

    def client_of(self, user: str | None, claims: Mapping[str, Any] | None = None) -> httpx.AsyncClient:
        """Return a client with a valid token of `user`, or without a token for None.

        Args:
            user: The value of `UserContext.email`.
            claims: Further claims of the token, such as ``{"roles": ["admin"], "scope": "posts:write"}``.

        Raises:
            ConfigurationError: The service's configuration has no ``jwt-signing-key`` to sign a token with.
        """
        known = user, json.dumps(claims, sort_keys=True)
        client = self._clients.get(known)
        if client is None:
            headers = {}
            if user is not None:
                key = self.microservice.config.jwt_key
                if key is None:
                    raise ConfigurationError("The service has no jwt-signing-key: use client_of(None).")
                headers["authorization"] = f"Bearer {make_token(key, user, claims=claims)}"
            transport = httpx.ASGITransport(self.microservice.app)
            # The local backend accepts the host name localhost.
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)
            self._clients[known] = client
        return client

    # --- messages ---

    async def deliver(
        self,
        message: TotoMessage[Any] | TotoEvent | DeadLetter | bytes,
        *,
        topic: str | None = None,
        attempt: int = 1,
        attributes: Mapping[str, str] | None = None,
    ) -> HandledMessage:
        """Deliver one message to the service, as its broker would, and return the outcome.

        The message is encoded and decoded, and handled by the handler of its type. It is delivered only once;
        ``outcome.action`` says whether a broker would deliver it again.

        Args:
            message: A message, an event as the data of one, a dead letter of `load_dead_letters`, or bytes as another
                program might have published them.
            topic: The logical name of its topic; by default that of the dead letter, or the only one of the service.
            attempt: The number of this delivery, from 1.
            attributes: Attributes in addition to the message type, the id, and the version of an event.

        Raises:
            ConfigurationError: The service has no message bus.
            NotFound: The service has no such topic.
        """
        declared, router = self._declared(), self._router
        assert router is not None
        subscriptions = {
            one.logical_name: one.subscription or f"{self.microservice.service_name}-{one.logical_name}"
            for one in declared.topics
        }
        name = topic if topic is not None else self._only_topic(message, subscriptions)
        if name not in subscriptions:
            known = ", ".join(subscriptions) or "none"
            raise NotFound(f"deliver(..., topic={topic!r}): the service's topics are: {known}.", resource=topic)
        body, message_id, sent = _encoded(message)
        subscription = Subscription(
            subscriptions[name], self.microservice.message_bus.topics[name], name, retry=declared.retry
        )
        received = Received(body, message_id, attempt, subscription, {**sent, **(attributes or {})})
        with scope_environment(self.environment):
            # In its own task, as in a consumer, so that context variables of the handler do not leak.
            return await asyncio.create_task(router.deliver(received))

    @staticmethod
    def _only_topic(message: object, subscriptions: Mapping[str, str]) -> str:
        """Return the topic of a message for which none was given; "" if it is unknown."""
        if isinstance(message, DeadLetter):
            for name, subscription in subscriptions.items():
                if subscription == message.subscription:
                    return name
        return next(iter(subscriptions)) if len(subscriptions) == 1 else ""

    async def settled(self, timeout: float = 10.0) -> None:
        """Wait until no message is being handled and none is due: the others are delayed or in backoff.

        Args:
            timeout: Seconds of the real clock.

        Raises:
            TimeoutError: Messages are still being handled.
        """
        bus = self.microservice.message_bus
        if not isinstance(bus, TestBackendMessageBus):
            return
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._settled.clear()
                    if not await bus.busy():
                        return
                    await self._settled.wait()
        except TimeoutError:
            raise TimeoutError(f"Messages are still being handled after {timeout:g} s.") from None

    async def advance(self, seconds: float) -> None:
        """Move the clock of the message bus: delayed messages and retries become due, in order, and are handled.

        Otherwise it stands still. Tokens and timeouts use the real clock. Running handlers finish before it moves.

        Args:
            seconds: How far to move it.

        Raises:
            TimeoutError: As for :meth:`settled`.
        """
        target = self._backend.now + seconds
        await self.settled()
        bus = self.microservice.message_bus
        while isinstance(bus, TestBackendMessageBus) and (due := await bus.next_due()) is not None and due <= target:
            self._backend.now = due
            await bus.deliver_due()
            await self.settled()
        self._backend.now = target

    # --- files ---

    def files(self, bucket: str) -> CloudStorage:
        """Return a storage on a bucket of the service, to put files there or read what it wrote."""
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
        microservice._end_process = microservice._lifecycle.begin_to_drain  # the process is that of the tests
        messaging: Messaging | None = microservice._messaging
        if messaging is not None:
            self._router = RecordingRouter(messaging._router, self.handled)
            messaging._router = messaging.push._router = self._router
        self._backend.settled = self._settled.set
        self._lifespan = Lifespan(microservice.app)
        await self._lifespan.start()

    def _declared(self) -> MessageBusConfig:
        declared = self.microservice.configuration.message_bus_configuration
        if declared is None:
            raise ConfigurationError(f"{self.microservice.service_name} has no message bus configuration.")
        return declared


def _encoded(message: TotoMessage[Any] | TotoEvent | DeadLetter | bytes) -> tuple[bytes, str, dict[str, str]]:
    """Return the body, the id and the attributes of a message as its broker would deliver it."""
    if isinstance(message, DeadLetter):
        return message.body, message.message_id, dict(message.attributes)
    message_id = new_cid()
    sent = {ID_ATTRIBUTE: message_id}
    if isinstance(message, bytes):
        return message, message_id, sent
    if isinstance(message, TotoEvent):
        message = TotoMessage(data=message)
    sent[TYPE_ATTRIBUTE] = message.type
    if isinstance(message.data, TotoEvent):
        sent[VERSION_ATTRIBUTE] = str(message.data.__toto_version__)
    return encode_message(message), message_id, sent
