"""A lane: one receiver of the SDK, and all that happens on its connection, one thing after the other.

The SDK's receivers are not made to be used by several at a time: who reads keeps off who writes, and an answer may be
read by somebody else. So each is used by whoever holds its lane.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

from totoms.envelope import Received, Subscription
from totoms.errors import BackendError, Closed, LeaseLost
from totoms_azure import servicebus_sdk as sdk
from totoms_azure.servicebus_errors import translate
from totoms_azure.servicebus_messages import received_from
from totoms_azure.servicebus_names import Entity

_ON_THE_WAY: Final = 0.05
"""The part of a lease that may have passed when a message arrives."""
_LEAST_LEASE: Final = 1.0
_MOST_LEASE: Final = 300.0
"""Seconds: the longest lock there is. A clock that is wrong must not make a lease longer."""


class Lease:
    """One message's lease.

    Attributes:
        lane: What it came by.
        message: The SDK's.
        seconds: How long it lasts when it is given or extended.
        expires: When it ends, by `time.monotonic`.
        state: Whether it is held, waits to be put back, is settled, or is somebody else's by now.
    """

    __slots__ = ("expires", "lane", "message", "seconds", "state")

    def __init__(self, lane: Lane, message: ServiceBusReceivedMessage, seconds: float) -> None:
        self.lane = lane
        self.message = message
        self.seconds = seconds
        self.state: Literal["held", "parked", "settled", "gone"] = "held"
        self.renewed()

    def renewed(self) -> None:
        """Note that it begins now."""
        self.expires = time.monotonic() + self.seconds * (1 - _ON_THE_WAY)

    @property
    def alive(self) -> bool:
        """Whether the broker still keeps the message for us."""
        if self.state in ("held", "parked") and time.monotonic() >= self.expires:
            self.end("gone")
        return self.state in ("held", "parked")

    @property
    def held(self) -> bool:
        """Whether whoever received it may still settle it."""
        return self.alive and self.state == "held"

    def end(self, state: Literal["settled", "gone"]) -> None:
        """Note that it is over."""
        self.state = state
        self.lane.unsettled.discard(self)
        self.lane.changed.set()


class Lane:
    """One receiver. Its connection is opened when it is first used.

    Args:
        subscription: The core's.
        entity: What is received from.
        make: Makes the receiver.

    Attributes:
        unsettled: What was received and is neither settled nor lost.
        changed: Set whenever that becomes less.
    """

    def __init__(self, subscription: Subscription, entity: Entity, make: Callable[[], ServiceBusReceiver]) -> None:
        self.subscription = subscription
        self.entity = entity
        self.unsettled: set[Lease] = set()
        self.changed = asyncio.Event()
        self._make = make
        self._receiver: ServiceBusReceiver | None = None
        self._turn = asyncio.Lock()

    @property
    def session_id(self) -> str | None:
        """The session that the receiver has, if it is of one."""
        session = self._receiver.session if self._receiver is not None else None
        return None if session is None else str(session.session_id)

    async def open(self) -> None:
        """Connect; for a session, wait for one that has messages.

        Raises:
            NotFound: There is no such entity.
            Unavailable: It cannot be reached, or there is no session.
        """
        async with self.turn():
            pass

    async def receive(self, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages; wait up to `wait` seconds for the first."""
        async with self.turn() as receiver:
            messages = await receiver.receive_messages(max_message_count=most, max_wait_time=wait)
            if messages and len(messages) < most:
                await sdk.drain(receiver)  # what else comes would wait in the socket until somebody listens
        return [self._leased(message) for message in messages]

    async def drain(self) -> None:
        """See that nothing comes while nobody listens."""
        if self._receiver is not None:
            async with self.turn() as receiver:
                await sdk.drain(receiver)

    def hang_up(self) -> None:
        """Break the connection off, though somebody is at it."""
        if self._receiver is not None:
            sdk.hang_up(self._receiver)

    async def close(self) -> None:
        """Close the connection. What has not been settled comes again when its lock is over."""
        async with self._turn:
            receiver, self._receiver = self._receiver, None
            if receiver is not None:
                with contextlib.suppress(Exception):  # it is given up, whatever became of it
                    await receiver.close()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[ServiceBusReceiver]:
        """Give the receiver to one at a time. What the SDK raises is raised as an error of ours."""
        async with self._turn:
            task = asyncio.current_task()
            cancelling = task.cancelling() if task is not None else 0
            try:
                yield await self._connected()
            except BackendError:
                raise
            except Exception as error:
                raise self.told(error) from error
            finally:
                # The SDK waits by means of what may swallow a cancellation that comes with the answer.
                if task is not None and task.cancelling() > cancelling:
                    raise asyncio.CancelledError

    async def _connected(self) -> ServiceBusReceiver:
        receiver = self._receiver
        if receiver is None:
            receiver = self._receiver = self._make()
            sdk.prepare(receiver)
        elif receiver.session is not None:
            return receiver  # connected anew it would have another session
        # By itself it does nothing where there is a connection. Settling does not make one, and who receives has only
        # the time of its own short wait for that.
        await sdk.connect(receiver)
        return receiver

    def told(self, error: Exception) -> BackendError:
        """Return the error of ours for one of the SDK's."""
        told = translate(error, "the subscription" if self.entity.topic else "the queue", str(self.entity))
        if isinstance(told, Closed) and self.session_id is not None:
            return LeaseLost(f"The session of {str(self.entity)!r} is lost.", resource=str(self.entity))
        return told

    async def settle(self, lease: Lease, how: Callable[[ServiceBusReceiver], Any]) -> None:
        """Settle one message.

        Raises:
            LeaseLost: Another consumer owns it by now.
        """
        try:
            async with self.turn() as receiver:
                await how(receiver)
        except LeaseLost:
            lease.end("gone")
            raise
        lease.end("settled")

    async def release(self, lease: Lease) -> None:
        """Give one message back, no attempt counted."""
        await self.settle(lease, partial(sdk.release, message=lease.message))

    @property
    def busy(self) -> bool:
        """Whether there is something that can be settled."""
        for lease in list(self.unsettled):
            _ = lease.alive  # notes when it is over
        return bool(self.unsettled)

    def _leased(self, message: ServiceBusReceivedMessage) -> Received:
        session = self._receiver.session if self._receiver is not None else None
        until = message.locked_until_utc if session is None else session.locked_until_utc
        seconds = _MOST_LEASE if until is None else (until - datetime.now(UTC)).total_seconds()
        lease = Lease(self, message, min(max(seconds, _LEAST_LEASE), _MOST_LEASE))
        self.unsettled.add(lease)
        return received_from(message, self.subscription, lease, lease.seconds)
