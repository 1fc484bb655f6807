"""Leases: on SQS the time for which a received message is hidden from everybody else.

SQS does as it is told with a receipt whose time is over, if nobody else has received the message meanwhile, and may do
so if somebody has. So the end of a lease is known here, and what comes after it is not sent. A lease is counted from
before the message was asked for, so it ends here no later than there.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from totoms.envelope import Received, Subscription
from totoms.errors import BackendError, LeaseLost
from totoms_aws.batches import MOST_ENTRIES, Entry
from totoms_aws.errors import told_as
from totoms_aws.forms import OURS, Attributes, from_queue
from totoms_aws.queues import Queues, results_of
from totoms_aws.sources import Source
from totoms_aws.workers import SETTLING

COUNTED: Final = f"{OURS}Attempts"
"""Attribute of a message that was given back: how many attempts it had before."""
_LONGEST: Final = 43_200
"""Seconds: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html"""
_LOST: Final = ("ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight", "InvalidIdFormat")
_COUNT: Final = re.compile("[0-9]{1,6}")  # anybody may have written it
_Operation = Callable[[str, list[Entry]], dict[str, Any]]


@dataclass(slots=True, eq=False)
class Lease:
    """The right to settle one delivery.

    Attributes:
        source: Where the message is.
        message: As the SDK gave it.
        until: When the lease ends, by the monotonic clock.
        settled: Whether SQS has been told.
        leaving: Whether it is being given up, and no longer renewed.
        renewal: Done when the renewal that is under way is.
    """

    source: Source
    message: dict[str, Any]
    until: float
    settled: bool = False
    leaving: bool = False
    renewal: asyncio.Future[None] | None = None

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
        before = int(counted) if _COUNT.fullmatch(counted) else 0
        attempt = int(message["Attributes"]["ApproximateReceiveCount"]) + before
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
        return await self._each(batch, self._delete, {}, _settle)

    async def retry(self, received: Received, delay: float) -> None:
        """Have a message delivered again after `delay` seconds, rounded up to whole ones.

        Raises:
            LeaseLost: It comes again anyway.
        """
        lease: Lease = received.lease
        lease.leaving = True
        if lease.renewal is not None:  # else it might be answered last, and hide the message for longer
            await asyncio.wait({lease.renewal})
        seconds = min(math.ceil(delay), _LONGEST)
        (result,) = await self._each([received], self._hide, {"VisibilityTimeout": seconds}, _settle)
        if result is not None:
            raise result

    async def renew(self, batch: Sequence[Received]) -> list[BackendError | None]:
        """Start leases anew. LeaseLost for what is no longer ours."""
        staying = [one for one in batch if not one.lease.leaving]
        renewal = asyncio.get_running_loop().create_future()
        for one in staying:
            one.lease.renewal = renewal
        try:
            results = dict(zip(staying, await self._renew(staying), strict=True))
        finally:
            renewal.set_result(None)
            for one in staying:
                one.lease.renewal = None
        return [results.get(one) for one in batch]

    def renew_now(self, batch: Sequence[Received]) -> None:
        """Do the same for what was received just now; it may block: call it in a thread."""
        until = time.monotonic() + self.seconds
        for some in tens(batch):
            for one, result in zip(some, self._call(self._hide, some, self._anew), strict=True):
                one.lease.until = until if result is None else 0.0

    async def _renew(self, batch: Sequence[Received]) -> list[BackendError | None]:
        until = time.monotonic() + self.seconds

        def renewed(lease: Lease) -> None:
            lease.until = max(lease.until, until)

        results = await self._each(batch, self._hide, self._anew, renewed)
        for one, result in zip(batch, results, strict=True):
            if result is not None:
                one.lease.until = 0.0
        return results

    # --- several at a time ---

    @property
    def _anew(self) -> Entry:
        return {"VisibilityTimeout": self.seconds}

    def _hide(self, url: str, entries: list[Entry]) -> dict[str, Any]:
        answer: dict[str, Any] = self._queues.sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)
        return answer

    def _delete(self, url: str, entries: list[Entry]) -> dict[str, Any]:
        answer: dict[str, Any] = self._queues.sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        return answer

    async def _each(
        self, batch: Sequence[Received], operation: _Operation, extra: Entry, then: Callable[[Lease], None]
    ) -> list[BackendError | None]:
        now, results, todo = time.monotonic(), dict[Lease, BackendError | None](), list[Received]()
        for one in batch:
            lease: Lease = one.lease
            if lease not in results:
                results[lease] = None if lease.settled or now < lease.until else lost(one)
                if not lease.settled and results[lease] is None:
                    todo.append(one)
        calls = [SETTLING.run(self._call, operation, some, extra) for some in tens(todo)]
        failure: BaseException | None = None
        for some, answer in zip(tens(todo), await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(answer, BaseException):
                failure = answer
                continue
            for one, result in zip(some, answer, strict=True):
                if isinstance(result, LeaseLost):
                    results[one.lease] = result
                elif result is not None:
                    failure = result
                else:
                    then(one.lease)
        if failure is not None:
            raise failure
        return [results[one.lease] for one in batch]

    def _call(self, operation: _Operation, some: Sequence[Received], extra: Entry) -> list[BackendError | None]:
        source: Source = some[0].lease.source
        told = ("the queue", source.name)
        with told_as(*told):
            answer = operation(source.url, receipts(some, extra))
        codes = {int(entry["Id"]): str(entry["Code"]) for entry in answer.get("Failed") or ()}
        results = results_of(answer, len(some), told)
        return [
            lost(one) if codes.get(number, "").rpartition(".")[2] in _LOST else result
            for number, (one, result) in enumerate(zip(some, results, strict=True))
        ]


def _settle(lease: Lease) -> None:
    lease.settled = True


def lost(received: Received) -> LeaseLost:
    """Return the error for a message that is no longer ours to settle."""
    return LeaseLost(f"The lease of message {received.message_id} has ended.", resource=received.message_id)


def check(received: Received) -> None:
    """Raise LeaseLost if the lease has ended."""
    if time.monotonic() >= received.lease.until:
        raise lost(received)


def receipts(some: Sequence[Received], extra: Entry | None = None) -> list[Entry]:
    """Return the entries of a request about deliveries, numbered."""
    return [{"Id": str(number), "ReceiptHandle": one.lease.receipt, **(extra or {})} for number, one in enumerate(some)]


def tens(batch: Sequence[Received]) -> list[Sequence[Received]]:
    """Return them in as few parts as SQS takes."""
    return [batch[start : start + MOST_ENTRIES] for start in range(0, len(batch), MOST_ENTRIES)]
