"""What the contract of the message bus needs of a backend's author."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from totoms.bus import MessageBus


class MessageBusHarness(ABC):
    """One test's hold on a broker. What a test makes, it does not share: topics have new names each time.

    Attributes:
        virtual_clock: Whether `advance` moves the broker's clock instead of waiting.
        lease_seconds: How long a lease of this broker lasts here. Make it short where there is no virtual clock.
        patience: Seconds within which what must happen, happens.
    """

    virtual_clock: ClassVar[bool] = False
    lease_seconds: float = 2.0
    patience: float = 20.0

    @abstractmethod
    async def create_topic(self) -> str:
        """Make a topic with a new name; return the provider's identifier, as the topic's secret holds it."""

    @abstractmethod
    async def missing_topic(self) -> str | None:
        """Return an identifier as of a topic that does not exist; None where a topic exists by being named."""

    @abstractmethod
    async def connect(self, topics: Mapping[str, str]) -> MessageBus:
        """Return a new bus that shares nothing with those before but the broker.

        In an arrangement of several processes each lives in one of its own. The harness closes it at the end, unless
        the test did.

        Args:
            topics: From logical name to the provider's identifier.
        """

    @abstractmethod
    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        """Publish bytes to a topic as a program without totoms would.

        Args:
            topic: The provider's identifier.
            body: The bytes.
            attributes: What travels beside them.
        """

    @abstractmethod
    def outage(self) -> AbstractAsyncContextManager[None]:
        """Have the broker out of reach, for all buses, while the block runs; it keeps what it has."""

    async def advance(self, seconds: float) -> None:
        """Let time pass for the broker: wait, or move its clock."""
        await asyncio.sleep(seconds)

    @abstractmethod
    async def close(self) -> None:
        """Close every bus and remove what was made."""
