"""Receive and settle the messages of one subscription."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from totoms.errors import BackendError
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.subscription import Subscription


@dataclass(slots=True, eq=False)
class Received:
    """One delivery of a message, leased (pull) or from a push request.

    Attributes:
        body: The bytes that were published.
        message_id: The id that `publish_message` returned for it.
        attempt: 1 on the first delivery, then growing. The core sets it for pushed messages.
        subscription: The subscription it came from.
        attributes: The attributes of the broker's message.
        lease: The right to settle this delivery: a `Lease`, or the backend's own handle. None for a pushed message.
        ordering_key: As published.
        attributes_vouched: Whether the broker vouches for `attributes`. If not, the message type is never read from
            them.
        undecodable: Why the broker's envelope could not be decoded; then `body` is the envelope. Empty if it could.
        delivery_id: The broker's own, authenticated id of a pushed message, by which failures are counted; empty if
            there is none.
    """

    body: bytes
    message_id: str
    attempt: int
    subscription: Subscription
    attributes: Mapping[str, str] = field(default_factory=dict)
    lease: Any = None
    ordering_key: str | None = None
    attributes_vouched: bool = True
    undecodable: str = ""
    delivery_id: str = ""


class Receiver(ABC):
    """Receives and settles the messages of one subscription. `MessageBus._subscribe` returns it.

    Methods are called on the event loop and raise `BackendError` only. Most backends subclass
    :class:`totoms.messages.leases.LeasingReceiver` instead, which tracks leases.

    Args:
        subscription: The subscription to receive from.

    Attributes:
        lease_seconds: How long a lease lasts from its start and from each renewal; 0 if messages have none.
    """

    lease_seconds: float = 0.0

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription

    @abstractmethod
    async def receive(self, max_messages: int, wait: float) -> list[Received]:
        """Lease up to `max_messages`; wait up to `wait` seconds for the first. One task at a time calls this.

        If cancelled, release the messages received so far.
        """

    @abstractmethod
    async def ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Settle messages. Return for each None, or LeaseLost if its lease expired."""

    @abstractmethod
    async def nack(self, received: Received, delay: float) -> None:
        """Have the message delivered again after `delay` seconds, and count the attempt."""

    @abstractmethod
    async def release(self, batch: Sequence[Received]) -> None:
        """Give back messages that no handler has started: available at once, without counting an attempt."""

    @abstractmethod
    async def extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Renew leases for `lease_seconds` from now. Return for each None, or LeaseLost if it expired."""

    @abstractmethod
    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        """Store the message and the reason as a dead letter, then settle it.

        Returns:
            The id of the dead letter, for the log; None if the broker does not tell it.
        """

    async def stop(self) -> None:
        """Make a waiting `receive` return soon with what it has. By default, its `wait` runs out.

        A receiver that was stopped is not used to receive again, only to settle.
        """
