"""Receiving and settling the messages of one subscription.

JetStream accepts every acknowledgement, even after the lease has ended, and counts every delivery, even of a message
that is given back. The core's leases refuse what comes too late: a lease is counted from before the message was
asked for, so it ends here no later than at the server. Messages given back are noted in a bucket, under their place in
the stream, and the note is subtracted from the count when they come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.msg import Msg

from totoms.errors import BackendError, LeaseLost, NotFound
from totoms.plugin import ID_ATTRIBUTE, DeadLetterReason, Lease, LeasingReceiver, Received, Subscription, lease_lost
from totoms_nats.clients import Connection
from totoms_nats.messages.dead_letters import NatsDeadLetters
from totoms_nats.messages.encoding import from_headers
from totoms_nats.messages.pull import Pull, Source
from totoms_nats.messages.subscriptions import Subscriptions

_ID_HEADER: Final = "Nats-Msg-Id"
_LONGEST_PULL: Final = 1.0
"""Seconds. A lease is counted from the beginning of the pull."""
_REFUSED_PAUSE: Final = 0.25
_SETTLE_PATIENCE: Final = 5.0


@dataclass(slots=True)
class Delivery:
    """One delivery of a message; `Lease.handle`.

    Attributes:
        reply: The subject that settles it.
        place: The message's place: stream, consumer and sequence.
        released: How many deliveries before this one were given back.
    """

    reply: str
    place: str
    released: int = 0


class NatsReceiver(LeasingReceiver):
    """Pulls from the consumers of one subscription.

    Args:
        subscription: The subscription.
        sources: Its consumers: what is replayed first, then the topic.
        connection: The connection.
        subscriptions: Finds out whether a consumer is gone.
    """

    def __init__(
        self,
        subscription: Subscription,
        sources: Sequence[Source],
        connection: Connection,
        subscriptions: Subscriptions,
    ) -> None:
        super().__init__(subscription)
        self._sources = sources
        self._connection = connection
        self._subscriptions = subscriptions
        self._dead_letters = NatsDeadLetters(subscription.name, connection, subscriptions)
        self._notes = subscriptions.names.attempts
        self._next_look = float("-inf")

    async def _fetch(self, most: int, wait: float) -> list[Received]:
        batch = await self._take(most)
        if batch or not wait:
            return batch
        source = self._sources[-1]
        begun, longest = time.monotonic(), min(wait, _longest_pull(source))
        batch = await self._pull(source, 1, longest)
        if not batch and time.monotonic() - begun < longest / 2:  # refused: too many wait at this consumer
            await self._sleep(_REFUSED_PAUSE)
        return batch

    async def _take(self, max_messages: int) -> list[Received]:
        batch: list[Received] = []
        for source in self._sources:
            if source is not self._sources[-1]:  # replays are rare: not looked for each time
                if time.monotonic() < self._next_look:
                    continue
                self._next_look = time.monotonic() + _longest_pull(source)
            if len(batch) < max_messages:
                batch += await self._pull(source, max_messages - len(batch), 0)
        return batch

    async def _pull(self, source: Source, max_messages: int, wait: float) -> list[Received]:
        client = await self._connection.client()
        begun = time.monotonic()
        pull = Pull(client, source, max_messages)
        await pull.run(wait)
        if not pull.answered and not pull.messages:
            await self._subscriptions.sources_of(self.subscription, create=False)  # NotFound if the consumer is gone
        return await self._lease(pull.messages, source, begun)

    async def _lease(self, messages: Sequence[Msg], source: Source, begun: float) -> list[Received]:
        batch = []
        for message in messages:
            about, attributes = message.metadata, from_headers(message.headers)
            delivery = Delivery(message.reply, f"{about.stream}.{about.consumer}.{about.sequence.stream}")
            message_id = attributes.get(ID_ATTRIBUTE) or (message.headers or {}).get(_ID_HEADER) or delivery.place
            lease = Lease(delivery, source.lease_seconds, begun)
            batch.append(Received(message.data, message_id, about.num_delivered, self.subscription, attributes, lease))
        await asyncio.gather(*(self._correct_attempt(one) for one in batch if one.attempt > 1))
        return batch

    # --- settling ---

    async def _ack(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return await _each(self._finish, held)

    async def _nack(self, received: Received, delay: float) -> None:
        pause = b" " + json.dumps({"delay": int(delay * 1e9)}).encode() if delay > 0 else b""
        await self._settle(received, b"-NAK" + pause)

    async def _release(self, held: Sequence[Received]) -> None:
        for result in await _each(self._note_and_release, held):
            if result is not None and not isinstance(result, LeaseLost):  # lost, it comes again anyway
                raise result

    async def _extend(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return await _each(self._renew, held)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> str:
        return await self._dead_letters.keep(received, reason)

    async def _finish(self, received: Received) -> None:
        await self._settle(received, b"+ACK")
        delivery: Delivery = received.lease.handle
        if delivery.released:
            with contextlib.suppress(BackendError):  # a note that stays is deleted after 30 days
                subject = f"$KV.{self._notes}.{delivery.place}"
                await self._connection.call(
                    lambda js: js.purge_stream(f"KV_{self._notes}", subject=subject),
                    "The note of an attempt was not deleted",
                    delivery.place,
                )

    async def _renew(self, received: Received) -> None:
        await self._settle(received, b"+WPI")

    async def _note_and_release(self, received: Received) -> None:
        delivery: Delivery = received.lease.handle
        # The note comes first: if the process ends in between, one attempt too many is better than one too few.
        subject = f"$KV.{self._notes}.{delivery.place}"
        await self._connection.publish(subject, str(delivery.released + 1).encode(), {})
        await self._settle(received, b"-NAK")

    async def _settle(self, received: Received, answer: bytes) -> None:
        lease: Lease = received.lease
        remaining = min(lease.expires - time.monotonic(), _SETTLE_PATIENCE)  # not retried after the lease's end
        if remaining <= 0:
            raise lease_lost(received)
        until = asyncio.get_running_loop().time() + remaining
        try:
            await self._connection.request(lease.handle.reply, answer, until=until)
        except NotFound as error:
            raise lease_lost(received) from error

    async def _correct_attempt(self, received: Received) -> None:
        delivery: Delivery = received.lease.handle
        subject = f"$KV.{self._notes}.{delivery.place}"
        try:
            note = await self._connection.call(
                lambda js: js.get_msg(f"KV_{self._notes}", subject=subject), "No note", delivery.place
            )
        except NotFound:
            return
        delivery.released = int(note.data or b"0")
        received.attempt = max(1, received.attempt - delivery.released)


async def _each(
    settle: Callable[[Received], Coroutine[Any, Any, None]], batch: Sequence[Received]
) -> list[BackendError | None]:
    async def result_of(received: Received) -> BackendError | None:
        try:
            await settle(received)
        except BackendError as error:
            return error
        return None

    return await asyncio.gather(*map(result_of, batch))


def _longest_pull(source: Source) -> float:
    return min(_LONGEST_PULL, source.lease_seconds / 4)
