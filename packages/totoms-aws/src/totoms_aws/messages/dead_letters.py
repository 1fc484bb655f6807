"""Dead letters: messages in a queue of their own, with the reason as an attribute.

The queue holds each message as the subscription's queue held it, so a message that SQS or SNS moved there is a dead
letter as well.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final

from totoms.errors import BackendError, NotFound, Unsupported
from totoms.plugin import (
    DeadLetter,
    DeadLetterReason,
    DeadLetterStore,
    HeldLetter,
    Received,
    purge_letters,
    replay_letters,
)
from totoms_aws.clients import SETTLING
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.encoding import Attributes, replayed_entry, to_dead_letter, with_reason
from totoms_aws.messages.naming import dead_queue_name, queue_name, undelivered_queue_name
from totoms_aws.messages.queues import MAX_ENTRIES, Entry, Queue, Queues, redrive_of
from totoms_aws.messages.topics import Topics

_MAX_SORTED: Final = 1000
"""Dead letters that are received to find the oldest: SQS has no order."""
_HIDDEN_SECONDS: Final = 60
"""How long replaying and purging hide a message; at their end, it is visible again at once."""
_LISTING_SECONDS: Final = 10
_LISTED_A_SECOND: Final = 100
"""At least so many are listed in a second; the time for those is added to `_LISTING_SECONDS`."""
_NUMBERS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
"""Those that can be received, and those that are hidden, as while they are listed."""
_MAX_REPEATS: Final = 100
"""Batches in a row with nothing new. In a long sweep the first messages come again before the last have come."""

Message = dict[str, Any]


@dataclass(slots=True, eq=False)
class Pushed(Received):
    """A message that was pushed.

    Attributes:
        envelope: What SNS sent.
    """

    envelope: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """What becomes a dead letter.

    Attributes:
        text: The body, or SNS's envelope with it.
        attributes: Those at SQS.
        raw: Whether `text` is the body.
        group: Its message group; "" for none.
        message_id: SQS's id of it; "" for none.
    """

    text: str
    attributes: Attributes
    raw: bool
    group: str = ""
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the dead letters of a subscription are.

    Attributes:
        dead: Their queue.
        raw: Whether messages are written in it without SNS's envelope.
        queue: The queue for replays, if any.
        hidden: The receipts, by message id, of what was received and not deleted. Only these are kept, because there
            may be many messages, and large ones.
    """

    dead: Queue
    raw: bool
    queue: Queue | None
    hidden: dict[str, str] = field(default_factory=dict)


def send_dead_letter(queues: Queues, dead: Queue, letter: Letter, message_id: str, reason: DeadLetterReason) -> str:
    """Write a dead letter to its queue; return its id. It may block: call it in a thread.

    Args:
        queues: The queues of the bus.
        dead: The dead-letter queue.
        letter: The message.
        message_id: What its publisher was given as its id.
        reason: Why it is dead.
    """
    error: BackendError | None = None
    # A message of the maximum size has no room for its attributes.
    for attributes in with_reason(letter.attributes, reason, message_id=message_id, raw=letter.raw, group=letter.group):
        entry: Entry = {"MessageBody": letter.text, "MessageAttributes": attributes}
        if dead.fifo:  # a group of its own: in a shared group, a dead letter that is being listed would hide the others
            entry |= {"MessageGroupId": letter.message_id, "MessageDeduplicationId": letter.message_id}
        try:
            with mapped_errors("the queue", dead.name):
                return str(queues.sqs.send_message(QueueUrl=dead.url, **entry)["MessageId"])
        except BackendError as refused:
            error = refused
            if type(error) is NotFound:
                queues.forget(dead)
            if type(error) is not BackendError:
                break
    assert error is not None
    raise error


