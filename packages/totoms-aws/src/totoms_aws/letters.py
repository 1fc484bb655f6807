"""Dead letters: messages in a queue of their own, with the reason as an attribute.

The queue holds each as its subscription's queue held it, so one that SQS or SNS moved there by itself is a letter as
well. Everything here may block: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from totoms.envelope import DeadLetter, DeadLetterReason, Received
from totoms.errors import BackendError, NotFound, Unsupported
from totoms_aws.batches import Entry, packed
from totoms_aws.forms import OURS, Attributes, size_of, to_attributes
from totoms_aws.leases import Lease
from totoms_aws.names import dead_queue_name, is_fifo, queue_name
from totoms_aws.queues import Queues, redriven_to
from totoms_aws.reasons import group_of, is_raw, letter_of, with_reason
from totoms_aws.returning import named
from totoms_aws.sources import Sources
from totoms_aws.sweeps import Message, Sweep

_MOST_SORTED: Final = 1000
"""Of so many letters the oldest are listed: SQS has no order, so all must be received to know which those are."""


@dataclass(slots=True)
class Pushed:
    """What a message that was pushed has in place of a lease.

    Attributes:
        envelope: What SNS sent.
    """

    envelope: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the letters of a subscription are, how they are written, and the queue they came from, if any."""

    name: str
    url: str
    raw: bool
    queue: str = ""
    queue_url: str = ""


class DeadLetters:
    """Keeps, lists, delivers again and deletes dead letters.

    Args:
        queues: Where they are.
        sources: Knows how messages came there.
    """

    def __init__(self, queues: Queues, sources: Sources) -> None:
        self._queues = queues
        self._sources = sources

    def keep(self, received: Received, reason: DeadLetterReason) -> None:
        """Put a message, with the reason, into its dead-letter queue."""
        held: Lease | Pushed = received.lease
        if isinstance(held, Lease):
            source, attributes, text, once = (
                held.source,
                held.attributes,
                held.message["Body"],
                held.message["MessageId"],
            )
            name, url, raw, group = source.dead_name, source.dead_url, source.raw, held.group
        else:
            name, attributes, text, once = (
                dead_queue_name(queue_name(received.subscription.name)),
                {},
                held.envelope,
                "",
            )
            found, raw, group = self._queues.url_of(name), False, ""
            if found is None:
                raise NotFound(f"There is no dead-letter queue {name!r}.", resource=name)
            url = found
        error: BackendError | None = None
        # Of a message that was as large as can be, the body is what counts.
        for wanted in with_reason(attributes, reason, message_id=received.message_id, raw=raw, group=group):
            entry: Entry = {"MessageBody": text, "MessageAttributes": wanted}
            if is_fifo(name):  # in a group of its own: else it would hide the others of its group from who lists them
                entry |= {"MessageGroupId": once, "MessageDeduplicationId": once}
            (error,) = self._queues.send(name, url, [entry])
            if error is None:
                return
            if type(error) is not BackendError:
                break
        assert error is not None
        raise error

    def listed(self, subscription: str, limit: int) -> list[DeadLetter]:
        """Return the oldest letters of a subscription."""
        place = self._place(subscription)
        letters: list[DeadLetter] = []
        if place is not None:
            with Sweep(self._queues, place.name, place.url) as sweep:
                for batch in sweep.batches():
                    letters += [letter_of(message, subscription, raw=place.raw) for message in batch]
                    if len(letters) >= max(limit, _MOST_SORTED):
                        break
        return sorted(letters, key=lambda letter: letter.dead_since)[:limit]

    def replay(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        """Put letters into the subscription's queue, where their attempts start over; return how many.

        Raises:
            Unsupported: The subscription is pushed, so there is no queue.
        """
        place = self._place(subscription)
        if place is None:
            return 0
        if not place.queue:
            raise Unsupported(
                f"{subscription!r} has no queue: what was pushed cannot be delivered again to it alone.",
                resource=subscription,
            )
        replayed = 0
        with Sweep(self._queues, place.name, place.url) as sweep:
            for chosen in _chosen(sweep, place, subscription, letter_ids, each_once=True):
                replayed += self._send_again(sweep, place, chosen)
        return replayed

    def purge(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        """Delete letters for good; return how many."""
        place = self._place(subscription)
        purged = 0
        if place is not None:
            with Sweep(self._queues, place.name, place.url) as sweep:
                for chosen in _chosen(sweep, place, subscription, letter_ids, each_once=False):
                    sweep.delete([message for message, _ in chosen])
                    purged += len(chosen)
        return purged

    def _send_again(self, sweep: Sweep, place: _Place, chosen: Sequence[tuple[Message, DeadLetter]]) -> int:
        entries = [_again(place, message, letter) for message, letter in chosen]
        replayed = 0
        for pack in packed([size_of(entry["MessageBody"], entry["MessageAttributes"]) for entry in entries]):
            results = self._queues.send(place.queue, place.queue_url, [entries[number] for number in pack])
            sent = [chosen[number][0] for number, error in zip(pack, results, strict=True) if error is None]
            sweep.delete(sent)
            replayed += len(sent)
            for error in results:
                if error is not None:
                    raise error
        return replayed

    def _place(self, subscription: str) -> _Place | None:
        names = queue_name(subscription), queue_name(subscription, fifo=True)
        for name in names:
            url = self._queues.url_of(name)
            if url is not None:
                attributes = self._queues.attributes_of(name, url)
                dead = redriven_to(attributes)[0].rpartition(":")[2] or dead_queue_name(name)
                dead_url = self._queues.url_of(dead)
                if dead_url is None:
                    return None
                return _Place(dead, dead_url, self._sources.are_raw(attributes), name, url)
        for dead in map(dead_queue_name, names):
            dead_url = self._queues.url_of(dead)
            if dead_url is not None:
                return _Place(dead, dead_url, raw=False)
        raise NotFound(f"There is no subscription {subscription!r}.", resource=subscription)


def _chosen(
    sweep: Sweep, place: _Place, subscription: str, letter_ids: Sequence[str] | None, *, each_once: bool
) -> Iterator[list[tuple[Message, DeadLetter]]]:
    wanted = None if letter_ids is None else set(letter_ids)
    seen: set[str] = set()  # what dies again while we are at it is left for the next time
    for batch in sweep.batches():
        letters = [(message, letter_of(message, subscription, raw=place.raw)) for message in batch]
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


def _again(place: _Place, message: Message, letter: DeadLetter) -> Entry:
    text, given = str(message["Body"]), cast(Attributes, message.get("MessageAttributes") or {})
    if place.raw and not is_raw(message, raw=place.raw):  # it came in an envelope, which is no longer used
        text, given = letter.body.decode("utf-8", "surrogatepass"), to_attributes(letter.attributes)
    attributes = {name: value for name, value in given.items() if not name.startswith(OURS)}
    if place.raw:
        attributes = named(attributes, letter.message_id)
    entry: Entry = {"MessageBody": text, "MessageAttributes": attributes}
    if is_fifo(place.queue):
        again = {"MessageGroupId": group_of(message), "MessageDeduplicationId": f"replay-{letter.letter_id}"}
        return {**entry, **again}
    return {**entry, "DelaySeconds": 0}  # whatever the queue's own delay
