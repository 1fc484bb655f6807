"""Receive and settle the messages of one subscription of the local bus."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence

from totoms.errors import BackendError, Closed, LeaseLost
from totoms.local.messages import rows
from totoms.local.messages.feed import Feed
from totoms.local.messages.operations import Operation
from totoms.local.messages.writer import Writer
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received, Receiver


class LocalReceiver(Receiver):
    """Receives the messages that the writer leases for a feed.

    The feed's token in the database decides whether a lease still holds, not a clock.

    Args:
        feed: The feed of the subscription.
        writer: Returns the writer of the bus; after a fork, a new one.
    """

    def __init__(self, feed: Feed, writer: Callable[[], Writer]) -> None:
        super().__init__(feed.subscription)
        self.lease_seconds = feed.lease_seconds
        self._feed = feed
        self._writer = writer

    async def receive(self, max_messages: int, wait: float) -> list[Received]:
        """Lease up to `max_messages`; wait up to `wait` seconds for the first."""
        feed, writer = self._feed, self._writer()
        receiving = feed.receive(max_messages, wait)
        if feed.backlog or feed.next_due <= writer.clock():
            asyncio.get_running_loop().call_soon(writer.nudge)
        try:
            batch = await receiving
        except asyncio.CancelledError:
            writer.release(feed, feed.abandon())
            raise
        writer.release(feed, feed.surplus())
        return batch

    async def ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Delete handled messages."""
        results: list[LeaseLost | None] = await self._writer().do(Operation(acked=batch, feed=self._feed))
        return results

    async def nack(self, received: Received, delay: float) -> None:
        """Redeliver the message after `delay` seconds."""
        feed, writer = self._feed, self._writer()
        due = writer.clock() + delay

        def retry(connection: sqlite3.Connection) -> None:
            rows.retry(connection, feed, received, due)

        await writer.do(Operation(retry, feed=feed, settled=(received,)))

    async def release(self, batch: Sequence[Received]) -> None:
        """Release messages as if they had not been leased."""
        feed = self._feed

        def release(connection: sqlite3.Connection) -> None:
            rows.release(connection, feed=feed, batch=batch)

        await self._writer().do(Operation(release, feed=feed, settled=batch))

    async def extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Extend leases to a full lease from now."""
        feed, writer = self._feed, self._writer()

        def extend(connection: sqlite3.Connection) -> list[LeaseLost | None]:
            return rows.extend(connection, feed, batch, writer.clock())

        results: list[LeaseLost | None] = await writer.do(Operation(extend, feed=feed))
        return results

    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        """Move the message to the dead letters in one transaction; return the letter's id."""
        feed, writer = self._feed, self._writer()

        def move(connection: sqlite3.Connection) -> str:
            letter = None
            if feed.leases.get(received.lease) is received:
                name = feed.subscription.name
                letter = rows.dead_letter(connection, name, received.lease, reason, writer.clock(), feed.token)
            if letter is None:
                raise rows.lease_lost(received)
            return str(letter)

        letter_id: str = await writer.do(Operation(move, feed=feed, settled=(received,)))
        return letter_id

    async def stop(self) -> None:
        """End the wait of `receive`, and of later calls, and have the writer serve this receiver no longer."""
        self._feed.stop()
        with contextlib.suppress(Closed):
            self._writer().remove(self._feed)
