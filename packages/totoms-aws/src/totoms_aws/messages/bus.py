"""The message bus on AWS: topics of SNS, queues of SQS."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast

from totoms.errors import BackendError
from totoms.plugin import (
    BACKLOG,
    DEAD_LETTERS,
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
)
from totoms_aws.clients import SETTLING
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.messages.dead_letters import SQSDeadLetters
from totoms_aws.messages.naming import is_fifo, subscription_of
from totoms_aws.messages.publisher import Publisher
from totoms_aws.messages.push import MAX_BYTES, PushReceiver
from totoms_aws.messages.push_subscriptions import PushSubscriptions
from totoms_aws.messages.queues import Queues
from totoms_aws.messages.receiver import SQSReceiver
from totoms_aws.messages.signatures import Certificates
from totoms_aws.messages.subscriptions import Source, Subscriptions
from totoms_aws.messages.topics import Topics


class AWSMessageBus(MessageBus):
    """Publishes to SNS and SQS; pulls from SQS, and accepts pushes from SNS. Constructing it does no I/O.

    Attributes:
        lease_seconds: How long a lease lasts. The core renews those of messages that are being handled.
        undelivered_pause: Seconds between polls for messages that SNS could not push.
    """

    capabilities = frozenset({PULL, PUSH, ORDERING, QUEUES, DEAD_LETTERS, BACKLOG})
    creates_push: ClassVar[bool] = True
    messaging_system: ClassVar[str] = "aws.sns"
    max_message_bytes: ClassVar[int] = 256 * 1024 - 4 * len("String")
    """SNS counts the types of attributes as well; there are four at most."""
    max_push_bytes: ClassVar[int] = MAX_BYTES
    push_patience: ClassVar[float] = 15.0
    """https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html"""
    lease_seconds: ClassVar[float] = 30.0
    lease_range = (1.0, 12 * 3600.0)
    longest_pause = 12 * 3600.0
    """The limits of a visibility timeout:
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html"""
    undelivered_pause: ClassVar[float] = 30.0

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        settings = cast(AWSConfiguration, self.environment.hyperscaler_configuration)
        self._topics = Topics(settings)
        self._queues = Queues(settings)
        self._subscriptions = Subscriptions(self._topics, self._queues)
        self._push_subscriptions = PushSubscriptions(self._topics, self._queues)
        self._publisher = Publisher(self._topics, self._queues)
        self._push_receiver = PushReceiver(self._topics, self.topics, Certificates())
        self._open_receivers: list[SQSReceiver] = []
        self._lease = math.ceil(self.lease_seconds)

    def _use_lease(self, seconds: float) -> None:
        self._lease = math.ceil(seconds)

    def _keeps_order(self, destination: str) -> bool:
        return is_fifo(destination)

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return await self._publisher.publish(batch)

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> SQSReceiver:
        self._check_open()
        if create:
            source = await SETTLING.run(self._subscriptions.create, subscription, self._lease)
        else:
            source = await SETTLING.run(self._subscriptions.check, subscription)
        return self._receiver(subscription, source)

    async def _subscribe_push(self, subscription: Subscription, *, create: bool) -> None:
        self._check_open()
        subscriptions = self._push_subscriptions
        await SETTLING.run(subscriptions.create if create else subscriptions.check, subscription)
        self._push_receiver.add(subscription)

    async def _existing(self, subscription: Subscription) -> Existing | None:
        return await SETTLING.run(self._subscriptions.existing, subscription)

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        if subscription.delivery == "push":  # SNS does not say what it still tries to push
            return None
        return await SETTLING.run(self._subscriptions.backlog, subscription)

    async def _push_lacks(self, subscription: Subscription, address: str) -> str:
        return await SETTLING.run(self._push_subscriptions.push_gaps, subscription, address)

    async def _undelivered(self, subscription: Subscription) -> SQSReceiver | None:
        source = await SETTLING.run(self._push_subscriptions.find_undelivered, subscription)
        if source is None:
            return None
        return self._receiver(replace(subscription, delivery="pull"), source, self.undelivered_pause)

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        return await self._push_receiver.accept(request)

    def _dead_letters(self, subscription: str) -> SQSDeadLetters:
        return SQSDeadLetters(subscription, self._queues, self._topics)

    async def _list_subscriptions(self) -> list[str]:
        names = await SETTLING.run(self._queues.names)
        return sorted({name for name in map(subscription_of, names) if name})

    async def _close(self) -> None:
        await asyncio.gather(self._publisher.flush(), *(receiver.close() for receiver in self._open_receivers))

    def _receiver(self, subscription: Subscription, source: Source, pause: float = 0.0) -> SQSReceiver:
        made = SQSReceiver(subscription, source, self._queues, lease_seconds=self._lease, pause=pause)
        self._open_receivers.append(made)
        return made
