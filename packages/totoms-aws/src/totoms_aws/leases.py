"""Leases: on SQS the time for which a received message is hidden from everybody else.

SQS does as it is told with a receipt whose time is over, if nobody else has received the message meanwhile, and may do
so if somebody has. So the end of a lease is known here, and what comes after it is not sent. A lease is counted from
before the message was asked for, so it ends here no later than there.

SQS counts every receive, also of a message that is given back unhandled, and has nothing to take that back. So such a
message is put into the queue anew, with the attempts that it had, and only then deleted where it was. If we end between
the two it is there twice, which at least once allows. Where that could change an order, or a copy is refused, it is
made visible again as it is, and an attempt is counted.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from totoms.envelope import Received, Subscription
from totoms.errors import BackendError, LeaseLost
from totoms.messages import ID_ATTRIBUTE
from totoms_aws.batches import MOST_ENTRIES, Entry, packed
from totoms_aws.errors import told_as
from totoms_aws.forms import MOST_ATTRIBUTES, OURS, Attributes, from_queue, size_of, to_attributes
from totoms_aws.queues import Queues, results_of
from totoms_aws.sources import Source
from totoms_aws.workers import SETTLING

COUNTED: Final = f"{OURS}Attempts"
"""Attribute of a message that was given back: how many attempts it had before."""
_LONGEST: Final = 43_200
"""Seconds: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html"""
_LOST: Final = ("ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight", "InvalidIdFormat")
_Operation = Callable[[str, list[Entry]], dict[str, Any]]


@dataclass(slots=True, eq=False)
class Lease:
    """The right to settle one delivery.

    Attributes:
        source: Where the message is.
        message: As the SDK gave it.
        until: When the lease ends, by the monotonic clock.
        settled: Whether SQS has been told.
    """

    source: Source
    message: dict[str, Any]
    until: float
    settled: bool = False

    @property
    def receipt(self) -> str:
        """What SQS knows the delivery by."""
        return str(self.message["ReceiptHandle"])

    @property
    def group(self) -> str:
        """The message group, on a FIFO queue."""
        return str((self.message.get("Attributes") or {}).get("MessageGroupId", ""))

    @property
    def attributes(self) -> Attributes:
        """The message's attributes but those of the plugin."""
        given: Attributes = self.message.get("MessageAttributes") or {}
        return {name: value for name, value in given.items() if not name.startswith(OURS)}


