"""The message bus on AWS: topics of SNS, queues of SQS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

from totoms.bus import DEAD_LETTERS, ORDERING, PULL, PUSH, QUEUES, MessageBus
from totoms.envelope import (
    DeadLetter,
    DeadLetterReason,
    DeliveryMode,
    Outgoing,
    PushReply,
    PushRequest,
    Received,
    Subscription,
)
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, Closed
from totoms.messages import MessageDestination, TotoMessage
from totoms_aws.certificates import Certificates
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.endpoints import Endpoints
from totoms_aws.leases import Lease, Leases, check
from totoms_aws.letters import DeadLetters
from totoms_aws.names import is_fifo
from totoms_aws.publishing import Publisher, no_order
from totoms_aws.pushes import Pushes
from totoms_aws.queues import Queues
from totoms_aws.receiving import LONGEST_POLL, Receiver
from totoms_aws.returning import give_back
from totoms_aws.sources import Sources
from totoms_aws.topics import Topics
from totoms_aws.workers import SETTLING


class AWSMessageBus(MessageBus):
    """Publishes to SNS and SQS; pulls from SQS, and is pushed to by SNS. Constructing it does no I/O.

    Attributes:
        capabilities: With ``ordering`` only where one of the topics is a FIFO topic.
        lease_seconds: How long a lease lasts. The core renews those of messages that are being handled.
        longest_poll: Seconds that one request waits for messages.
    """

    capabilities = frozenset({PULL, PUSH, ORDERING, QUEUES, DEAD_LETTERS})
    default_delivery: ClassVar[DeliveryMode] = "push"
    max_message_bytes: ClassVar[int] = 256 * 1024 - 4 * len("String")
    """SNS counts the types of attributes as well, and there are four at most."""
    lease_seconds: ClassVar[float] = 30.0
    longest_poll: ClassVar[float] = LONGEST_POLL

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        if not any(map(is_fifo, self.topics.values())):
            vars(self)["capabilities"] = type(self).capabilities - {ORDERING}
        settings = cast(AWSConfiguration, self.environment.hyperscaler_configuration)
        self._topics = Topics(settings)
        self._queues = Queues(settings)
        self._sources = Sources(settings, self._topics, self._queues, self.lease_seconds)
        self._endpoints = Endpoints(self._topics, self._queues, self._sources)
        self._publisher = Publisher(settings, self._topics, self._queues)
        self._leases = Leases(self._queues, self.lease_seconds)
        self._receiver = Receiver(self._queues, self._leases, self.longest_poll)
        self._letters = DeadLetters(self._queues, self._sources)
        self._pushes = Pushes(settings, self._topics, self.topics, Certificates())

    # --- publishing ---

    def _outgoing(
        self, destination: MessageDestination, message: TotoMessage, ordering_key: str | None, delay: float
    ) -> Outgoing:
        # Whether there is an order depends on where it goes, and is known before anything is sent.
        outgoing = super()._outgoing(destination, message, None, delay)
        target = outgoing.topic or outgoing.queue or ""
        if ordering_key is not None and not is_fifo(target):
            raise no_order(target)
        outgoing.ordering_key = ordering_key
        return outgoing

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        return await self._publisher.publish(batch)

    # --- receiving ---

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        self._check_open()
        if subscription.delivery == "push":
            await SETTLING.run(self._endpoints.find_or_make if create else self._endpoints.find, subscription)
            self._pushes.add(subscription)
            return
        source = await SETTLING.run(self._sources.find_or_make if create else self._sources.find, subscription)
        self._receiver.add(subscription, source)

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        if self._closed:
            raise Closed("The message bus is closed.")
        return await self._receiver.receive(subscription, max_messages, wait)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        self._receiver.stop(subscription)

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        return await self._pushes.accept(request)

    # --- settling ---

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        return await self._leases.finish(batch)

    async def _nack(self, received: Received, delay: float) -> None:
        await self._leases.retry(received, delay)

    async def _release(self, batch: Sequence[Received]) -> None:
        await SETTLING.run(give_back, self._queues, list(batch))

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        return await self._leases.renew(batch)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        held = received.lease
        if isinstance(held, Lease):
            if held.settled:
                return
            check(received)
        await SETTLING.run(self._letters.keep, received, reason)
        if isinstance(held, Lease):
            await self._leases.finish([received])

    # --- dead letters ---

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return await SETTLING.run(self._letters.listed, subscription, limit)

    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await SETTLING.run(self._letters.replay, subscription, letter_ids)

    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await SETTLING.run(self._letters.purge, subscription, letter_ids)

    async def _close(self) -> None:
        await asyncio.gather(self._publisher.flush(), self._receiver.close())
