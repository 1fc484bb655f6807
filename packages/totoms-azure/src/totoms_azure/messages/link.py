"""A link: one receiver of the SDK, on a connection of its own, used by one task at a time.

The SDK's receivers cannot be shared: a task that reads blocks one that writes, and may read the answer meant for
another.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

from totoms.errors import BackendError, Closed, LeaseLost
from totoms.plugin import Lease, Received, Subscription
from totoms_azure import private_api
from totoms_azure.messages.clients import translate
from totoms_azure.messages.encoding import received_from
from totoms_azure.messages.naming import Entity

_IN_TRANSIT: Final = 0.05
"""The part of a lock that may have passed when a message arrives."""
_SHORTEST_LOCK: Final = 1.0
_UNKNOWN_LOCK: Final = 10.0
"""Seconds, where this machine's clock says that a lock has ended already: the clock is ahead. Locks are 5 to 300
seconds, by default 60 (https://learn.microsoft.com/azure/service-bus-messaging/message-transfers-locks-settlement)."""
_LONGEST_LOCK: Final = 300.0
"""Seconds: the most that Service Bus allows. A clock that is wrong must not make a lease longer."""


class LinkLease(Lease):
    """The lock on a message, which is its `handle`.

    Args:
        link: What the message came by.
        message: The SDK's message.
        seconds: How long the lock lasts.
    """

    __slots__ = ("link",)

    def __init__(self, link: Link, message: ServiceBusReceivedMessage, seconds: float) -> None:
        super().__init__(message, seconds, time.monotonic() - _IN_TRANSIT * seconds)
        self.link = link
        link.unsettled.add(self)

    def handed_on(self) -> LinkLease:
        """Return a second lease on the same lock. The first one can no longer settle it."""
        other = LinkLease(self.link, self.handle, self.seconds)
        other.expires = self.expires
        return other

    def end(self, state: Literal["settled", "lost"]) -> None:
        """Note that it is over. What is settled stays so: a renewal or a second ack that waited for its turn fails."""
        if self.state == "held":
            super().end(state)
            self.link.unsettled.discard(self)
            self.link.changed.set()


class Link:
    """One receiver. Its connection is opened when it is first used.

    Args:
        subscription: The core's subscription.
        entity: What is received from.
        make: Makes the SDK's receiver.
        lock_seconds: How long a lock lasts; None where the service may not look that up.

    Attributes:
        unsettled: Leases that are neither settled nor lost.
        changed: Set whenever one leaves `unsettled`.
    """

    def __init__(
        self,
        subscription: Subscription,
        entity: Entity,
        make: Callable[[], ServiceBusReceiver],
        lock_seconds: float | None = None,
    ) -> None:
        self.unsettled: set[LinkLease] = set()
        self.changed = asyncio.Event()
        self._subscription = subscription
        self._entity = entity
        self._make = make
        self._receiver: ServiceBusReceiver | None = None
        self._turn = asyncio.Lock()
        self._lock_seconds = lock_seconds
        self._longest = _LONGEST_LOCK

    @property
    def busy(self) -> bool:
        """Whether anything is unsettled."""
        return any(lease.held for lease in list(self.unsettled))  # `held` removes one that is over

    async def open(self) -> None:
        """Connect; for a session, wait for one that has messages.

        Raises:
            NotFound: There is no such entity.
            Unavailable: It cannot be reached, or no session has messages.
        """
        async with self.turn():
            pass

    async def receive(self, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages; wait up to `wait` seconds for the first."""
        async with self.turn() as receiver:
            messages = await receiver.receive_messages(max_message_count=most, max_wait_time=wait)
            if messages and len(messages) < most:
                await private_api.drain(receiver)  # what else arrives would wait in the socket until the next receive
        return [self._leased(message) for message in messages]

    async def drain(self) -> None:
        """Withdraw what was requested, so that nothing arrives while no `receive` is running."""
        if self._receiver is not None:
            async with self.turn() as receiver:
                await private_api.drain(receiver)

    def abort(self) -> None:
        """Break the connection off, even while a task uses it."""
        if self._receiver is not None:
            private_api.abort(self._receiver)

    async def close(self) -> None:
        """Close the connection. What has not been settled comes again when its lock ends."""
        async with self._turn:
            receiver, self._receiver = self._receiver, None
            if receiver is not None:
                with contextlib.suppress(Exception):  # it is not used again, whatever happened
                    await receiver.close()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[ServiceBusReceiver]:
        """Give the receiver to one task at a time. What the SDK raises is raised as a BackendError."""
        async with self._turn:
            task = asyncio.current_task()
            cancelling = task.cancelling() if task is not None else 0
            try:
                yield await self._connected()
            except BackendError:
                raise
            except Exception as error:
                raise self._translated(error) from error
            finally:
                # The SDK may swallow a cancellation that comes at the same time as an answer.
                if task is not None and task.cancelling() > cancelling:
                    raise asyncio.CancelledError

    async def settle(self, lease: LinkLease, how: Callable[[ServiceBusReceiver], Awaitable[None]]) -> None:
        """Settle one message.

        Raises:
            LeaseLost: Another consumer owns it by now.
        """
        try:
            async with self.turn() as receiver:
                await how(receiver)
        except LeaseLost:
            lease.end("lost")
            raise
        lease.end("settled")

    async def release(self, lease: LinkLease) -> None:
        """Give one message back, with no attempt counted."""
        await self.settle(lease, lambda receiver: private_api.release(receiver, lease.handle))

    async def abandon(self, lease: LinkLease) -> None:
        """Give one message back, with an attempt counted."""
        await self.settle(lease, lambda receiver: receiver.abandon_message(lease.handle))

    async def complete(self, leases: Sequence[LinkLease]) -> None:
        """Settle messages for good; only the last is confirmed by the broker, which then has received all.

        Leases that another consumer owns by now are ended as lost.
        """
        unconfirmed: list[LinkLease] = []
        try:
            async with self.turn() as receiver:
                leases = [lease for lease in leases if lease.held]  # some may have ended while this waited for its turn
                for lease in leases:
                    try:
                        await private_api.complete(receiver, lease.handle, confirmed=lease is leases[-1])
                    except Exception as error:
                        if not isinstance(self._translated(error), LeaseLost):
                            raise
                        lease.end("lost")
                    else:
                        unconfirmed.append(lease)
        except BaseException:
            for lease in unconfirmed:  # it is unknown whether the broker has received them: they are settled again
                private_api.unsettle(lease.handle)
            raise
        for lease in unconfirmed:
            lease.end("settled")

    async def renew(self, leases: Sequence[LinkLease]) -> None:
        """Renew leases, except those that ended while this waited for its turn. Lost ones are ended as lost."""
        async with self.turn() as receiver:
            session = receiver.session
            leases = [lease for lease in leases if lease.held]
            for lease in leases:
                since = time.monotonic()
                try:
                    if session is None:
                        await receiver.renew_message_lock(lease.handle)
                    elif lease is leases[0]:
                        await session.renew_lock()
                except Exception as error:
                    if not isinstance(self._translated(error), LeaseLost):
                        raise
                    for lost in [lease] if session is None else leases:
                        lost.end("lost")
                    if session is not None:
                        return
                else:
                    lease.renewed(since)

    async def _connected(self) -> ServiceBusReceiver:
        receiver = self._receiver
        if receiver is None:
            receiver = self._receiver = self._make()
            private_api.shorten_gap(receiver)
        elif receiver.session is not None:
            return receiver  # after a reconnect it would have another session
        # Nothing happens where there is a connection. The SDK opens none to settle, and to receive it has only the
        # time of the short wait for that.
        await private_api.connect(receiver)
        return receiver

    def _translated(self, error: Exception) -> BackendError:
        mapped = translate(error, self._entity.kind, str(self._entity))
        if isinstance(mapped, Closed) and self._receiver is not None and self._receiver.session is not None:
            return LeaseLost(f"The session of {str(self._entity)!r} is lost.", resource=str(self._entity))
        return mapped

    def _leased(self, message: ServiceBusReceivedMessage) -> Received:
        session = self._receiver.session if self._receiver is not None else None
        until = message.locked_until_utc if session is None else session.locked_until_utc
        lease = LinkLease(self, message, self._seconds(message, until, of_session=session is not None))
        return received_from(message, self._subscription, lease)

    def _seconds(self, message: ServiceBusReceivedMessage, until: datetime | None, *, of_session: bool) -> float:
        """Return how long a lock lasts from now, independent of this machine's clock where that is possible.

        Service Bus says when a lock ends by its own clock. If the clock here were behind, the lease would be longer
        than the lock; if it were ahead, the lease would end at once.
        """
        if self._lock_seconds is not None:
            return min(self._lock_seconds, _LONGEST_LOCK)
        if until is None:
            return _UNKNOWN_LOCK
        enqueued = message.enqueued_time_utc
        if enqueued is not None and not of_session:
            # Both times are by Service Bus's clock. A message is not locked before it is enqueued.
            self._longest = min(self._longest, max((until - enqueued).total_seconds(), _SHORTEST_LOCK))
        seconds = (until - datetime.now(UTC)).total_seconds()
        return min(seconds, self._longest) if seconds >= _SHORTEST_LOCK else min(_UNKNOWN_LOCK, self._longest)
