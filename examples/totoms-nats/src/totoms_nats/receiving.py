"""Receiving for subscriptions: what is there, else a short wait for what comes, again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from totoms.envelope import Received, Subscription
from totoms.errors import NotFound
from totoms_nats.connection import Connection
from totoms_nats.leases import Leases
from totoms_nats.pulls import Pull
from totoms_nats.topology import Source, Topology

_LONGEST_PULL: Final = 1.0
"""Seconds, in which also a receiver that is stopped returns. A lease is counted from the beginning of the pull."""
_REFUSED_PAUSE: Final = 0.25
_CLOSE_PATIENCE: Final = 2.0


@dataclass(slots=True)
class _Feed:
    sources: list[Source]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    looked: float = float("-inf")


class Receiver:
    """Pulls for the subscriptions of one bus.

    Args:
        connection: From whom.
        topology: Knows where a subscription's messages come from.
        leases: Makes of messages what the core handles.
    """

    def __init__(self, connection: Connection, topology: Topology, leases: Leases) -> None:
        self._connection = connection
        self._topology = topology
        self._leases = leases
        self._feeds: dict[str, _Feed] = {}
        self._pulls: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()

    async def subscribe(self, subscription: Subscription, *, create: bool) -> None:
        """Find what the subscription consists of, or make it."""
        self._feeds[subscription.name] = _Feed(await self._topology.sources_of(subscription, create=create))

    async def receive(self, subscription: Subscription, most: int, wait: float) -> list[Received]:
        """Return what there is, at most `most`; if there is nothing, the first that comes within `wait` seconds."""
        feed = self._feed(subscription)
        end = time.monotonic() + wait
        while not feed.stopping.is_set():
            batch = await self._take(feed, subscription, most)
            remaining = end - time.monotonic()
            if batch or remaining <= 0 or feed.stopping.is_set():
                return batch
            source = feed.sources[-1]
            began, linger = time.monotonic(), min(remaining, _longest(source))
            batch = await self._pull(feed, subscription, source, 1, linger)
            if batch:
                return batch
            if time.monotonic() - began < linger / 2:  # too many are waiting at this consumer
                await _wait(feed.stopping, _REFUSED_PAUSE)
        return []

    def stop(self, subscription: Subscription) -> None:
        """Have :meth:`receive` return soon, with what has come."""
        self._feed(subscription).stopping.set()

    async def close(self) -> None:
        """Stop all, and wait until what came too late is given back."""
        for feed in self._feeds.values():
            feed.stopping.set()
        for tasks in (self._pulls, self._late):
            if tasks:
                await asyncio.wait(tasks, timeout=_CLOSE_PATIENCE)

    async def _take(self, feed: _Feed, subscription: Subscription, most: int) -> list[Received]:
        # What is delivered again is rare: it is looked for now and then, not each time.
        batch: list[Received] = []
        for source in feed.sources:
            if source is not feed.sources[-1]:
                if time.monotonic() < feed.looked + _longest(source):
                    continue
                feed.looked = time.monotonic()
            if len(batch) < most:
                batch += await self._pull(feed, subscription, source, most - len(batch), 0)
        return batch

    async def _pull(
        self, feed: _Feed, subscription: Subscription, source: Source, most: int, linger: float
    ) -> list[Received]:
        client = await self._connection.client()
        asked = time.monotonic()
        pull = Pull(client, source, most)
        running = _start(pull.run(linger), self._pulls)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            _start(self._give_back(pull, running, subscription, source, asked), self._late)
            raise
        if not pull.answered and not pull.messages:
            await self._topology.sources_of(subscription, create=False)  # tells it if the consumer is gone
        return await self._leases.give(pull.messages, subscription, source, asked)

    async def _give_back(
        self, pull: Pull, running: asyncio.Task[None], subscription: Subscription, source: Source, asked: float
    ) -> None:
        await running
        late = await self._leases.give(pull.messages, subscription, source, asked)
        await asyncio.gather(*(self._leases.give_back(one) for one in late), return_exceptions=True)

    def _feed(self, subscription: Subscription) -> _Feed:
        feed = self._feeds.get(subscription.name)
        if feed is None:
            raise NotFound(f"This bus has not subscribed {subscription.name!r}.", resource=subscription.name)
        return feed


def _start(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _longest(source: Source) -> float:
    return min(_LONGEST_PULL, source.lease_seconds / 4)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
