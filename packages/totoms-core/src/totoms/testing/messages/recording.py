"""Record the calls between a consumer and its receiver, and delay them for a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from totoms.errors import BackendError
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received, Receiver


class Progress:
    """Waits until a condition holds, checking it after each notification.

    Args:
        patience: The longest wait in seconds.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Have :meth:`until` check its condition again."""
        self._event.set()

    async def until(self, condition: Callable[[], Any], what: str, instead: Callable[[], object] = lambda: "") -> None:
        """Wait until `condition` holds.

        Args:
            condition: Checked after each notification.
            what: Describes the condition in the error.
            instead: Returns what there is instead, for the error.

        Raises:
            AssertionError: It did not hold within `patience`.
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
    """One message that the consumer settled.

    Attributes:
        operation: ``ack``, ``nack``, ``release`` or ``dead_letter``.
        received: The message.
        delay: The delay of a nack in seconds.
        reason: The reason of a dead letter.
        error: The error of the receiver, or None.
        letter_id: The id of the dead letter, if the backend tells it.
    """

    operation: str
    received: Received
    delay: float = 0.0
    reason: DeadLetterReason | None = None
    error: BackendError | None = None
    letter_id: str | None = None


class RecordingReceiver(Receiver):
    """Forwards the calls of a consumer to its receiver, records them, and delays them for a test.

    Args:
        receiver: The receiver.
        progress: Notified after each call.

    Attributes:
        asked: For each finished receive, `max_messages` and how many messages it returned.
        received: The received messages, in order.
        settled: The settled messages, in order.
        renewals: How often leases were extended.
        polling: Whether a receive is running.
    """

    def __init__(self, receiver: Receiver, progress: Progress) -> None:
        super().__init__(receiver.subscription)
        self.asked: list[tuple[int, int]] = []
        self.received: list[Received] = []
        self.settled: list[Settled] = []
        self.renewals = 0
        self.polling = False
        self._receiver = receiver
        self._progress = progress
        self._gates: dict[str, asyncio.Event] = {}

    def succeeded_by(self, receiver: Receiver) -> RecordingReceiver:
        """Return one for another receiver of the same subscription, which continues the records."""
        successor = RecordingReceiver(receiver, self._progress)
        successor.asked, successor.received, successor.settled = self.asked, self.received, self.settled
        successor.renewals = self.renewals
        return successor

    def hold(self, operation: str) -> None:
        """Delay the return of ``receive``, or the call of ``extend``, until :meth:`resume`."""
        self._gates[operation] = asyncio.Event()

    def resume(self, operation: str) -> None:
        """End the delay of :meth:`hold`."""
        gate = self._gates.pop(operation, None)
        if gate is not None:
            gate.set()

    def which(self, operation: str) -> list[Settled]:
        """Return the messages that were settled by `operation`."""
        return [one for one in self.settled if one.operation == operation]

    async def _pass(self, operation: str) -> None:
        gate = self._gates.get(operation)
        if gate is not None:
            await gate.wait()

    def _note(self, *settled: Settled) -> None:
        self.settled.extend(settled)
        self._progress.notify()

    @property
    def lease_seconds(self) -> float:  # type: ignore[override]
        """See `Receiver`."""
        return self._receiver.lease_seconds

    async def receive(self, max_messages: int, wait: float) -> list[Received]:
        """Receive messages and record them."""
        self.polling = True
        self._progress.notify()
        try:
            batch = await self._receiver.receive(max_messages, wait)
        finally:
            self.polling = False
        self.asked.append((max_messages, len(batch)))
        self.received.extend(batch)
        self._progress.notify()
        if batch:
            await self._pass("receive")
        return batch

    async def stop(self) -> None:
        """Stop the receiver."""
        await self._receiver.stop()
        self.resume("receive")

    async def ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Ack messages and record the results."""
        results = await self._receiver.ack(batch)
        self._note(*(Settled("ack", one, error=error) for one, error in zip(batch, results, strict=True)))
        return results

    async def nack(self, received: Received, delay: float) -> None:
        """Nack a message and record it."""
        await self._receiver.nack(received, delay)
        self._note(Settled("nack", received, delay=delay))

    async def release(self, batch: Sequence[Received]) -> None:
        """Release messages and record them."""
        await self._receiver.release(batch)
        self._note(*(Settled("release", one) for one in batch))

    async def extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Extend leases and count the call."""
        await self._pass("extend")
        results = await self._receiver.extend(batch)
        self.renewals += 1
        self._progress.notify()
        return results

    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        """Dead-letter a message and record it."""
        letter_id = await self._receiver.dead_letter(received, reason)
        self._note(Settled("dead_letter", received, reason=reason, letter_id=letter_id))
        return letter_id
