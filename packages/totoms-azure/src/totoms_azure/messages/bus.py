"""The message bus of Azure: Service Bus, and what Event Grid pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Final, TypeVar

from azure.servicebus import NEXT_AVAILABLE_SESSION

from totoms.errors import BackendError, ConfigurationError
from totoms.plugin import (
    BACKLOG,
    DEAD_LETTERS,
    DELAY,
    ORDERING,
    PULL,
    PUSH,
    QUEUES,
    Backlog,
    Existing,
    MessageBus,
    Outgoing,
    PushReply,
    PushRequest,
    Received,
    Subscription,
    TotoEnvironment,
    TotoLogger,
)
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.messages.backlog import count_backlog
from totoms_azure.messages.clients import Clients
from totoms_azure.messages.dead_letters import AzureDeadLetters
from totoms_azure.messages.link import Link
from totoms_azure.messages.naming import DEAD, REPLAY, Entity, entity_of
from totoms_azure.messages.publisher import Publisher
from totoms_azure.messages.push import PushReceiver
from totoms_azure.messages.receiver import AzureReceiver
from totoms_azure.messages.sessions import SessionLink, SessionSource
from totoms_azure.messages.sources import NoSource, PlainSource, Source, WithReplays
from totoms_azure.messages.subscriptions import Subscriptions, receiver_of

_SESSION_WAIT: Final = 5.0
"""Seconds that one wait for the next session with messages takes."""
_ADVICE: Final = (
    "Whether the event subscription that pushes to {name} loses nothing cannot be seen from here: Event Grid counts "
    "every answer that is not 2xx, and drops a message after its last attempt. Check that it has 30 attempts in 24 "
    "hours and a dead-letter container: az eventgrid event-subscription create ... --max-delivery-attempts 30 "
    "--event-ttl 1440 --deadletter-endpoint STORAGE_ID/blobServices/default/containers/undelivered"
)
"""https://learn.microsoft.com/azure/event-grid/delivery-and-retry"""

_Link = TypeVar("_Link", bound=Link)


class AzureMessageBus(MessageBus):
    """Publishes to topics and queues, receives from subscriptions, and accepts what Event Grid pushes.

    Constructing it does no I/O. The operator creates the topics; the service creates its subscriptions, unless
    that is switched off.

    Attributes:
        lease_seconds: How long locks last on subscriptions that the service creates.
        look_seconds: How often a consumer looks for replayed dead letters.
        letters_patience: Seconds without a new dead letter after which there are no more.
        keys_uri: Where Entra ID publishes the keys of its tokens; empty for the cloud's own place.
    """

    capabilities = frozenset({PULL, PUSH, ORDERING, DELAY, QUEUES, DEAD_LETTERS, BACKLOG})
    max_message_bytes: ClassVar[int] = 256_000
    """The Standard tier allows 262,144, including AMQP's overhead, the session and the names of properties
    (https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas)."""
    max_push_bytes: ClassVar[int] = 4 * 1024 * 1024
    """Event Grid takes events of 1 MB, and batches as many as the event subscription says, at most 1 MB
    (https://learn.microsoft.com/azure/event-grid/delivery-and-retry#output-batching)."""
    push_patience: ClassVar[float] = 30.0
    """https://learn.microsoft.com/azure/event-grid/delivery-and-retry"""
    lease_seconds: ClassVar[float] = 60.0
    lease_range = (5.0, 300.0)
    """The limits of a lock: https://learn.microsoft.com/azure/service-bus-messaging/message-transfers-locks-settlement"""
    look_seconds: ClassVar[float] = 30.0
    letters_patience: ClassVar[float] = 2.0
    keys_uri: ClassVar[str] = ""

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        settings: AzureConfiguration = self.environment.hyperscaler_configuration
        settings.require("Service Bus", "servicebus_namespace", "servicebus_connection_string")
        self._clients = Clients(settings)
        self._subscriptions = Subscriptions(self._clients, self.lease_seconds)
        self._publisher = Publisher(self._clients, self._subscriptions)
        self._push_receiver = PushReceiver(settings, self.topics, self.keys_uri)
        self._pushed: dict[str, Subscription] = {}
        self._open_receivers: list[AzureReceiver] = []

    def _use_lease(self, seconds: float) -> None:
        self._subscriptions.use_lease(seconds)

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return await self._publisher.publish(batch)

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> AzureReceiver:
        self._check_open()
        entity = entity_of(subscription)
        lock_seconds = None
        if create:
            lock_seconds = await self._subscriptions.create(subscription)
        else:
            await self._subscriptions.check(subscription)
        source: Source
        if subscription.ordered:
            options = {"session_id": NEXT_AVAILABLE_SESSION, "max_wait_time": _SESSION_WAIT}
            source = SessionSource(self._linker(SessionLink, subscription, entity, lock_seconds, **options))
        else:
            source = PlainSource(self._linker(Link, subscription, entity, lock_seconds)())
        return self._receiver(subscription, self._with_replays(source, subscription) if entity.topic else source)

    async def _subscribe_push(self, subscription: Subscription, *, create: bool) -> None:
        # The operator creates the event subscription. The service needs a queue for its dead letters.
        self._check_open()
        if not self._push_receiver.accepts:
            raise ConfigurationError(
                f"No push of {subscription.logical_name!r} could be verified: set AZURE_PUSH_SECRET, or "
                "AZURE_PUSH_AUDIENCE with AZURE_PUSH_TENANT_ID.",
                resource=subscription.name,
            )
        if subscription.dead_letters:
            await self._subscriptions.require_queue(entity_of(subscription).queue(DEAD).name, create=create)
        self._pushed[subscription.topic] = subscription
        TotoLogger.get_instance().log("init", _ADVICE.format(name=subscription.name), "WARNING")

    async def _undelivered(self, subscription: Subscription) -> AzureReceiver:
        # Event Grid puts what it cannot deliver into the operator's container. This receives replayed dead letters.
        pulled = replace(subscription, delivery="pull")
        return self._receiver(pulled, self._with_replays(NoSource(), pulled))

    async def _existing(self, subscription: Subscription) -> Existing | None:
        return await self._subscriptions.existing(subscription)

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        if subscription.delivery == "push":  # Event Grid does not say what it still tries to push
            return None
        return await count_backlog(self._clients, subscription)

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        return await self._push_receiver.accept(request, self._pushed)

    def _dead_letters(self, subscription: str) -> AzureDeadLetters:
        return AzureDeadLetters(
            subscription, self._clients, self._subscriptions, self._publisher, self.topics, self.letters_patience
        )

    async def _list_subscriptions(self) -> list[str]:
        return await self._subscriptions.names()

    async def _close(self) -> None:
        await asyncio.gather(*(receiver.close() for receiver in self._open_receivers), self._publisher.close())
        await self._clients.close()

    def _receiver(self, subscription: Subscription, source: Source) -> AzureReceiver:
        receiver = AzureReceiver(subscription, source)
        self._open_receivers.append(receiver)
        return receiver

    def _with_replays(self, source: Source, subscription: Subscription) -> Source:
        replays = self._linker(Link, subscription, entity_of(subscription).queue(REPLAY))
        return WithReplays(source, replays, self.look_seconds)

    def _linker(
        self,
        kind: type[_Link],
        subscription: Subscription,
        entity: Entity,
        lock_seconds: float | None = None,
        **options: object,
    ) -> Callable[[], _Link]:
        """Return what makes a link to an entity; `options` are those of `receiver_of`."""
        make_receiver = partial(receiver_of, self._clients, entity, **options)
        return lambda: kind(subscription, entity, make_receiver, lock_seconds)
