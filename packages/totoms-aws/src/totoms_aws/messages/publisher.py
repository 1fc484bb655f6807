"""Publishing to topics and queues."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from functools import partial
from typing import Final

from totoms.errors import BackendError, MessageTooLarge, NotFound, Unsupported
from totoms.plugin import Batcher, Outgoing
from totoms_aws.clients import PUBLISHING
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.encoding import size_of, to_attributes, to_text
from totoms_aws.messages.naming import is_fifo, is_url, message_group, queue_name
from totoms_aws.messages.queues import MAX_BYTES, MAX_ENTRIES, Entry, Queues, Results, send_together
from totoms_aws.messages.topics import Topics

_FLIGHTS: Final = 4
"""Requests in flight to one destination before more messages gather."""
_FULL_FLIGHTS: Final = 16
"""The same where there are enough to fill a request."""
_FIFO_SHARDS: Final = 8
"""Requests in flight to a FIFO destination. It keeps the order of a message group
(https://docs.aws.amazon.com/sns/latest/dg/fifo-message-grouping.html): all messages of a group go through one batcher,
with one request in flight."""
_MAX_BATCHERS: Final = 1000

_Batchers = dict[tuple[bool, str, int], Batcher[Entry]]


class Publisher:
    """Sends the messages of one bus, in as few requests as concurrent publishers make possible.

    Args:
        topics: The topics.
        queues: The queues.
    """

    def __init__(self, topics: Topics, queues: Queues) -> None:
        self._topics = topics
        self._queues = queues
        self._batchers: _Batchers = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def publish(self, batch: Sequence[Outgoing]) -> list[BackendError | None]:
        """Send messages; return a result for each, in order."""
        sent = [self._add(outgoing) for outgoing in batch]
        return [one if isinstance(one, BackendError) else await one for one in sent]

    async def flush(self) -> None:
        """Wait until every message has its result."""
        await asyncio.gather(*(batcher.flush() for batcher in self._batchers.values()))

    def _add(self, outgoing: Outgoing) -> asyncio.Future[BackendError | None] | BackendError:
        to_topic = outgoing.topic is not None
        destination = outgoing.topic or outgoing.queue or ""
        if not to_topic and destination.startswith("arn:"):
            return Unsupported(f"{destination!r} is an ARN: a queue is given by its name or URL.", resource=destination)
        try:
            text = to_text(outgoing.body)
        except Unsupported as error:
            return error
        attributes = to_attributes(outgoing.attributes)
        size = size_of(text, attributes)
        if size > MAX_BYTES:  # a few characters take more bytes than the core counts
            return MessageTooLarge(
                f"The message takes {size} bytes on AWS; the limit is {MAX_BYTES}.", resource=destination
            )
        entry: Entry = {"Message" if to_topic else "MessageBody": text, "MessageAttributes": attributes}
        shard = 0
        if is_fifo(destination):
            # A message without a key has its own group, so that it waits for no other.
            key = outgoing.ordering_key
            group = outgoing.message_id if key is None else message_group(key)
            entry |= {"MessageGroupId": group, "MessageDeduplicationId": outgoing.message_id}
            shard = zlib.crc32(group.encode()) % _FIFO_SHARDS
        return self._batcher(destination, shard, to_topic=to_topic).add(entry, size)

    def _batcher(self, destination: str, shard: int, *, to_topic: bool) -> Batcher[Entry]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._batchers = loop, {}
        found = self._batchers.get((to_topic, destination, shard))
        if found is None:
            if len(self._batchers) >= _MAX_BATCHERS:
                self._batchers = {where: other for where, other in self._batchers.items() if not other.idle}
            send = partial(PUBLISHING.run, self._to_topic if to_topic else self._to_queue, destination)
            flights, full_flights = (1, 1) if is_fifo(destination) else (_FLIGHTS, _FULL_FLIGHTS)
            found = self._batchers[to_topic, destination, shard] = Batcher(
                send, max_items=MAX_ENTRIES, max_bytes=MAX_BYTES, flights=flights, full_flights=full_flights
            )
        return found

    # --- in threads ---

    def _to_topic(self, identifier: str, entries: list[Entry]) -> Results:
        about = ("the topic", identifier)
        with mapped_errors(*about):
            arn = str(self._topics.resolve(identifier))
            sns = self._topics.sns
        return send_together(
            lambda numbered: sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=numbered),
            lambda entry: sns.publish(TopicArn=arn, **entry),
            entries,
            about,
        )

    def _to_queue(self, queue: str, entries: list[Entry]) -> Results:
        name = queue if is_url(queue) else queue_name(queue)
        results: Results = []
        for _ in range(2):
            results = self._queues.send(self._queues.find_or_create(name), entries)
            if is_url(queue) or not all(isinstance(result, NotFound) for result in results):
                break  # else the queue was deleted after it was found
        return results
