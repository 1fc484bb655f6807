"""Publishing messages to subjects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from totoms.errors import BackendError, NotFound
from totoms.plugin import Outgoing
from totoms_nats.clients import Connection
from totoms_nats.messages.encoding import to_headers
from totoms_nats.messages.subscriptions import Subscriptions, check_topic

_IN_FLIGHT: Final = 256
"""Messages of a batch that wait for their acknowledgement at the same time."""


class Publisher:
    """Publishes for one bus.

    Args:
        connection: The connection.
        subscriptions: Makes the stream of the queues, and knows what topics are called.
    """

    def __init__(self, connection: Connection, subscriptions: Subscriptions) -> None:
        self._connection = connection
        self._subscriptions = subscriptions

    async def publish(self, batch: Sequence[Outgoing]) -> list[BackendError | None]:
        """Publish messages and return a result for each."""
        results: list[BackendError | None] = []
        for start in range(0, len(batch), _IN_FLIGHT):
            results += await asyncio.gather(*(self._publish(one) for one in batch[start : start + _IN_FLIGHT]))
        return results

    async def _publish(self, outgoing: Outgoing) -> BackendError | None:
        headers = {**to_headers(outgoing.attributes), "Nats-Msg-Id": outgoing.message_id}
        subject = outgoing.topic or self._subscriptions.names.queue_subject(outgoing.queue or "")
        try:
            check_topic(subject)
            try:
                await self._connection.publish(subject, outgoing.body, headers)
            except NotFound:
                if outgoing.queue is None:
                    await self._subscriptions.stream_of(subject)  # NotFound if it is missing, Unavailable if not
                    raise
                await self._subscriptions.make_queues()
                await self._connection.publish(subject, outgoing.body, headers)
        except BackendError as error:
            return error
        return None
