"""Pulling: as many messages as were asked for, and no more.

See docs/decisions/pubsub-pull.md for why it is no stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from totoms.envelope import Received, Subscription
from totoms.errors import AccessDenied, NotFound
from totoms.messages import ID_ATTRIBUTE
from totoms_gcp.pubsub_calls import Calls
from totoms_gcp.pubsub_leases import Lease

_POLL_SECONDS: Final = 90.0
"""How long a pull stays open, however often whoever waits for it looks up. Each end may strand what is on its way."""
_LEAST_POLL: Final = 0.02
_MOST_PAUSE: Final = 0.2
"""Seconds between two pulls that found nothing, for a broker that does not wait."""


class Source:
    """What one subscription is pulled from: itself, and what is replayed to it.

    Args:
        subscription: The core's.
        path: Its path.
        replays: The path of the subscription to replayed dead letters; it need not exist.
        lease_seconds: Its acknowledgement deadline.
    """

    def __init__(self, subscription: Subscription, path: str, replays: str, lease_seconds: float) -> None:
        self.subscription = subscription
        self.path = path
        self.replays = replays
        self.lease_seconds = lease_seconds
        self.next_look = 0.0
        self.stopping = False
        self.pull: asyncio.Task[list[Received]] | None = None
        self.asked = 0


class Receiver:
    """Pulls subscriptions.

    Args:
        calls: To Pub/Sub.
        look_every: Seconds between two looks for replayed dead letters.
    """

    def __init__(self, calls: Calls, look_every: float) -> None:
        self._calls = calls
        self._look_every = look_every
        self._sources: dict[str, Source] = {}

    def add(self, source: Source) -> None:
        """Know a subscription from now on."""
        before = self._sources.get(source.subscription.name)
        if before is not None:
            self._leave(before)
        self._sources[source.subscription.name] = source

    async def receive(self, subscription: Subscription, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages; wait up to `wait` seconds for the first."""
        source = self._source(subscription)
        source.stopping = False
        until = time.monotonic() + wait
        while not source.stopping:
            if time.monotonic() >= source.next_look:
                source.next_look = time.monotonic() + self._look_every
                replayed = await self._look(source, most)
                if replayed:
                    self._leave(source)  # what it might still bring would be more than was asked for
                    return replayed
            batch = await self._take(source, most, min(until, source.next_look) - time.monotonic())
            if batch or time.monotonic() >= until:
                return batch
        return []

    def stop(self, subscription: Subscription) -> None:
        """Have a `receive` that waits return now."""
        source = self._source(subscription)
        source.stopping = True
        self._leave(source)

    def close(self) -> None:
        """End all pulls."""
        for source in self._sources.values():
            source.stopping = True
            self._leave(source)

    async def _take(self, source: Source, most: int, wait: float) -> list[Received]:
        if source.asked > most:
            self._leave(source)
        if source.pull is None:
            if source.stopping:
                return []
            source.asked = most
            name = f"totoms pull of {source.path}"
            source.pull = asyncio.create_task(self._pull(source, source.path, most), name=name)
            source.pull.add_done_callback(_look_at)
        pull = source.pull
        await asyncio.wait({pull}, timeout=max(wait, 0.0))
        if not pull.done() or source.pull is not pull:  # it waits, or was left meanwhile
            return []
        source.pull = None
        if pull.cancelled():
            return []
        return [one for one in pull.result() if one.lease.held]

    def _leave(self, source: Source) -> None:
        """End a pull; what it has brought, or brings just now, is given back."""
        pull, source.pull = source.pull, None
        if pull is not None and not pull.cancel() and not pull.cancelled() and pull.exception() is None:
            self._calls.give_back(source.path, [one.lease.ack_id for one in pull.result()])

    async def _pull(self, source: Source, path: str, most: int) -> list[Received]:
        until = time.monotonic() + _POLL_SECONDS
        pause = _LEAST_POLL
        while (left := until - (began := time.monotonic())) > 0:
            if source.subscription.ordered:
                most = 1  # Pub/Sub holds back what follows until it is settled, but not within one answer
            messages = await self._calls.pull(path, most, timeout=left)
            if messages:
                return _received(source, path, messages)
            waited = time.monotonic() - began > _MOST_PAUSE
            pause = _LEAST_POLL if waited else min(2 * pause, _MOST_PAUSE)
            await asyncio.sleep(pause)
        return []

    async def _look(self, source: Source, most: int) -> list[Received]:
        if source.subscription.ordered:
            most = 1
        try:
            messages = await self._calls.pull(source.replays, most, timeout=5.0, at_once=True)
        except (NotFound, AccessDenied):  # nothing was ever replayed; of what is missing Pub/Sub may say either
            return []
        return _received(source, source.replays, messages)

    def _source(self, subscription: Subscription) -> Source:
        source = self._sources.get(subscription.name)
        if source is None:
            raise NotFound(f"Nobody has subscribed {subscription.name!r} on this bus.", resource=subscription.name)
        return source


def _look_at(pull: asyncio.Task[list[Received]]) -> None:
    if not pull.cancelled():
        pull.exception()  # a pull that fails when nobody waits for it any more is no news


def _received(source: Source, path: str, messages: Sequence[Any]) -> list[Received]:
    received, seconds, now = [], source.lease_seconds, time.monotonic()
    for one in messages:
        told = one.message
        given = told.attributes
        attributes: dict[str, str] = {name: given[name] for name in given}  # `dict` takes twice as long
        received.append(
            Received(
                told.data,
                attributes.get(ID_ATTRIBUTE) or told.message_id,
                one.delivery_attempt or 1,
                source.subscription,
                attributes,
                Lease(path, one.ack_id, seconds, now),
                seconds,
                told.ordering_key or None,
            )
        )
    return received