class Leases:
    """Gives, renews and ends leases.

    Args:
        queues: To whom.
        lease_seconds: How long they last.
    """

    def __init__(self, queues: Queues, lease_seconds: float) -> None:
        self._queues = queues
        self.seconds = math.ceil(lease_seconds)

    def give(self, message: dict[str, Any], source: Source, subscription: Subscription, asked: float) -> Received:
        """Turn a message of SQS into what the core handles.

        Args:
            message: As the SDK gives it.
            source: Where it came from.
            subscription: For whom.
            asked: When it was asked for, by the monotonic clock.
        """
        content = from_queue(message, raw=source.raw)
        counted = ((message.get("MessageAttributes") or {}).get(COUNTED) or {}).get("StringValue", "")
        attempt = int(message["Attributes"]["ApproximateReceiveCount"]) + (int(counted) if counted.isdecimal() else 0)
        lease = Lease(source, message, asked + self.seconds)
        return Received(
            content.body, content.message_id, attempt, subscription, content.attributes, lease, self.seconds
        )

    # --- settling ---

    async def finish(self, batch: Sequence[Received]) -> list[BackendError | None]:
        """Delete messages. LeaseLost for what is no longer ours.

        Raises:
            Unavailable: Some could not be deleted now; ask for all again.
        """
        return await self._each(batch, lambda url, entries: self._queues.sqs.delete_message_batch(
            QueueUrl=url, Entries=entries
        ), {}, settles=True)  # fmt: skip

    async def retry(self, received: Received, delay: float) -> None:
        """Have a message delivered again after `delay` seconds, rounded up to whole ones.

        Raises:
            LeaseLost: It comes again anyway.
        """
        (result,) = await self._hide([received], min(math.ceil(delay), _LONGEST), settles=True)
        if result is not None:
            raise result

    async def renew(self, batch: Sequence[Received]) -> list[BackendError | None]:
        """Start leases anew. LeaseLost for what is no longer ours."""
        now = time.monotonic()
        results = await self._hide(batch, self.seconds, settles=False)
        for received, result in zip(batch, results, strict=True):
            received.lease.until = 0.0 if result is not None else max(received.lease.until, now + self.seconds)
        return results

    async def give_back(self, batch: Sequence[Received]) -> None:
        """Have messages delivered again at once, as if they had not been delivered."""
        await SETTLING.run(self.give_back_now, list(batch))

    def give_back_now(self, batch: Sequence[Received]) -> None:
        """Do the same; it may block: call it in a thread."""
        held = [one for one in batch if not one.lease.settled and time.monotonic() < one.lease.until]
        for source in {one.lease.source for one in held}:
            mine = [one for one in held if one.lease.source == source]
            copies = [one for one in mine if not source.fifo or one.lease.group == one.message_id]
            copied = self._copy(source, copies)
            self._delete_now(source, copied)
            self._show_now(source, [one for one in mine if not one.lease.settled and one not in copied])

    def _copy(self, source: Source, batch: Sequence[Received]) -> list[Received]:
        entries = [_copy_of(one) for one in batch]
        copied: list[Received] = []
        for pack in packed([size_of(entry["MessageBody"], entry["MessageAttributes"]) for entry in entries]):
            results = self._queues.send(source.name, source.url, [entries[number] for number in pack])
            copied += [batch[number] for number, result in zip(pack, results, strict=True) if result is None]
        return copied

    def _delete_now(self, source: Source, batch: Sequence[Received]) -> None:
        for some in _tens(batch):
            with told_as("the queue", source.name):
                self._queues.sqs.delete_message_batch(QueueUrl=source.url, Entries=_receipts(some))
        for one in batch:
            one.lease.settled = True

    def _show_now(self, source: Source, batch: Sequence[Received]) -> None:
        for some in _tens(batch):
            with told_as("the queue", source.name):
                self._queues.sqs.change_message_visibility_batch(
                    QueueUrl=source.url, Entries=_receipts(some, {"VisibilityTimeout": 0})
                )
        for one in batch:
            one.lease.settled = True

    # --- several at a time ---

    async def _hide(self, batch: Sequence[Received], seconds: int, *, settles: bool) -> list[BackendError | None]:
        return await self._each(batch, lambda url, entries: self._queues.sqs.change_message_visibility_batch(
            QueueUrl=url, Entries=entries
        ), {"VisibilityTimeout": seconds}, settles=settles)  # fmt: skip

    async def _each(
        self, batch: Sequence[Received], operation: _Operation, extra: Entry, *, settles: bool
    ) -> list[BackendError | None]:
        now, results, todo = time.monotonic(), dict[Lease, BackendError | None](), list[Received]()
        for one in batch:
            lease: Lease = one.lease
            if lease not in results:
                results[lease] = None if lease.settled or now < lease.until else lost(one)
                if not lease.settled and results[lease] is None:
                    todo.append(one)
        calls = [SETTLING.run(self._call, operation, some, extra) for some in _tens(todo)]
        failure: BaseException | None = None
        for some, answer in zip(_tens(todo), await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(answer, BaseException):
                failure = answer
                continue
            for one, result in zip(some, answer, strict=True):
                if isinstance(result, LeaseLost):
                    results[one.lease] = result
                elif result is not None:
                    failure = result
                elif settles:
                    one.lease.settled = True
        if failure is not None:
            raise failure
        return [results[one.lease] for one in batch]

    def _call(self, operation: _Operation, some: Sequence[Received], extra: Entry) -> list[BackendError | None]:
        source: Source = some[0].lease.source
        told = ("the queue", source.name)
        with told_as(*told):
            answer = operation(source.url, _receipts(some, extra))
        codes = {int(entry["Id"]): str(entry["Code"]) for entry in answer.get("Failed") or ()}
        results = results_of(answer, len(some), told)
        return [
            lost(one) if codes.get(number, "").rpartition(".")[2] in _LOST else result
            for number, (one, result) in enumerate(zip(some, results, strict=True))
        ]


def lost(received: Received) -> LeaseLost:
    """Return the error for a message that is no longer ours to settle."""
    return LeaseLost(f"The lease of message {received.message_id} has ended.", resource=received.message_id)


def check(received: Received) -> None:
    """Raise LeaseLost if the lease has ended."""
    if time.monotonic() >= received.lease.until:
        raise lost(received)


def named(attributes: Attributes, message_id: str) -> Attributes:
    """Return attributes that say the message's id, where there is room: a copy has another id at SQS."""
    if ID_ATTRIBUTE in attributes or len(attributes) >= MOST_ATTRIBUTES:
        return attributes
    return {**attributes, **to_attributes({ID_ATTRIBUTE: message_id})}


def _copy_of(received: Received) -> Entry:
    lease: Lease = received.lease
    attributes = lease.attributes
    if received.attempt > 1:
        attributes |= to_attributes({COUNTED: str(received.attempt - 1)})
    if lease.source.raw:
        attributes = named(attributes, received.message_id)
    entry: Entry = {"MessageBody": lease.message["Body"], "MessageAttributes": attributes}
    if lease.source.fifo:
        again = f"{lease.message['MessageId']}-{received.attempt}"
        entry |= {"MessageGroupId": lease.group, "MessageDeduplicationId": again}
    return entry


def _receipts(some: Sequence[Received], extra: Entry | None = None) -> list[Entry]:
    return [{"Id": str(number), "ReceiptHandle": one.lease.receipt, **(extra or {})} for number, one in enumerate(some)]


def _tens(batch: Sequence[Received]) -> list[Sequence[Received]]:
    return [batch[start : start + MOST_ENTRIES] for start in range(0, len(batch), MOST_ENTRIES)]
