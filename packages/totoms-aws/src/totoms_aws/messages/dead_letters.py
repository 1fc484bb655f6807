"""Dead letters: messages in a queue of their own, with the reason as an attribute.

The queue holds each message as the subscription's queue held it, so a message that SQS or SNS moved there is a dead
letter as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from totoms.errors import BackendError, NotFound, Unsupported
from totoms.plugin import DeadLetter, DeadLetterReason, DeadLetterStore, Received
from totoms_aws.clients import SETTLING
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.encoding import Attributes, replayed_entry, to_dead_letter, with_reason
from totoms_aws.messages.naming import dead_queue_name, queue_name, undelivered_queue_name
from totoms_aws.messages.queues import MAX_ENTRIES, Entry, Queue, Queues, redrive_of
from totoms_aws.messages.topics import Topics

_MAX_SORTED: Final = 1000
"""Dead letters that are received to find the oldest: SQS has no order."""
_HIDDEN_SECONDS: Final = 60
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
    """The dead-letter queue of a subscription, how messages are written in it, and the queue for replays, if any."""

    dead: Queue
    raw: bool
    queue: Queue | None


def send_dead_letter(queues: Queues, dead: Queue, letter: Letter, message_id: str, reason: DeadLetterReason) -> None:
    """Write a dead letter to its queue. It may block: call it in a thread.

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
        (error,) = queues.send(dead, [entry])
        if type(error) is not BackendError:
            break
    if error is not None:
        raise error


class SQSDeadLetters(DeadLetterStore):
    """The dead letters of one subscription.

    Args:
        subscription: Its name.
        queues: The queues of the bus.
        topics: The topics of the bus.
    """

    def __init__(self, subscription: str, queues: Queues, topics: Topics) -> None:
        self._subscription = subscription
        self._queues = queues
        self._topics = topics

    async def list(self, limit: int) -> list[DeadLetter]:
        """Return the oldest dead letters."""
        letters = await SETTLING.run(self._received, max(limit, _MAX_SORTED))
        return sorted(letters, key=lambda letter: letter.dead_since)[:limit]

    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        """Send dead letters to the subscription's queue.

        Raises:
            Unsupported: The subscription is pushed, and has no queue for undelivered messages.
        """
        return await SETTLING.run(self._replay, letter_ids)

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        """Delete dead letters."""
        return await SETTLING.run(self._purge, letter_ids)

    async def keep(self, received: Received, reason: DeadLetterReason) -> None:
        """Store a message that was pushed."""
        await SETTLING.run(self._keep, received, reason)

    # --- in threads ---

    def _keep(self, received: Received, reason: DeadLetterReason) -> None:
        name = dead_queue_name(queue_name(self._subscription))
        dead = self._queues.find(name)
        if dead is None:
            raise NotFound(f"There is no dead-letter queue {name!r}.", resource=name)
        assert isinstance(received, Pushed)
        letter = Letter(received.envelope, {}, raw=False)
        send_dead_letter(self._queues, dead, letter, received.message_id, reason)

    def _received(self, most: int) -> Sequence[DeadLetter]:
        place = self._place()
        letters = []
        if place is not None:
            with _Sweep(self._queues, place.dead) as sweep:
                for batch in sweep.batches():
                    letters += [to_dead_letter(one, self._subscription, raw=place.raw) for one in batch]
                    if len(letters) >= most:
                        break
        return letters

    def _replay(self, letter_ids: Sequence[str] | None) -> int:
        place = self._place()
        if place is None:
            return 0
        if place.queue is None:
            raise Unsupported(
                f"{self._subscription!r} has no queue: a pushed message cannot be delivered to it alone again.",
                resource=self._subscription,
            )
        replayed = 0
        with _Sweep(self._queues, place.dead) as sweep:
            for chosen in self._chosen(sweep, place, letter_ids, each_once=True):
                entries = [
                    replayed_entry(message, letter, raw=place.raw, fifo=place.queue.fifo) for message, letter in chosen
                ]
                results = self._queues.send(place.queue, entries)
                sent = [message for (message, _), error in zip(chosen, results, strict=True) if error is None]
                sweep.delete(sent)
                replayed += len(sent)
                for error in results:
                    if error is not None:
                        raise error
        return replayed

    def _purge(self, letter_ids: Sequence[str] | None) -> int:
        place = self._place()
        purged = 0
        if place is not None:
            with _Sweep(self._queues, place.dead) as sweep:
                for chosen in self._chosen(sweep, place, letter_ids, each_once=False):
                    sweep.delete([message for message, _ in chosen])
                    purged += len(chosen)
        return purged

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

    def _chosen(
        self, sweep: _Sweep, place: _Place, letter_ids: Sequence[str] | None, *, each_once: bool
    ) -> Iterator[Sequence[tuple[Message, DeadLetter]]]:
        wanted = None if letter_ids is None else set(letter_ids)
        seen: set[str] = set()  # a message that dies again meanwhile is left for the next replay
        for batch in sweep.batches():
            letters = [(message, to_dead_letter(message, self._subscription, raw=place.raw)) for message in batch]
            chosen = [
                (message, letter)
                for message, letter in letters
                if (wanted is None or letter.letter_id in wanted) and letter.message_id not in seen
            ]
            if each_once:
                seen |= {letter.message_id for _, letter in chosen}
            if chosen:
                yield chosen
            if wanted is not None:
                wanted -= {letter.letter_id for _, letter in chosen}
                if not wanted:
                    return


class _Sweep:
    """Receives each message of a queue once. At the end of the ``with``, those not deleted become visible again.

    SQS has no way to look at a queue but receiving, which hides messages from others.

    Args:
        queues: The queues of the bus.
        queue: Which one.
    """

    def __init__(self, queues: Queues, queue: Queue) -> None:
        self._queues = queues
        self._queue = queue
        self._seen: set[str] = set()
        self._hidden: dict[str, str] = {}  # only the receipts: there may be many letters, and large ones

    def __enter__(self) -> _Sweep:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Errors are ignored: the messages become visible within a minute anyway.
        self._queues.hide(self._queue, list(self._hidden.values()), 0)

    def batches(self) -> Iterator[list[Message]]:
        """Receive until nothing comes, or nothing new."""
        repeats = 0
        while repeats < _MAX_REPEATS:
            with mapped_errors("the queue", self._queue.name):
                answer = self._queues.sqs.receive_message(
                    QueueUrl=self._queue.url,
                    MaxNumberOfMessages=MAX_ENTRIES,
                    WaitTimeSeconds=1,  # without a wait SQS asks only some of its servers
                    VisibilityTimeout=_HIDDEN_SECONDS,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
                )
            came: Sequence[Message] = answer.get("Messages") or ()
            new = [message for message in came if message["MessageId"] not in self._seen]
            for message in came:
                self._seen.add(message["MessageId"])
                self._hidden[message["MessageId"]] = message["ReceiptHandle"]
            repeats = 0 if new else repeats + 1
            if new:
                yield new
            elif not came:
                return

    def delete(self, messages: Sequence[Message]) -> None:
        """Delete messages that were received.

        Raises:
            BackendError: Some were not deleted.
        """
        receipts = [message["ReceiptHandle"] for message in messages]
        for message, error in zip(messages, self._queues.delete(self._queue, receipts), strict=True):
            if error is not None:
                raise error
            self._hidden.pop(message["MessageId"], None)