class SQSDeadLetters(DeadLetterStore):
    """The dead letters of one subscription.

    Args:
        subscription: Its name.
        queues: The queues of the bus.
        topics: The topics of the bus.
    """

    listing_hides: ClassVar[bool] = True

    def __init__(self, subscription: str, queues: Queues, topics: Topics) -> None:
        self._subscription = subscription
        self._queues = queues
        self._topics = topics

    async def count(self) -> int:
        """Return how many there are, by SQS's approximate numbers, which may lag behind for a minute."""
        return await SETTLING.run(self._count)

    async def list(self, limit: int) -> list[DeadLetter]:
        """Return the oldest dead letters. They are hidden from others meanwhile."""
        place = await SETTLING.run(self._place)
        letters: list[DeadLetter] = []
        most = max(limit, _MAX_SORTED)
        if place is not None:
            hidden_seconds = min(_HIDDEN_SECONDS, _LISTING_SECONDS + most // _LISTED_A_SECOND)
            async with aclosing(self._pages(place, hidden_seconds)) as pages:
                async for page in pages:
                    letters += [held.letter for held in page]
                    if len(letters) >= most:
                        break
        return sorted(letters, key=lambda letter: letter.dead_since)[:limit]

    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        """Send dead letters to the subscription's queue.

        Raises:
            Unsupported: The subscription is pushed, and has no queue for undelivered messages.
        """
        place = await SETTLING.run(self._place)
        if place is None:
            return 0
        if place.queue is None:
            raise Unsupported(
                f"{self._subscription!r} has no queue: a pushed message cannot be delivered to it alone again.",
                resource=self._subscription,
            )
        publish, delete = partial(self._republish, place, place.queue), partial(self._delete, place)
        return await replay_letters(self._pages(place), letter_ids, publish, delete)

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        """Delete dead letters."""
        place = await SETTLING.run(self._place)
        if place is None:
            return 0
        return await purge_letters(self._pages(place), letter_ids, partial(self._delete, place))

    async def keep(self, received: Received, reason: DeadLetterReason) -> str:
        """Store a message that was pushed."""
        return await SETTLING.run(self._keep, received, reason)

    # --- in threads ---

    def _keep(self, received: Received, reason: DeadLetterReason) -> str:
        name = dead_queue_name(queue_name(self._subscription))
        dead = self._queues.find(name)
        if dead is None:
            raise NotFound(f"There is no dead-letter queue {name!r}.", resource=name)
        assert isinstance(received, Pushed)
        letter = Letter(received.envelope, {}, raw=False)
        return send_dead_letter(self._queues, dead, letter, received.message_id, reason)

    def _place(self) -> _Place | None:
        names = queue_name(self._subscription), queue_name(self._subscription, fifo=True)
        for name in names:
            queue = self._queues.find(name)
            if queue is not None:
                attributes = self._queues.attributes_of(queue)
                dead = self._queues.find(redrive_of(attributes)[0].rpartition(":")[2] or dead_queue_name(name))
                return None if dead is None else _Place(dead, self._topics.writes_raw(attributes), queue)
        for name in names:
            dead = self._queues.find(dead_queue_name(name))
            if dead is not None:  # pushed: the service pulls the queue for undelivered messages
                return _Place(dead, False, self._queues.find(undelivered_queue_name(name)))
        raise NotFound(f"There is no subscription {self._subscription!r}.", resource=self._subscription)

    def _count(self) -> int:
        place = self._place()
        if place is None:
            return 0
        attributes = self._queues.attributes_of(place.dead, *_NUMBERS)
        return sum(int(attributes.get(name) or 0) for name in _NUMBERS)

    def _receive(self, queue: Queue, hidden_seconds: int) -> Sequence[Message]:
        with mapped_errors("the queue", queue.name):
            answer = self._queues.sqs.receive_message(
                QueueUrl=queue.url,
                MaxNumberOfMessages=MAX_ENTRIES,
                WaitTimeSeconds=1,  # without a wait SQS asks only some of its servers
                VisibilityTimeout=hidden_seconds,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
            )
        messages: Sequence[Message] = answer.get("Messages") or ()
        return messages

    # --- on the event loop ---

    async def _pages(
        self, place: _Place, hidden_seconds: int = _HIDDEN_SECONDS
    ) -> AsyncGenerator[Sequence[HeldLetter], None]:
        """Receive until nothing comes, or nothing new. At the end, what was not deleted becomes visible again.

        SQS has no way to look at a queue but receiving, which hides messages from others.
        """
        seen: set[str] = set()
        repeats = 0
        try:
            while repeats < _MAX_REPEATS:
                came = await SETTLING.run(self._receive, place.dead, hidden_seconds)
                new = [message for message in came if message["MessageId"] not in seen]
                seen.update(message["MessageId"] for message in came)
                place.hidden.update((message["MessageId"], message["ReceiptHandle"]) for message in came)
                repeats = 0 if new else repeats + 1
                if new:
                    letters = [to_dead_letter(one, self._subscription, raw=place.raw) for one in new]
                    yield [HeldLetter(letter, message) for letter, message in zip(letters, new, strict=True)]
                elif not came:
                    return
        finally:  # a result is not needed: they become visible anyway when `hidden_seconds` are over
            await SETTLING.run(self._queues.hide, place.dead, list(place.hidden.values()), 0)

    async def _republish(
        self, place: _Place, queue: Queue, page: Sequence[HeldLetter]
    ) -> Sequence[BackendError | None]:
        entries = [replayed_entry(held.handle, held.letter, raw=place.raw, fifo=queue.fifo) for held in page]
        return await SETTLING.run(self._queues.send, queue, entries)

    async def _delete(self, place: _Place, page: Sequence[HeldLetter]) -> None:
        receipts = [held.handle["ReceiptHandle"] for held in page]
        for held, error in zip(page, await SETTLING.run(self._queues.delete, place.dead, receipts), strict=True):
            if error is not None:
                raise error
            place.hidden.pop(held.handle["MessageId"], None)
