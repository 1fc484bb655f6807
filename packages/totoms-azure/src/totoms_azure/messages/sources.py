"""Where messages are received from: a subscription that keeps no order, and the queue of its replayed dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, Protocol

from totoms.errors import AccessDenied, NotFound
from totoms.plugin import Received
from totoms_azure.messages.link import Link

_IDLE_WAIT: Final = 1.0
_BUSY_WAIT: Final = 0.05
"""Seconds of one receive. Nothing can be settled while it waits, so it is short where something is unsettled."""
_FAST: Final = 0.005
"""Seconds for each message within which a backlog arrives."""
_MOST_AT_ONCE: Final = 256
_TURN: Final = 1.0
"""Seconds for which replayed messages come first; then new ones have a turn."""
_SHORT_WAIT: Final = 0.1


class Source(Protocol):
    """Where one subscription is received from."""

    async def receive(self, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages. Return none if there are none, after `wait` seconds or earlier."""
        ...

    async def stop(self) -> None:
        """Make a waiting `receive` return, and let nothing more arrive. It is not called again."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class PlainSource:
    """One link. It requests one message at a time, and more while they arrive as fast as they are requested.

    A receive of several returns only when all have arrived or the broker pauses: it would delay a message that comes
    alone.

    Args:
        link: What to receive by.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._at_once = 1
        self._stopping = False

    async def receive(self, most: int, wait: float) -> list[Received]:
        """See `Source`."""
        until = time.monotonic() + wait
        while not self._stopping:
            requested, began = min(most, self._at_once), time.monotonic()
            longest = _BUSY_WAIT if self._link.busy else _IDLE_WAIT
            batch = await self._link.receive(requested, max(0.01, min(longest, until - began)))
            if len(batch) < requested:
                self._at_once = 1
            elif time.monotonic() - began < _FAST * requested:
                self._at_once = min(2 * self._at_once, _MOST_AT_ONCE)
            if batch:
                return batch
            if time.monotonic() >= until:
                break
            await asyncio.sleep(0)
        await self._link.drain()
        return []

    async def stop(self) -> None:
        """See `Source`."""
        self._stopping = True
        await self._link.drain()

    async def close(self) -> None:
        """See `Source`."""
        self._stopping = True
        await self._link.close()


class NoSource:
    """Nothing to receive: from a pushed subscription only replayed dead letters are received."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()

    async def receive(self, most: int, wait: float) -> list[Received]:
        """Wait until the time is over or `stop` is called."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._stopped.wait()
        return []

    async def stop(self) -> None:
        """See `Source`."""
        self._stopped.set()

    async def close(self) -> None:
        """See `Source`."""
        self._stopped.set()


class WithReplays:
    """A source, and the queue by which dead letters are replayed to it. The queue need not exist.

    Args:
        source: The source.
        make_link: Makes a link to the queue.
        look_every: Seconds between two looks into the queue.
    """

    def __init__(self, source: Source, make_link: Callable[[], Link], look_every: float) -> None:
        self._source = source
        self._make_link = make_link
        self._look_every = look_every
        self._next_look = 0.0
        self._turn_ends = float("inf")
        self._link: Link | None = None
        self._stopping = False

    async def receive(self, most: int, wait: float) -> list[Received]:
        """See `Source`."""
        if time.monotonic() >= self._next_look:
            if time.monotonic() > self._turn_ends:  # new messages have a turn while many are replayed
                self._turn_ends = time.monotonic() + _TURN
                batch = await self._source.receive(most, _SHORT_WAIT)
                if batch or self._stopping:
                    return batch
            replayed = await self._look(most)
            self._next_look = time.monotonic() + (0.0 if replayed else self._look_every)
            if not replayed:
                self._turn_ends = float("inf")
            elif self._turn_ends == float("inf"):
                self._turn_ends = time.monotonic() + _TURN
            if replayed or self._stopping:
                return replayed
        return await self._source.receive(most, max(0.0, min(wait, self._next_look - time.monotonic())))

    async def stop(self) -> None:
        """See `Source`."""
        self._stopping = True
        await self._source.stop()

    async def close(self) -> None:
        """See `Source`."""
        self._stopping = True
        await self._source.close()
        if self._link is not None:
            await self._link.close()

    async def _look(self, most: int) -> list[Received]:
        link = self._link = self._link or self._make_link()  # kept at once, so that `close` waits for this look
        try:
            batch = await link.receive(most, _SHORT_WAIT)
            await link.drain()
        except (NotFound, AccessDenied):  # nothing was ever replayed; for a missing queue Service Bus may say either
            await link.close()
            self._link = None
            return []
        except BaseException:
            await link.close()
            self._link = None
            raise
        return batch
