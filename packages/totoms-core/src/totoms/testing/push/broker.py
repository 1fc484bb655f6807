"""A pushing broker that counts: every answer other than 2xx, and a refused connection, is a failed delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from totoms.testing.push.harness import PushHarness
from totoms.testing.push.service import PushedService


@dataclass(eq=False)
class _Message:
    body: bytes
    message_id: str
    deliveries: int = 0


class CountingBroker:
    """Delivers messages until they are settled, or until it gives up.

    It has no clock: each call of :meth:`deliver` or :meth:`fail_to_connect` is one delivery of each message.

    Args:
        harness: Builds the requests, and has the broker's limits.

    Attributes:
        given_up: The ids of messages that reached the limit of deliveries or got a final status.
    """

    def __init__(self, harness: PushHarness) -> None:
        self._harness = harness
        self._messages: list[_Message] = []
        self.given_up: list[str] = []

    @property
    def pending(self) -> list[str]:
        """The ids of the messages that are not settled."""
        return [message.message_id for message in self._messages]

    def publish(self, body: bytes, message_id: str) -> None:
        """Accept a message."""
        self._messages.append(_Message(body, message_id))

    def fail_to_connect(self, times: int = 1) -> None:
        """Count `times` deliveries of each message that did not reach the service."""
        for _ in range(times):
            for message in list(self._messages):
                self._count(message, None)

    async def deliver(self, service: PushedService) -> dict[str, int]:
        """Deliver each message once, concurrently; return the statuses by id."""
        messages = list(self._messages)
        statuses = await asyncio.gather(*(self.deliver_one(service, message.message_id) for message in messages))
        return {message.message_id: status for message, status in zip(messages, statuses, strict=True)}

    async def deliver_one(self, service: PushedService, message_id: str) -> int:
        """Deliver a message once and return the status."""
        message = next(one for one in self._messages if one.message_id == message_id)
        request = await self._harness.genuine(message.body, message_id=message_id, attempt=message.deliveries + 1)
        status = (await service.send(request)).status_code
        self._count(message, status)
        return status

    async def settle(self, service: PushedService) -> None:
        """Deliver until no message is pending."""
        while self._messages:
            await self.deliver(service)

    def _count(self, message: _Message, status: int | None) -> None:
        message.deliveries += 1
        if status is not None and 200 <= status < 300:
            self._remove([message])
        elif message.deliveries >= self._harness.max_deliveries or status in self._harness.final_statuses:
            self._remove([message])
            self.given_up.append(message.message_id)

    def _remove(self, messages: Iterable[_Message]) -> None:
        for message in messages:
            if message in self._messages:
                self._messages.remove(message)
