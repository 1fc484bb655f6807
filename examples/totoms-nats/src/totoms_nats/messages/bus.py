"""Messages on JetStream: a topic is a subject that a stream keeps, a subscription a durable pull consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar

from totoms.errors import BackendError
from totoms.plugin import (
    BACKLOG,
    DEAD_LETTERS,
    PULL,
    QUEUES,
    Backlog,
    MessageBus,
    Outgoing,
    Subscription,
    TotoEnvironment,
)
from totoms_nats.clients import Connection
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.messages.dead_letters import NatsDeadLetters
from totoms_nats.messages.publisher import Publisher
from totoms_nats.messages.receiver import NatsReceiver
from totoms_nats.messages.subscriptions import Subscriptions
from totoms_nats.naming import Names


class NatsMessageBus(MessageBus):
    """Publishes to subjects, and pulls from durable consumers. Constructing it does no I/O.

    A topic is a subject, and the operator makes its stream. What is published to it is delivered to the subscriptions
    that exist by then. A queue is a subject of a stream that is made when it is first used.
    """

    capabilities = frozenset({PULL, QUEUES, DEAD_LETTERS, BACKLOG})
    max_message_bytes: ClassVar[int] = 1_000_000
    """By default a server takes 1,048,576 bytes; the rest is for what headers take on the wire."""

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        settings: NatsConfiguration = self.environment.hyperscaler_configuration
        self._connection = Connection(settings)
        self._subscriptions = Subscriptions(self._connection, Names(settings.prefix), settings)
        self._publisher = Publisher(self._connection, self._subscriptions)
        self._open_receivers: list[NatsReceiver] = []

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return await self._publisher.publish(batch)

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> NatsReceiver:
        sources = await self._subscriptions.sources_of(subscription, create=create)
        receiver = NatsReceiver(subscription, sources, self._connection, self._subscriptions)
        self._open_receivers.append(receiver)
        return receiver

    async def _backlog(self, subscription: Subscription) -> Backlog:
        return await self._subscriptions.backlog(subscription)

    def _dead_letters(self, subscription: str) -> NatsDeadLetters:
        return NatsDeadLetters(subscription, self._connection, self._subscriptions)

    async def _list_subscriptions(self) -> list[str]:
        return await self._subscriptions.all()

    async def _close(self) -> None:
        await asyncio.gather(*(receiver.close() for receiver in self._open_receivers))
        await self._connection.close()
