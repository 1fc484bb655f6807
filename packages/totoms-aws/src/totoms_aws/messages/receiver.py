"""Receiving and settling the messages of one queue of SQS.

A lease is SQS's visibility timeout. Long polls run in threads. A poll cannot be cancelled: if its connection is closed,
the messages that it brings stay hidden until the timeout.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from totoms.errors import LeaseLost, NotFound
from totoms.plugin import DeadLetterReason, Lease, LeasingReceiver, Received, Subscription, lease_lost
from totoms_aws.clients import POLLING, SETTLING
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.dead_letters import Letter, send_dead_letter
from totoms_aws.messages.encoding import PREFIX, from_queue, to_attributes, with_message_id, without_ours
from totoms_aws.messages.queues import MAX_ENTRIES, Entry, Queue, Queues, Results, tens
from totoms_aws.messages.subscriptions import Source

EARLIER_ATTEMPTS: Final = f"{PREFIX}Attempts"
"""Attribute of a released message: the attempts that it had before."""
_COUNT: Final = re.compile("[0-9]{1,6}")  # any publisher can write this attribute
_MAX_DELAY: Final = 43_200
"""Seconds: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html"""
_POLLS: Final = 4
"""Concurrent polls while there are many messages."""
_FIFO_POLLS: Final = 10


class SQSReceiver(LeasingReceiver):
    """Receives the messages of one queue. The handle of a lease is the message as the SDK gives it.

    Args:
        subscription: What is received.
        source: Where its messages are.
        queues: The queues of the bus.
        lease_seconds: How long a lease lasts, in whole seconds.
        pause: Seconds until a queue that was empty is polled again.
    """

    def __init__(
        self,
        subscription: Subscription,
        source: Source,
        queues: Queues,
        *,
        lease_seconds: int,
        pause: float = 0.0,
    ) -> None:
        super().__init__(subscription)
        self.source = source
        self._queues = queues
        self._lease_seconds = lease_seconds
        self._pause = pause
        self._quiet_until = 0.0
        self._many = False

    async def _fetch(self, most: int, wait: float) -> list[Received]:
        wait = min(wait, self._lease_seconds / 4)  # a lease is counted from the beginning of the poll
        quiet = self._quiet_until - time.monotonic()
        if quiet > 0:
            await self._sleep(min(quiet, wait))
            return []
        each = 1 if self.source.queue.fifo else MAX_ENTRIES  # of one group SQS would give several, handled together
        number = 1
        if self._many:  # one poll gives ten at most: use several, which do not wait
            number, wait = min(math.ceil(most / each), _FIFO_POLLS if self.source.queue.fifo else _POLLS), 0.0
        sizes = [min(each, left) for left in range(most, max(0, most - number * each), -each)]
        polls = [POLLING.run(self._request, size, math.ceil(wait)) for size in sizes]
        answers = await asyncio.gather(*polls, return_exceptions=True)
        brought = [answer for answer in answers if not isinstance(answer, BaseException)]
        received = [one for batch in brought for one in batch]
        self._many = any(
            not isinstance(answer, BaseException) and len(answer) == size
            for size, answer in zip(sizes, answers, strict=True)
        )
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures and not received:
            raise failures[0]
        if not received:
            self._quiet_until = time.monotonic() + self._pause
        return received

    # --- settling ---

    async def _ack(self, held: Sequence[Received]) -> Results:
        return await self._settle(held, self._queues.delete)

    async def _nack(self, received: Received, delay: float) -> None:
        (result,) = await self._settle(
            [received], partial(self._queues.hide, seconds=min(math.ceil(delay), _MAX_DELAY))
        )
        if isinstance(result, LeaseLost):
            raise lease_lost(received)
        if result is not None:
            raise result

    async def _extend(self, held: Sequence[Received]) -> Results:
        return await self._settle(held, partial(self._queues.hide, seconds=self._lease_seconds))

    async def _release(self, held: Sequence[Received]) -> None:
        await SETTLING.run(self._give_back, held)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> str:
        message, source = received.lease.handle, self.source
        letter = Letter(message["Body"], without_ours(message), source.raw, _group_of(received), message["MessageId"])
        return await SETTLING.run(send_dead_letter, self._queues, source.dead, letter, received.message_id, reason)

    async def _settle(self, held: Sequence[Received], request: Callable[[Queue, list[str]], Results]) -> Results:
        calls = [SETTLING.run(request, self.source.queue, _receipts(some)) for some in tens(held)]
        return [result for results in await asyncio.gather(*calls) for result in results]

    # --- in threads ---

    def _request(self, most: int, linger: int) -> list[Received]:
        asked = time.monotonic()
        try:
            with mapped_errors("the queue", self.source.queue.name):
                answer = self._queues.sqs.receive_message(
                    QueueUrl=self.source.queue.url,
                    MaxNumberOfMessages=most,
                    WaitTimeSeconds=linger,
                    VisibilityTimeout=self._lease_seconds,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["ApproximateReceiveCount", "MessageGroupId"],
                )
        except NotFound:
            for queue in (self.source.queue, self.source.dead):
                self._queues.forget(queue)
            raise
        received = [self._received(message, asked) for message in answer.get("Messages") or ()]
        if received and time.monotonic() - asked > linger + self._lease_seconds / 3:
            self._renew(received)  # the SDK had to retry: SQS hides them for longer than is known here
        return received

    def _received(self, message: dict[str, Any], asked: float) -> Received:
        content = from_queue(message, raw=self.source.raw)
        earlier = ((message.get("MessageAttributes") or {}).get(EARLIER_ATTEMPTS) or {}).get("StringValue", "")
        attempt = int(message["Attributes"]["ApproximateReceiveCount"])
        if _COUNT.fullmatch(earlier):
            attempt += int(earlier)
        lease = Lease(message, self._lease_seconds, asked)
        return Received(content.body, content.message_id, attempt, self.subscription, content.attributes, lease)

    def _renew(self, received: list[Received]) -> None:
        since = time.monotonic()
        results = self._queues.hide(self.source.queue, _receipts(received), self._lease_seconds)
        for one, result in zip(received, results, strict=True):
            if result is None:
                one.lease.renewed(since)
            else:
                one.lease.end("lost")

    def _give_back(self, batch: Sequence[Received]) -> None:
        """Have messages delivered again at once, as if they had not been delivered.

        SQS counts every receive, and cannot undo one. So a message is sent to the queue anew, with the
        attempts that it had, and then deleted. If the process ends in between it is there twice, which "at least once"
        allows. Where that could change an order, or the copy is refused, the message becomes visible again as it is,
        and an attempt is counted.
        """
        # A FIFO message without an ordering key is in a group of its own.
        movable = [one for one in batch if not self.source.queue.fifo or _group_of(one) == one.message_id]
        queue = self.source.queue
        sent = self._queues.send(queue, [self._copy_of(one) for one in movable])
        copied = [one for one, error in zip(movable, sent, strict=True) if error is None]
        rest = [one for one in batch if one not in copied]
        results = self._queues.delete(queue, _receipts(copied)) + self._queues.hide(queue, _receipts(rest), 0)
        for result in results:
            if result is not None and not isinstance(result, LeaseLost):
                raise result

    def _copy_of(self, received: Received) -> Entry:
        message = received.lease.handle
        attributes = without_ours(message)
        if received.attempt > 1:
            attributes |= to_attributes({EARLIER_ATTEMPTS: str(received.attempt - 1)})
        if self.source.raw:
            attributes = with_message_id(attributes, received.message_id)
        entry: Entry = {"MessageBody": message["Body"], "MessageAttributes": attributes}
        if self.source.queue.fifo:
            new_id = f"{message['MessageId']}-{received.attempt}"
            return {**entry, "MessageGroupId": _group_of(received), "MessageDeduplicationId": new_id}
        return {**entry, "DelaySeconds": 0}  # not the queue's own delay


def _group_of(received: Received) -> str:
    return str((received.lease.handle.get("Attributes") or {}).get("MessageGroupId", ""))


def _receipts(batch: Sequence[Received]) -> list[str]:
    return [one.lease.handle["ReceiptHandle"] for one in batch]
