"""A bus whose receivers are reached through the bus itself: for tests that hold several, and for broken buses.

`ByName` is mixed into a backend's bus. Each operation of a receiver is a method of the bus then, which a test calls and
a mutant overrides; what the core gets from `_subscribe` goes through these methods as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from totoms.errors import BackendError
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason, DeadLetterStore
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Subscription

Results = Sequence[BackendError | None]


class Through(Receiver):
    """Calls the bus."""

    def __init__(self, bus: Any, subscription: Subscription, own: Receiver | None = None) -> None:
        super().__init__(subscription)
        self._bus = bus
        self._own = own

    @property
    def lease_seconds(self) -> float:  # type: ignore[override]
        return self._bus._lease_of(self.subscription)  # type: ignore[no-any-return]

    async def receive(self, max_messages: int, wait: float) -> list[Received]:
        return await self._bus._receive(self.subscription, max_messages, wait)  # type: ignore[no-any-return]

    async def ack(self, batch: Sequence[Received]) -> Results:
        return await self._bus._ack(batch)  # type: ignore[no-any-return]

    async def nack(self, received: Received, delay: float) -> None:
        await self._bus._nack(received, delay)

    async def release(self, batch: Sequence[Received]) -> None:
        await self._bus._release(batch)

    async def extend(self, batch: Sequence[Received]) -> Results:
        return await self._bus._extend(batch)  # type: ignore[no-any-return]

    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        return await self._bus._dead_letter(received, reason)  # type: ignore[no-any-return]

    async def stop(self) -> None:
        if self._own is not None and self._own is not self._bus._receivers[self.subscription.name]:
            await self._own.stop()  # of a subscription that vanished: another one has the name now
        else:
            await self._bus._stop_receiving(self.subscription)


class ThroughStore(DeadLetterStore):
    """Calls the bus."""

    def __init__(self, bus: Any, subscription: str) -> None:
        self._bus = bus
        self._subscription = subscription

    async def list(self, limit: int) -> list[DeadLetter]:
        return await self._bus._list_dead_letters(self._subscription, limit)  # type: ignore[no-any-return]

    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        return await self._bus._replay_dead_letters(self._subscription, letter_ids)  # type: ignore[no-any-return]

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        return await self._bus._purge_dead_letters(self._subscription, letter_ids)  # type: ignore[no-any-return]

    async def keep(self, received: Received, reason: DeadLetterReason) -> str | None:
        return await self._bus._dead_letter(received, reason)  # type: ignore[no-any-return]


class ByName:
    """Mix it in before the backend's bus."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receivers: dict[str, Receiver] = {}
        self._received_by: dict[Received, Receiver] = {}

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        made: Receiver = await super()._subscribe(subscription, create=create)  # type: ignore[misc]
        self._receivers[subscription.name] = made
        return Through(self, subscription, made)

    async def _undelivered(self, subscription: Subscription) -> Receiver | None:
        made: Receiver | None = await super()._undelivered(subscription)  # type: ignore[misc]
        if made is None:
            return None
        self._receivers[made.subscription.name] = made
        return Through(self, made.subscription)

    def _dead_letters(self, subscription: str) -> DeadLetterStore:
        return ThroughStore(self, subscription)

    def _store_of(self, subscription: str) -> DeadLetterStore:
        return super()._dead_letters(subscription)  # type: ignore[misc, no-any-return]

    def _by(self, received: Received) -> Receiver:
        return self._received_by.get(received) or self._receivers[received.subscription.name]

    def _lease_of(self, subscription: Subscription) -> float:
        return self._receivers[subscription.name].lease_seconds

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        receiver = self._receivers[subscription.name]
        batch = await receiver.receive(max_messages, wait)
        self._received_by.update(dict.fromkeys(batch, receiver))
        return batch

    async def _stop_receiving(self, subscription: Subscription) -> None:
        await self._receivers[subscription.name].stop()

    async def _ack(self, batch: Sequence[Received]) -> Results:
        return await self._by(batch[0]).ack(batch)

    async def _nack(self, received: Received, delay: float) -> None:
        await self._by(received).nack(received, delay)

    async def _release(self, batch: Sequence[Received]) -> None:
        await self._by(batch[0]).release(batch)

    async def _extend(self, batch: Sequence[Received]) -> Results:
        return await self._by(batch[0]).extend(batch)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        if received.lease is None:
            return await self._store_of(received.subscription.name).keep(received, reason)
        return await self._by(received).dead_letter(received, reason)

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return await self._store_of(subscription).list(limit)

    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await self._store_of(subscription).replay(letter_ids)

    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await self._store_of(subscription).purge(letter_ids)
