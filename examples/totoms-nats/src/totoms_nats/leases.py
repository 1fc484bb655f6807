"""Leases, and the attempts that did not count.

JetStream acknowledges whatever it is told to: a late ack from a consumer whose time has run out settles the message for
the one that has it now. So the end of a lease is known here, and what comes after it is not sent. A lease is counted
from before the message was asked for, so it ends here no later than at the server.

JetStream also counts every delivery, of a message given back unhandled too. Those few are noted in a bucket, under the
message's place in its stream, and subtracted when it comes again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from nats.aio.msg import Msg

from totoms.envelope import Received, Subscription
from totoms.errors import LeaseLost, NotFound
from totoms.messages import ID_ATTRIBUTE
from totoms_nats.connection import Connection
from totoms_nats.headers import from_headers
from totoms_nats.topology import Source

_ID_HEADER = "Nats-Msg-Id"


@dataclass(slots=True)
class Lease:
    """The right to settle one delivery.

    Attributes:
        reply: Where to.
        place: The message's place: stream, consumer and sequence.
        seconds: How long it lasts when renewed.
        until: When it ends, by the monotonic clock.
        delivered: The server's count of deliveries, this one included.
        uncounted: How many of them were given back unhandled.
        settled: Whether the server has been told.
    """

    reply: str
    place: str
    seconds: float
    until: float
    delivered: int
    uncounted: int = 0
    settled: bool = False


class Leases:
    """Gives, renews and ends leases.

    Args:
        connection: To whom.
        attempts: The bucket of attempts that did not count.
    """

    def __init__(self, connection: Connection, attempts: str) -> None:
        self._connection = connection
        self._stream = f"KV_{attempts}"
        self._subject = f"$KV.{attempts}."

    async def give(
        self, messages: Sequence[Msg], subscription: Subscription, source: Source, asked: float
    ) -> list[Received]:
        """Turn what a pull brought into what the core handles.

        Args:
            messages: What it brought.
            subscription: For whom.
            source: From where.
            asked: When it was asked for, by the monotonic clock.
        """
        batch = []
        for message in messages:
            about, attributes = message.metadata, from_headers(message.headers)
            place = f"{about.stream}.{about.consumer}.{about.sequence.stream}"
            message_id = attributes.get(ID_ATTRIBUTE) or (message.headers or {}).get(_ID_HEADER) or place
            lease = Lease(message.reply, place, source.lease_seconds, asked + source.lease_seconds, about.num_delivered)
            batch.append(
                Received(message.data, message_id, about.num_delivered, subscription, attributes, lease, lease.seconds)
            )
        await asyncio.gather(*(self._correct(one) for one in batch if one.lease.delivered > 1))
        return batch

    async def finish(self, received: Received) -> None:
        """Settle a delivery for good. A second time does nothing.

        Raises:
            LeaseLost: It is no longer ours to settle.
        """
        lease: Lease = received.lease
        if lease.settled:
            return
        await self._tell(received, b"+ACK")
        lease.settled = True
        if lease.uncounted:
            place = self._subject + lease.place
            await self._connection.call(
                lambda js: js.purge_stream(self._stream, subject=place), "An attempt cannot be forgotten", lease.place
            )

    async def retry(self, received: Received, delay: float) -> None:
        """Have a delivery made again after `delay` seconds.

        Raises:
            LeaseLost: It comes again anyway.
        """
        lease: Lease = received.lease
        if not lease.settled:
            pause = b" " + json.dumps({"delay": int(delay * 1e9)}).encode() if delay > 0 else b""
            await self._tell(received, b"-NAK" + pause)
            lease.settled = True

    async def give_back(self, received: Received) -> None:
        """Have a delivery made again at once, and not counted.

        Raises:
            LeaseLost: It comes again anyway, and counts.
        """
        lease: Lease = received.lease
        if lease.settled:
            return
        self.check(received)
        # First the note: should we end between the two, one attempt too many is better than one too few.
        await self._connection.publish(self._subject + lease.place, str(lease.uncounted + 1).encode(), {})
        await self._tell(received, b"-NAK")
        lease.settled = True

    async def renew(self, received: Received) -> None:
        """Start the lease anew.

        Raises:
            LeaseLost: It has ended.
        """
        lease: Lease = received.lease
        if not lease.settled:
            now = time.monotonic()
            await self._tell(received, b"+WPI")
            lease.until = now + lease.seconds

    def check(self, received: Received) -> None:
        """Raise LeaseLost if the lease has ended."""
        if time.monotonic() >= received.lease.until:
            raise LeaseLost(f"The lease of message {received.message_id} has ended.", resource=received.message_id)

    async def _tell(self, received: Received, answer: bytes) -> None:
        self.check(received)
        remaining: float = received.lease.until - time.monotonic()
        try:
            # The server answers when it has done it. Not tried beyond the end of the lease.
            until = asyncio.get_running_loop().time() + min(remaining, 5.0)
            await self._connection.request(received.lease.reply, answer, until=until)
        except NotFound as error:
            raise LeaseLost("The subscription is gone.", resource=received.message_id) from error

    async def _correct(self, received: Received) -> None:
        lease: Lease = received.lease
        try:
            note = await self._connection.call(
                lambda js: js.get_msg(self._stream, subject=self._subject + lease.place), "No note", lease.place
            )
        except NotFound:
            return
        lease.uncounted = int(note.data or b"0")
        received.attempt = max(1, lease.delivered - lease.uncounted)
