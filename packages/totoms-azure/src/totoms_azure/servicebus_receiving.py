"""Receiving from what keeps no order: as many messages as were asked for, and no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from totoms.envelope import Received, Subscription
from totoms.errors import AccessDenied, BackendError, NotFound
from totoms_azure.servicebus_lanes import Lane

_IDLE_LOOK: Final = 1.0
_BUSY_LOOK: Final = 0.05
"""Seconds of one receive: while it waits nobody can settle, so it is short where there is something to be settled."""
_QUICK: Final = 0.005
"""Seconds within which what was asked for has come when there is a backlog."""
_MOST_AT_ONCE: Final = 256


class Source(Protocol):
    """What one subscription is received from."""

    async def receive(self, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages; wait up to `wait` seconds for the first."""
        ...

    async def stop(self) -> None:
        """Have a `receive` that waits return soon, and see that nothing more comes."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class PlainSource:
    """One lane. It asks for one message at a time, and for more while they come as fast as they are asked for.

    A receive of several returns only when all have come or the broker pauses: for a message that comes alone that
    would be a wait for nothing.

    Args:
        lane: What to receive by.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._at_once = 1
        self._stopping = False

    async def receive(self, most: int, wait: float) -> list[Received]:
        """See `Source`."""
        self._stopping = False
        until = time.monotonic() + wait
        while not self._stopping:
            asked, began = min(most, self._at_once), time.monotonic()
            look = _BUSY_LOOK if self._lane.busy else _IDLE_LOOK
            batch = await self._lane.receive(asked, max(0.01, min(look, until - began)))
            if len(batch) < asked:
                self._at_once = 1
            elif time.monotonic() - began < _QUICK * asked:
                self._at_once = min(2 * self._at_once, _MOST_AT_ONCE)
            if batch:
                return batch
            if time.monotonic() >= until:
                break
            await asyncio.sleep(0)
        await self._lane.drain()
        return []

    async def stop(self) -> None:
        """See `Source`."""
        self._stopping = True
        await self._lane.drain()

    async def close(self) -> None:
        """See `Source`."""
        self._stopping = True
        await self._lane.close()


class WithReplays:
    """A source, and beside it the queue by which dead letters are replayed to it. The queue need not exist.

    Args:
        source: The source.
        make_lane: Makes a lane to the queue.
        look_every: Seconds between two looks into the queue.
    """

    def __init__(self, source: Source, make_lane: Callable[[], Lane], look_every: float) -> None:
        self._source = source
        self._make_lane = make_lane
        self._look_every = look_every
        self._next_look = 0.0
        self._lane: Lane | None = None
        self._stopping = False

    async def receive(self, most: int, wait: float) -> list[Received]:
        """See `Source`."""
        self._stopping = False
        until = time.monotonic() + wait
        while not self._stopping:
            if time.monotonic() >= self._next_look:
                replayed = await self._look(most)
                self._next_look = time.monotonic() + (0.0 if replayed else self._look_every)
                if replayed or self._stopping:  # told to stop while it looked
                    return replayed
            left = until - time.monotonic()
            batch = await self._source.receive(most, max(0.0, min(left, self._next_look - time.monotonic())))
            if batch or time.monotonic() >= until:
                return batch
        return []

    async def stop(self) -> None:
        """See `Source`."""
        self._stopping = True
        await self._source.stop()

    async def close(self) -> None:
        """See `Source`."""
        self._stopping = True
        await self._source.close()
        if self._lane is not None:
            await self._lane.close()

    async def _look(self, most: int) -> list[Received]:
        lane = self._lane = self._lane or self._make_lane()  # known from now on: to close is to wait for this look
        try:
            batch = await lane.receive(most, 0.1)
            await lane.drain()
        except (NotFound, AccessDenied):  # nothing was ever replayed; of what is missing Service Bus may say either
            await lane.close()
            self._lane = None
            return []
        except BaseException:
            await lane.close()
            self._lane = None
            raise
        return batch


class Receiver:
    """Receives from sources by the names of their subscriptions."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._closed = False

    async def add(self, subscription: Subscription, source: Source) -> None:
        """Know a subscription from now on."""
        before = self._sources.pop(subscription.name, None)
        self._sources[subscription.name] = source
        if before is not None:
            await before.close()

    async def receive(self, subscription: Subscription, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages; wait up to `wait` seconds for the first."""
        try:
            return await self._source(subscription).receive(most, wait)
        except BackendError:
            if self._closed:  # what is met then is that its connection is closed beneath it
                return []
            raise

    async def stop(self, subscription: Subscription) -> None:
        """Have a `receive` that waits return soon."""
        await self._source(subscription).stop()

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        await asyncio.gather(*(source.close() for source in self._sources.values()))

    def _source(self, subscription: Subscription) -> Source:
        source = self._sources.get(subscription.name)
        if source is None:
            raise NotFound(f"Nobody has subscribed {subscription.name!r} on this bus.", resource=subscription.name)
        return source
