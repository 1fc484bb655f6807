"""Messages on JetStream.

A topic is a subject that a stream keeps; a subscription, a durable consumer that is pulled from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Final

from totoms.bus import DEAD_LETTERS, PULL, QUEUES, MessageBus
from totoms.envelope import DeadLetter, DeadLetterReason, DeliveryMode, Outgoing, Received, Subscription
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, Closed, LeaseLost, NotFound
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.connection import Connection
from totoms_nats.headers import to_headers
from totoms_nats.leases import Leases
from totoms_nats.letters import DeadLetters
from totoms_nats.names import Names
from totoms_nats.receiving import Receiver
from totoms_nats.topology import Topology, check_topic

_AT_ONCE: Final = 256
"""Messages of a batch that wait for their acknowledgement at the same time."""


class NatsMessageBus(MessageBus):
    """Publishes to subjects, and pulls from durable consumers. Constructing it does no I/O.

    A topic is a subject, and its stream is the operator's. What is published to it is delivered to the subscriptions
    that exist by then. A queue is a subject of a stream that is made when it is first used.
    """

    capabilities = frozenset({PULL, QUEUES, DEAD_LETTERS})
    default_delivery: ClassVar[DeliveryMode] = "pull"
    max_message_bytes: ClassVar[int] = 1_000_000
    """A server takes 1,048,576 bytes unless it is told otherwise; the rest is for what headers cost on the wire."""

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        settings: NatsConfiguration = self.environment.hyperscaler_configuration
        self._names = Names(settings.prefix)
        self._connection = Connection(settings)
        self._leases = Leases(self._connection, self._names.attempts)
        self._letters = DeadLetters(self._connection, self._names)
        self._topology = Topology(
            self._connection, self._names, replicas=settings.replicas, lease_seconds=settings.lease_seconds
        )
        self._receiver = Receiver(self._connection, self._topology, self._leases)

    # --- publishing ---

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        results: list[BackendError | None] = []
        for start in range(0, len(batch), _AT_ONCE):
            results += await asyncio.gather(*(self._publish_one(one) for one in batch[start : start + _AT_ONCE]))
        return results

    async def _publish_one(self, outgoing: Outgoing) -> BackendError | None:
        self._check_open()
        headers = {**to_headers(outgoing.attributes), "Nats-Msg-Id": outgoing.message_id}
        subject = outgoing.topic or self._names.queue_subject(outgoing.queue or "")
        try:
            check_topic(subject)
            try:
                await self._connection.publish(subject, outgoing.body, headers)
            except NotFound:
                if outgoing.queue is None:
                    await self._topology.stream_of(subject)  # says whether it is missing, or JetStream away
                    raise
                await self._topology.make_queues()
                await self._connection.publish(subject, outgoing.body, headers)
        except BackendError as error:
            return error
        return None

    # --- receiving ---

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        self._check_open()
        await self._receiver.subscribe(subscription, create=create)

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        self._check_open()
        return await self._receiver.receive(subscription, max_messages, wait)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        self._receiver.stop(subscription)

    # --- settling ---

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        return await _each(self._leases.finish, batch)

    async def _nack(self, received: Received, delay: float) -> None:
        await self._leases.retry(received, delay)

    async def _release(self, batch: Sequence[Received]) -> None:
        await _each(self._leases.give_back, batch)

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        return await _each(self._leases.renew, batch)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        if received.lease.settled:
            return
        self._leases.check(received)
        await self._letters.keep(received, reason)
        await self._leases.finish(received)

    # --- dead letters ---

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        letters = await self._letters.listed(subscription, limit)
        if not letters:
            await self._check_subscription(subscription)
        return letters

    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        await self._check_subscription(subscription)
        return await self._letters.replay(subscription, letter_ids)

    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        purged = await self._letters.purge(subscription, letter_ids)
        if not purged:
            await self._check_subscription(subscription)
        return purged

    async def _check_subscription(self, name: str) -> None:
        if not await self._topology.has_subscription(name):
            raise NotFound(f"There is no subscription {name!r}.", resource=name)

    # --- the rest ---

    async def _close(self) -> None:
        await self._receiver.close()
        await self._connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("The message bus is closed.")


async def _each(
    settle: Callable[[Received], Coroutine[Any, Any, None]], batch: Sequence[Received]
) -> list[BackendError | None]:
    results = await asyncio.gather(*(settle(one) for one in batch), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, LeaseLost):
            raise result  # the core asks again; what is settled already is not told twice
    return [result if isinstance(result, LeaseLost) else None for result in results]
