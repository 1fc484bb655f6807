"""The harness that the author of a backend writes for the message bus contract."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from totoms.messages.bus import MessageBus
from totoms.messages.subscription import Subscription


class MessageBusHarness(ABC):
    """Prepares the broker for one test. Each test uses new topics.

    Attributes:
        virtual_clock: Whether `advance` moves the broker's clock instead of waiting.
        lease_seconds: How long a lease lasts: long enough not to end by itself on a busy machine, and shorter than
            `patience`.
        short_lease_seconds: How long it lasts in tests that let leases end. Make it short without a virtual clock.
        patience: The longest that a test waits for something, in seconds.
    """

    virtual_clock: ClassVar[bool] = False
    lease_seconds: float = 20.0
    short_lease_seconds: float = 2.0
    patience: float = 120.0

    @abstractmethod
    async def create_topic(self) -> str:
        """Create a topic with a new name; return the provider's identifier, as in the topic's secret."""

    @abstractmethod
    async def missing_topic(self) -> str | None:
        """Return the identifier of a topic that does not exist; None if naming a topic creates it."""

    @abstractmethod
    async def connect(self, topics: Mapping[str, str]) -> MessageBus:
        """Return a new bus that shares only the broker with the others.

        In an arrangement of several processes each bus is in its own process. Close it in `close`, if the test has not.

        Args:
            topics: The provider's identifiers by logical name.
        """

    @abstractmethod
    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        """Publish bytes to a topic as a program without totoms would.

        Args:
            topic: The provider's identifier.
            body: The bytes.
            attributes: The message attributes.
        """

    @abstractmethod
    def outage(self) -> AbstractAsyncContextManager[None]:
        """Make the broker unreachable for all buses while the block runs. It must keep its messages."""

    async def refuse(self, marker: str) -> bool:
        """Have the broker refuse each request with a message whose body contains `marker`, like an invalid one.

        It must refuse the whole request. Override this if a request can hold several messages.

        Returns:
            Whether the broker does so; False here.
        """
        return False

    async def delete_subscription(self, subscription: Subscription) -> bool:
        """Delete a subscription at the broker, as an operator could. Its dead letters may stay.

        Returns:
            Whether it was deleted; False here.
        """
        return False

    def shorten_leases(self) -> None:
        """Have buses that are created from now on use `short_lease_seconds`."""
        self.lease_seconds = self.short_lease_seconds

    async def advance(self, seconds: float) -> None:
        """Wait, or move the broker's clock."""
        await asyncio.sleep(seconds)

    @abstractmethod
    async def close(self) -> None:
        """Close every bus and delete what the harness created."""
