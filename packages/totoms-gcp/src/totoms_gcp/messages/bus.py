"""The message bus of Google Cloud: Pub/Sub."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from google.pubsub_v1 import types

from totoms.errors import BackendError
from totoms.plugin import (
    DEAD_LETTERS,
    GOOGLE_KEYS,
    ORDERING,
    PULL,
    PUSH,
    Existing,
    MessageBus,
    Outgoing,
    PushReply,
    PushRequest,
    Received,
    Subscription,
    TotoEnvironment,
)
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.messages.clients import Clients
from totoms_gcp.messages.dead_letters import PubSubDeadLetters
from totoms_gcp.messages.publisher import Publisher
from totoms_gcp.messages.push import PushReceiver
from totoms_gcp.messages.receiver import PubSubReceiver
from totoms_gcp.messages.subscriptions import Subscriptions


class PubSubMessageBus(MessageBus):
    """Publishes to topics and pulls from subscriptions, or is pushed to. Constructing it does no I/O.

    The operator creates topics. The service creates its subscription, with a dead-letter policy, unless that is
    switched off. Pub/Sub has no delays and no queues, and leaves it to Cloud Monitoring how many messages wait.

    Attributes:
        lease_seconds: The acknowledgement deadline of subscriptions that are created here.
        look_seconds: How often a consumer looks for dead letters that were replayed.
        dead_letter_patience: Seconds without a new dead letter after which there are no more.
        keys_uri: Where Google publishes the keys of its tokens.
    """

    capabilities = frozenset({PULL, PUSH, ORDERING, DEAD_LETTERS})
    creates_push: ClassVar[bool] = True
    messaging_system: ClassVar[str] = "gcp_pubsub"
    max_message_bytes: ClassVar[int] = 9_961_472
    """9.5 MiB: a request has at most 10 MB (https://cloud.google.com/pubsub/quotas#resource_limits), and a dead letter
    needs room for its reason."""
    max_push_bytes: ClassVar[int] = 16 * 1024 * 1024
    """10 MB in base64, with the attributes and the names of the envelope."""
    push_patience: ClassVar[float] = 600.0
    """The longest acknowledgement deadline (https://cloud.google.com/pubsub/docs/push), which subscriptions that are
    created here have."""
    lease_seconds: ClassVar[float] = 60.0
    lease_range = (10.0, 600.0)
    longest_pause = 600.0
    """The limits of an acknowledgement deadline:
    https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions#Subscription.FIELDS.ack_deadline_seconds"""
    look_seconds: ClassVar[float] = 5.0
    dead_letter_patience: ClassVar[float] = 2.0
    keys_uri: ClassVar[str] = GOOGLE_KEYS

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        settings: GCPConfiguration = self.environment.hyperscaler_configuration
        self._clients = Clients(settings.pubsub_endpoint)
        self._publisher = Publisher(self._clients, settings.project_id)
        self._subscriptions = Subscriptions(self._clients, settings, math.ceil(self.lease_seconds))
        self._push_receiver = PushReceiver(settings, self.topics, self._subscriptions, self.keys_uri)
        self._open_receivers: list[PubSubReceiver] = []

    def _use_lease(self, seconds: float) -> None:
        self._subscriptions.use_lease(math.ceil(seconds))

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return await self._publisher.publish(batch)

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> PubSubReceiver:
        found = await self._prepare(subscription, create)
        store = self._store_for(subscription.name)
        seconds = found.ack_deadline_seconds
        receiver = PubSubReceiver(subscription, self._clients, found.name, seconds, self.look_seconds, store)
        self._open_receivers.append(receiver)
        return receiver

    async def _subscribe_push(self, subscription: Subscription, *, create: bool) -> None:
        await self._prepare(subscription, create)
        self._push_receiver.add(subscription)

    async def _prepare(self, subscription: Subscription, create: bool) -> types.Subscription:
        self._check_open()
        return await (self._subscriptions.create if create else self._subscriptions.check)(subscription)

    async def _existing(self, subscription: Subscription) -> Existing | None:
        return await self._subscriptions.existing(subscription)

    async def _push_lacks(self, subscription: Subscription, address: str) -> str:
        return await self._subscriptions.push_gaps(subscription, address)

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        return [await self._push_receiver.accept(request)]

    def _dead_letters(self, subscription: str) -> PubSubDeadLetters:
        return self._store_for(subscription)

    def _store_for(self, name: str) -> PubSubDeadLetters:
        return PubSubDeadLetters(name, self._clients, self._subscriptions, self.dead_letter_patience)

    async def _list_subscriptions(self) -> list[str]:
        return await self._subscriptions.with_dead_letters()

    async def _close(self) -> None:
        await asyncio.gather(*(receiver.close() for receiver in self._open_receivers))
        await asyncio.gather(self._publisher.flush(), self._clients.flush())
        await self._clients.close()
