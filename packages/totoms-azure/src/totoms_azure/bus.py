"""The message bus of Azure: Service Bus, and what Event Grid pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Final

from azure.servicebus import NEXT_AVAILABLE_SESSION

from totoms.bus import DEAD_LETTERS, DELAY, ORDERING, PULL, PUSH, QUEUES, MessageBus
from totoms.envelope import DeadLetter, DeadLetterReason, DeliveryMode, Outgoing, PushReply, PushRequest, Received
from totoms.envelope import Subscription as CoreSubscription
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.eventgrid_callers import KEYS
from totoms_azure.eventgrid_pushes import EventGridPushes
from totoms_azure.servicebus_clients import Clients
from totoms_azure.servicebus_lanes import Lane
from totoms_azure.servicebus_leases import Leases
from totoms_azure.servicebus_letters import DeadLetters
from totoms_azure.servicebus_names import DEAD, REPLAY, Entity, entity_of
from totoms_azure.servicebus_publishing import Publisher
from totoms_azure.servicebus_receiving import PlainSource, Receiver, Source, WithReplays
from totoms_azure.servicebus_sessions import SessionSource
from totoms_azure.servicebus_topology import Topology, receiver_of

_SESSION_WAIT: Final = 5.0
"""Seconds that one wait for the next session with messages takes."""


class AzureMessageBus(MessageBus):
    """Publishes to topics and queues and receives from subscriptions, or is pushed to by Event Grid.

    Constructing it does no I/O. A topic is the operator's; the subscription is made by the service, unless that is
    switched off.

    Attributes:
        lease_seconds: How long locks last on subscriptions that are made here.
        look_seconds: How often a consumer looks for dead letters that were replayed.
        letters_patience: Seconds without a new dead letter after which there are no more.
        keys_uri: Where Entra ID publishes the keys of its tokens.
    """

    capabilities = frozenset({PULL, PUSH, ORDERING, DELAY, QUEUES, DEAD_LETTERS})
    default_delivery: ClassVar[DeliveryMode] = "pull"
    max_message_bytes: ClassVar[int] = 256_000
    """Of 262,144 in the Standard tier, with what AMQP adds and room for a session and the names of properties
    (https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas)."""
    lease_seconds: ClassVar[float] = 60.0
    look_seconds: ClassVar[float] = 30.0
    letters_patience: ClassVar[float] = 2.0
    keys_uri: ClassVar[str] = KEYS

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        settings: AzureConfiguration = self.environment.hyperscaler_configuration
        settings.require("Service Bus", "servicebus_namespace", "servicebus_connection_string")
        self._clients = Clients(settings)
        self._topology = Topology(self._clients, self.lease_seconds)
        self._publisher = Publisher(self._clients, self._topology)
        self._leases = Leases()
        self._receiver = Receiver()
        self._pushes = EventGridPushes(settings, self.topics, self.keys_uri)
        self._pushed: dict[str, CoreSubscription] = {}
        self._letters = DeadLetters(self._clients, self._topology, self._publisher, self.topics, self.letters_patience)

    # --- publishing ---

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return await self._publisher.publish(batch)

    # --- receiving ---

    async def _subscribe(self, subscription: CoreSubscription, *, create: bool) -> None:
        self._check_open()
        entity = entity_of(subscription)
        if subscription.delivery == "push":  # the event subscription is the operator's; what it brings may be poison
            await self._topology.require_queue(entity.beside(DEAD).name, create=create)
            self._pushed[subscription.topic] = subscription
            self._letters.know(subscription.name, entity, pushed=True)
            return
        await (self._topology.make if create else self._topology.check)(subscription)
        self._letters.know(subscription.name, entity)
        await self._receiver.add(subscription, self._source(subscription, entity))

    async def _receive(self, subscription: CoreSubscription, max_messages: int, wait: float) -> list[Received]:
        self._check_open()
        self._leases.resume(subscription)
        return await self._receiver.receive(subscription, max_messages, wait)

    async def _stop_receiving(self, subscription: CoreSubscription) -> None:
        await asyncio.gather(self._receiver.stop(subscription), self._leases.hurry(subscription))

    # --- settling ---

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        return await self._leases.ack(batch)

    async def _nack(self, received: Received, delay: float) -> None:
        await self._leases.nack(received, delay)

    async def _release(self, batch: Sequence[Received]) -> None:
        await self._leases.release(batch)

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        return await self._leases.extend(batch)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        if received.lease is not None:
            await self._leases.dead_letter(received, reason)
        else:
            await self._letters.keep(received, reason, entity_of(received.subscription))

    # --- push ---

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        return await self._pushes.accept(request, self._pushed)

    # --- dead letters ---

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return await self._letters.listed(subscription, limit)

    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await self._letters.replay(subscription, letter_ids)

    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await self._letters.purge(subscription, letter_ids)

    # --- the rest ---

    async def _close(self) -> None:
        await self._leases.close()
        await asyncio.gather(self._receiver.close(), self._publisher.close())
        await self._clients.close()

    def _source(self, subscription: CoreSubscription, entity: Entity) -> Source:
        def lane_to(entity: Entity, **options: object) -> Lane:
            return Lane(subscription, entity, partial(receiver_of, self._clients, entity, **options))

        source: Source
        if subscription.ordered:
            source = SessionSource(
                partial(lane_to, entity, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=_SESSION_WAIT)
            )
        else:
            source = PlainSource(lane_to(entity))
        if not entity.topic:
            return source
        return WithReplays(source, partial(lane_to, entity.beside(REPLAY)), self.look_seconds)
