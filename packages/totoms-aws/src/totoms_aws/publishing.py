"""Publishing to topics, and straight to queues."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from totoms.envelope import Outgoing
from totoms.errors import BackendError, MessageTooLarge, NotFound, Unsupported
from totoms_aws.batches import MOST_BYTES, Entry, Line, Results
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import told_as
from totoms_aws.forms import size_of, to_attributes, to_text
from totoms_aws.names import group_of, is_fifo, is_url, queue_name
from totoms_aws.queues import Queues, for_each, in_one_request
from totoms_aws.topics import Topics

_MOST_LINES: Final = 1000
"""Destinations that are remembered; of more, those with nothing under way are forgotten."""


class Publisher:
    """Sends the messages of one bus, in as few requests as those who publish at the same time make possible.

    Args:
        settings: The region.
        topics: Knows their ARNs.
        queues: Knows their URLs.
    """

    def __init__(self, settings: AWSConfiguration, topics: Topics, queues: Queues) -> None:
        self._settings = settings
        self._topics = topics
        self._queues = queues
        self._lines: dict[tuple[bool, str], Line] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def publish(self, batch: Sequence[Outgoing]) -> list[BackendError | None]:
        """Send messages; a result for each, in order."""
        sent = [self._send(outgoing) for outgoing in batch]
        return [one if one is None or isinstance(one, BackendError) else await one for one in sent]

    async def flush(self) -> None:
        """Wait until everything under way has been answered."""
        while waiting := [done for line in self._lines.values() for done in line.pending]:
            await asyncio.wait(waiting)

    def _send(self, outgoing: Outgoing) -> asyncio.Future[BackendError | None] | BackendError:
        to_topic = outgoing.topic is not None
        destination = (outgoing.topic if to_topic else outgoing.queue) or ""
        in_order = is_fifo(destination)
        if outgoing.ordering_key is not None and not in_order:
            return no_order(destination)
        if not to_topic and destination.startswith("arn:"):
            return Unsupported(f"{destination!r} is an ARN: a queue is given by its name or URL.", resource=destination)
        try:
            text = to_text(outgoing.body)
        except Unsupported as error:
            return error
        attributes = to_attributes(outgoing.attributes)
        size = size_of(text, attributes)
        if size > MOST_BYTES:  # a few characters take more room than the core knows
            return MessageTooLarge(
                f"The message is {size} bytes as AWS carries it; the limit is {MOST_BYTES}.", resource=destination
            )
        entry: Entry = {"Message" if to_topic else "MessageBody": text, "MessageAttributes": attributes}
        if in_order:
            # Without a key no order is asked for: a group of its own keeps a message from waiting for any other.
            key = outgoing.ordering_key
            entry["MessageGroupId"] = outgoing.message_id if key is None else group_of(key)
            entry["MessageDeduplicationId"] = outgoing.message_id
        return self._line(destination, to_topic=to_topic).add(entry, size)

    def _line(self, destination: str, *, to_topic: bool) -> Line:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lines = loop, {}
        line = self._lines.get((to_topic, destination))
        if line is None:
            if len(self._lines) >= _MOST_LINES:
                self._lines = {where: other for where, other in self._lines.items() if other.pending}
            send = self._to_topic if to_topic else self._to_queue
            line = Line(lambda entries: send(destination, entries), in_order=is_fifo(destination))
            self._lines[to_topic, destination] = line
        return line

    # --- in threads ---

    def _to_topic(self, identifier: str, entries: list[Entry]) -> Results:
        try:
            with told_as("the topic", identifier):
                arn = str(self._topics.resolve(identifier))
                sns = client("sns", self._settings)
        except BackendError as error:
            return for_each(error, len(entries))
        return in_one_request(
            lambda numbered: sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=numbered),
            lambda entry: sns.publish(TopicArn=arn, **entry), entries, ("the topic", identifier),
        )  # fmt: skip

    def _to_queue(self, queue: str, entries: list[Entry]) -> Results:
        name = queue if is_url(queue) else queue_name(queue)
        results: Results = ()
        for _ in range(2):
            try:
                url = self._queues.find_or_make(name)
            except BackendError as error:
                return for_each(error, len(entries))
            results = self._queues.send(name, url, entries)
            if is_url(queue) or not all(isinstance(result, NotFound) for result in results):
                break  # else it was deleted since it was found
        return results


def no_order(destination: str) -> Unsupported:
    """Return the error for an ordering key, or an ordered subscription, where there is no order."""
    return Unsupported(
        f"{destination!r} keeps no order: that takes a FIFO topic or queue, whose name ends with .fifo.",
        resource=destination,
    )
