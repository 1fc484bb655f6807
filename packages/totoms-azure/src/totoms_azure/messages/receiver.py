"""Receiving and settling the messages of one subscription, and the pauses before a retry.

Service Bus puts a failed message back at once. So a pause is made by keeping the message, its lock renewed, and
putting it back when the pause is over: the broker keeps counting its attempts, and if this process dies meanwhile
the message comes again when its lock ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from azure.servicebus.aio import ServiceBusReceiver

from totoms.errors import BackendError
from totoms.plugin import DeadLetterReason, LeasingReceiver, Received, Subscription, lease_lost
from totoms_azure.messages.encoding import Death
from totoms_azure.messages.link import Link, LinkLease
from totoms_azure.messages.sources import Source

MOST_PAUSES: Final = 1000
"""Messages that wait for a retry. With more, a failed handler keeps its slot until the pause is over."""


class AzureReceiver(LeasingReceiver):
    """Receives from a source, and settles over the link that a message came by.

    Args:
        subscription: What is received.
        source: Where it is received from.
    """

    def __init__(self, subscription: Subscription, source: Source) -> None:
        super().__init__(subscription)
        self._source = source
        self._pauses: dict[LinkLease, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """Make `receive` return, now and later; put paused messages back, and make no pauses any more."""
        await super().stop()
        await asyncio.gather(self._source.stop(), self._finish_pauses())

    async def close(self) -> None:
        """Stop, and close the connections."""
        await super().close()
        await self._source.close()

    async def _fetch(self, most: int, wait: float) -> list[Received]:
        return await self._source.receive(most, wait)

    async def _ack(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return await _by_link(held, Link.complete)

    async def _extend(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return await _by_link(held, Link.renew)

    async def _nack(self, received: Received, delay: float) -> None:
        lease: LinkLease = received.lease
        if delay <= 0 or self.stopped:
            await lease.link.abandon(lease)
            return
        paused = lease.handed_on()
        name = f"totoms pause of {received.message_id}"
        pause = self._pauses[paused] = asyncio.create_task(self._pause(paused, delay), name=name)
        pause.add_done_callback(lambda _: self._pauses.pop(paused, None))
        if len(self._pauses) > MOST_PAUSES:
            await asyncio.wait({pause})

    async def _release(self, held: Sequence[Received]) -> None:
        for one in held:
            with contextlib.suppress(BackendError):  # it comes again when its lock ends
                await one.lease.link.release(one.lease)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        lease: LinkLease = received.lease
        message_id = "" if lease.handle.message_id else received.message_id
        description = str(Death(reason, time.time(), message_id))

        async def dead_letter(receiver: ServiceBusReceiver) -> None:
            await receiver.dead_letter_message(lease.handle, reason=reason.reason, error_description=description)

        await lease.link.settle(lease, dead_letter)

    async def _finish_pauses(self) -> None:
        if self._pauses:
            await asyncio.wait(list(self._pauses.values()))

    async def _pause(self, lease: LinkLease, delay: float) -> None:
        until = time.monotonic() + delay
        while lease.held and not self.stopped and (left := until - time.monotonic()) > 0:
            await self._sleep(min(left, lease.seconds / 3))
            if not self.stopped and time.monotonic() < until:
                with contextlib.suppress(BackendError):  # there is time for another try before the lock ends
                    await lease.link.renew([lease])
        if lease.held:
            with contextlib.suppress(BackendError):  # it comes again when its lock ends
                await lease.link.abandon(lease)
        lease.end("lost")


async def _by_link(
    held: Sequence[Received], work: Callable[[Link, Sequence[LinkLease]], Awaitable[None]]
) -> list[BackendError | None]:
    """Do `work` with the leases of each link, all links at the same time. Return a result for each message."""
    leases: dict[Link, list[LinkLease]] = {}
    for one in held:
        leases.setdefault(one.lease.link, []).append(one.lease)
    done = await asyncio.gather(*(_attempt(work(link, some)) for link, some in leases.items()))
    failures = dict(zip(leases, done, strict=True))
    return [lease_lost(one) if one.lease.state == "lost" else failures[one.lease.link] for one in held]


async def _attempt(work: Awaitable[None]) -> BackendError | None:
    try:
        await work
    except BackendError as error:
        return error
    return None
