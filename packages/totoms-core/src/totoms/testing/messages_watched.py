"""What passes between a consumer and its bus: noted, and held up when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from totoms.bus import MessageBus
from totoms.envelope import DeadLetterReason, Received, Subscription
from totoms.errors import BackendError


class News:
    """Wakes whoever waits for something that a test can see.

    Args:
        patience: Seconds within which it must happen.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Have all who wait look again."""
        self._event.set()

    async def until(self, condition: Callable[[], Any], what: str, instead: Callable[[], object] = lambda: "") -> None:
        """Wait until `condition` holds.

        Args:
            condition: Looked at whenever something has happened.
            what: What is waited for.
            instead: What there is when it did not happen.

        Raises:
            AssertionError: It did not within `patience`.
        """
        try:
            async with asyncio.timeout(self._patience):
                while not condition():
                    self._event.clear()
                    await self._event.wait()
        except TimeoutError:
            raise AssertionError(f"not within {self._patience:g} s: {what} {instead()}") from None


@dataclass(frozen=True, slots=True)
class Settled:
    """One message that the consumer told the bus about.

    Attributes:
        operation: ``ack``, ``nack``, ``release`` or ``dead_letter``.
        received: The message.
        delay: Seconds, of a nack.
        reason: Why it is given up, of a dead letter.
        error: What the bus said of it, or None.
    """

    operation: str
    received: Received
    delay: float = 0.0
    reason: DeadLetterReason | None = None
    error: BackendError | None = None


class WatchedBus:
    """Stands between a consumer and its bus: notes what passes, and holds it up when the test says so.

    Args:
        bus: Does what is asked.
        news: Told of each step.

    Attributes:
        asked: For each receive that has returned, how many messages were asked for and how many came.
        settled: What was settled, in order.
        renewals: How often leases were renewed.
    """

    def __init__(self, bus: MessageBus, news: News) -> None:
        self.asked: list[tuple[int, int]] = []
        self.received: list[Received] = []
        self.settled: list[Settled] = []
        self.renewals = 0
        self.polling = False
        self._bus = bus
        self._news = news
        self._gates: dict[str, asyncio.Event] = {}

    def hold(self, operation: str) -> None:
        """Hold up ``receive`` (what it returns) or ``extend`` (before it is asked) until :meth:`let`."""
        self._gates[operation] = asyncio.Event()

    def let(self, operation: str) -> None:
        """Hold it up no longer."""
        gate = self._gates.pop(operation, None)
        if gate is not None:
            gate.set()

    def which(self, operation: str) -> list[Settled]:
        """Return what was settled so."""
        return [one for one in self.settled if one.operation == operation]

    async def _pass(self, operation: str) -> None:
        gate = self._gates.get(operation)
        if gate is not None:
            await gate.wait()

    def _note(self, *settled: Settled) -> None:
        self.settled.extend(settled)
        self._news.tell()

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        self.polling = True
        self._news.tell()
        try:
            batch = await self._bus._receive(subscription, max_messages, wait)
        finally:
            self.polling = False
        self.asked.append((max_messages, len(batch)))
        self.received.extend(batch)
        self._news.tell()
        if batch:
            await self._pass("receive")
        return batch

    async def _stop_receiving(self, subscription: Subscription) -> None:
        await self._bus._stop_receiving(subscription)
        self.let("receive")

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        results = await self._bus._ack(batch)
        self._note(*(Settled("ack", one, error=error) for one, error in zip(batch, results, strict=True)))
        return results

    async def _nack(self, received: Received, delay: float) -> None:
        await self._bus._nack(received, delay)
        self._note(Settled("nack", received, delay=delay))

    async def _release(self, batch: Sequence[Received]) -> None:
        await self._bus._release(batch)
        self._note(*(Settled("release", one) for one in batch))

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        await self._pass("extend")
        results = await self._bus._extend(batch)
        self.renewals += 1
        self._news.tell()
        return results

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await self._bus._dead_letter(received, reason)
        self._note(Settled("dead_letter", received, reason=reason))
