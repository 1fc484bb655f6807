"""Messages on JetStream.

A topic is a subject that a stream keeps; a subscription, a durable consumer that is pulled from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
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
from totoms_nats.pulls import Pull
from totoms_nats.topology import Source, Topology

_AT_ONCE: Final = 256
"""Messages of a batch that wait for their acknowledgement at the same time."""
_LONGEST_PULL: Final = 5.0
"""Seconds. A lease is counted from the pull's beginning, so a pull must be much shorter than a lease."""
_REFUSED_PAUSE: Final = 0.25


@dataclass(slots=True)
class _Feed:
    """What is received for one subscription."""

    sources: list[Source]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    pull: Pull | None = None
    looked: float = float("-inf")


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
        self._feeds: dict[str, _Feed] = {}
        self._background: set[asyncio.Task[None]] = set()

    # --- publishing ---

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        results: list[BackendError | None] = []
        for start in range(0, len(batch), _AT_ONCE):
            results += await asyncio.gather(*(self._publish_one(one) for one in batch[start : start + _AT_ONCE]))
        return results

    async def _publish_one(self, outgoing: Outgoing) -> BackendError | None:
        self._check_open()
        headers = {**to_headers(outgoing.attributes), "Nats-Msg-Id": outgoing.message_id}
        subject = outgoing.topic if outgoing.queue is None else self._names.queue_subject(outgoing.queue)
        assert subject is not None
        try:
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
        self._feeds[subscription.name] = _Feed(await self._topology.sources_of(subscription, create=create))

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        feed = self._feed(subscription.name)
        end = time.monotonic() + wait
        while not feed.stopping.is_set():
            batch = await self._take(feed, subscription, max_messages)
            remaining = end - time.monotonic()
            if batch or remaining <= 0 or feed.stopping.is_set():
                return batch
            source = feed.sources[-1]
            began, linger = time.monotonic(), min(remaining, _LONGEST_PULL, source.lease_seconds / 4)
            batch = await self._pull(feed, subscription, source, 1, linger)
            if batch:
                return batch
            if time.monotonic() - began < linger / 2:  # too many are waiting at this consumer
                await _wait(feed.stopping, _REFUSED_PAUSE)
        return []

    async def _take(self, feed: _Feed, subscription: Subscription, most: int) -> list[Received]:
        # What there is now. What is delivered again is rare: it is looked for now and then, not each time.
        batch: list[Received] = []
        for source in feed.sources:
            if source is not feed.sources[-1]:
                if time.monotonic() < feed.looked + min(_LONGEST_PULL, source.lease_seconds / 4):
                    continue
                feed.looked = time.monotonic()
            if len(batch) < most:
                batch += await self._pull(feed, subscription, source, most - len(batch), 0)
        return batch

    async def _pull(
        self, feed: _Feed, subscription: Subscription, source: Source, most: int, linger: float
    ) -> list[Received]:
        self._check_open()
        client = await self._connection.client()
        asked = time.monotonic()
        feed.pull = pull = Pull(client, source, most)
        running = asyncio.create_task(pull.run(linger))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            pull.stop()
            self._later(self._give_back(pull, running, subscription, source, asked))
            raise
        finally:
            feed.pull = None
        if not pull.answered and not pull.messages and not feed.stopping.is_set():
            await self._topology.sources_of(subscription, create=False)  # tells it if the consumer is gone
        return await self._leases.give(pull.messages, subscription, source, asked)

    async def _give_back(
        self, pull: Pull, running: asyncio.Task[None], subscription: Subscription, source: Source, asked: float
    ) -> None:
        await running
        await self._release(await self._leases.give(pull.messages, subscription, source, asked))

    async def _stop_receiving(self, subscription: Subscription) -> None:
        feed = self._feed(subscription.name)
        feed.stopping.set()
        if feed.pull is not None:
            feed.pull.stop()

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
        for feed in self._feeds.values():
            feed.stopping.set()
            if feed.pull is not None:
                feed.pull.stop()
        if self._background:
            await asyncio.wait(self._background, timeout=2.0)
        await self._connection.close()

    def _feed(self, name: str) -> _Feed:
        feed = self._feeds.get(name)
        if feed is None:
            raise NotFound(f"This bus has not subscribed {name!r}.", resource=name)
        return feed

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("The message bus is closed.")

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _each(
    settle: Callable[[Received], Coroutine[Any, Any, None]], batch: Sequence[Received]
) -> list[BackendError | None]:
    results = await asyncio.gather(*(settle(one) for one in batch), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, LeaseLost):
            raise result  # the core asks again; what is settled already is not told twice
    return [result if isinstance(result, LeaseLost) else None for result in results]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
