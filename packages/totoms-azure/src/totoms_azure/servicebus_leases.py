"""Settling: for good, to be tried again later, or put back untouched; and renewing.

Service Bus puts a failed message back at once. So a pause is made by keeping the message, its lock renewed, and
putting it back when the pause is over: the broker goes on counting its attempts, and if this process dies meanwhile
the message comes again when its lock is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

from azure.servicebus.aio import ServiceBusReceiver

from totoms.envelope import DeadLetterReason, Received, Subscription
from totoms.errors import BackendError, LeaseLost
from totoms_azure import servicebus_sdk as sdk
from totoms_azure.servicebus_lanes import Lane, Lease
from totoms_azure.servicebus_reasons import Death

MOST_PARKED: Final = 1000
"""Messages that wait to be put back; with more than that whoever says FAILED waits as well, in its slot."""


class Leases:
    """Settles and renews what was received."""

    def __init__(self) -> None:
        self._parked: dict[Lease, asyncio.Task[None]] = {}
        self._hurried: dict[str, asyncio.Event] = {}

    def check(self, received: Received) -> None:
        """Raise `LeaseLost` for a message that is not held."""
        if not received.lease.held:
            raise _lost(received)

    async def ack(self, batch: Sequence[Received]) -> list[BackendError | None]:
        """Settle for good. What is settled already is not told twice."""
        by_lane: dict[Lane, list[Lease]] = {}
        for one in batch:
            if one.lease.held and one.lease not in by_lane.setdefault(one.lease.lane, []):
                by_lane[one.lease.lane].append(one.lease)
        await asyncio.gather(*(self._complete(lane, leases) for lane, leases in by_lane.items()))
        return [None if one.lease.state == "settled" else _lost(one) for one in batch]

    async def nack(self, received: Received, delay: float) -> None:
        """Have the message come again after `delay` seconds, one attempt later."""
        self.check(received)
        lease: Lease = received.lease
        hurried = self._hurry(received.subscription)
        if delay <= 0 or hurried.is_set():
            await _abandon(lease)
            return
        lease.state = "parked"
        name = f"totoms pause of {received.message_id}"
        parked = self._parked[lease] = asyncio.create_task(self._put_back(lease, delay, hurried), name=name)
        parked.add_done_callback(lambda _: self._parked.pop(lease, None))
        if len(self._parked) > MOST_PARKED:
            await asyncio.wait({parked})

    async def release(self, batch: Sequence[Received]) -> None:
        """Give back, no attempt counted. What cannot be given back comes again when its lock is over."""
        for one in batch:
            if one.lease.held:
                with contextlib.suppress(BackendError):
                    await one.lease.lane.release(one.lease)

    async def extend(self, batch: Sequence[Received]) -> list[BackendError | None]:
        """Renew leases from now."""
        by_lane: dict[Lane, list[Lease]] = {}
        for one in batch:
            if one.lease.held:
                by_lane.setdefault(one.lease.lane, []).append(one.lease)
        await asyncio.gather(*(renew(lane, leases) for lane, leases in by_lane.items()))
        return [None if one.lease.held or one.lease.state == "settled" else _lost(one) for one in batch]

    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        """Have Service Bus put the message into the dead-letter queue that belongs to where it came from."""
        self.check(received)
        lease: Lease = received.lease

        async def give_up(receiver: ServiceBusReceiver) -> None:
            nameless = "" if lease.message.message_id else received.message_id
            death = Death(reason, time.time(), nameless)
            await receiver.dead_letter_message(lease.message, reason=reason.reason, error_description=str(death))

        await lease.lane.settle(lease, give_up)

    def resume(self, subscription: Subscription) -> None:
        """Make pauses again, for a subscription that is received from."""
        self._hurry(subscription).clear()

    async def hurry(self, subscription: Subscription) -> None:
        """Put back what waits, and make no pauses from now on: this consumer stops."""
        self._hurry(subscription).set()
        mine = [task for lease, task in self._parked.items() if lease.lane.subscription.name == subscription.name]
        if mine:
            await asyncio.wait(mine)

    async def close(self) -> None:
        """Put back all that waits."""
        for hurried in self._hurried.values():
            hurried.set()
        if self._parked:
            await asyncio.wait(list(self._parked.values()))

    def _hurry(self, subscription: Subscription) -> asyncio.Event:
        return self._hurried.setdefault(subscription.name, asyncio.Event())

    async def _complete(self, lane: Lane, leases: Sequence[Lease]) -> None:
        unconfirmed: list[Lease] = []
        try:
            async with lane.turn() as receiver:
                for lease in leases:
                    try:
                        await sdk.complete(receiver, lease.message, confirmed=lease is leases[-1])
                    except Exception as error:
                        if not isinstance(lane.told(error), LeaseLost):
                            raise
                        lease.end("gone")
                    else:
                        unconfirmed.append(lease)
        except BaseException:
            for lease in unconfirmed:  # nobody knows whether the broker has heard: it is told again
                sdk.unsettle(lease.message)
            raise
        for lease in unconfirmed:
            lease.end("settled")

    async def _put_back(self, lease: Lease, delay: float, hurried: asyncio.Event) -> None:
        until = time.monotonic() + delay
        while lease.alive and not hurried.is_set() and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, lease.seconds / 3)):
                    await hurried.wait()
            if not hurried.is_set() and time.monotonic() < until:
                with contextlib.suppress(BackendError):  # there is time for another try before the lock is over
                    await renew(lease.lane, [lease])
        if lease.alive:
            with contextlib.suppress(BackendError):  # not put back: it comes again when its lock is over
                await _abandon(lease)
        if lease.alive:
            lease.end("gone")


async def renew(lane: Lane, leases: Sequence[Lease]) -> None:
    """Renew leases of one lane. Those that are lost are marked so."""
    async with lane.turn() as receiver:
        session = receiver.session
        for lease in leases:
            try:
                if session is None:
                    await receiver.renew_message_lock(lease.message)
                elif lease is leases[0]:
                    await session.renew_lock()
            except Exception as error:
                if not isinstance(lane.told(error), LeaseLost):
                    raise
                for lost in [lease] if session is None else leases:
                    lost.end("gone")
                if session is not None:
                    return
            else:
                lease.renewed()


async def _abandon(lease: Lease) -> None:
    async def abandon(receiver: ServiceBusReceiver) -> None:
        await receiver.abandon_message(lease.message)

    await lease.lane.settle(lease, abandon)


def _lost(received: Received) -> LeaseLost:
    name = received.subscription.name
    return LeaseLost(f"The lease on message {received.message_id} of {name!r} is over.", resource=name)
