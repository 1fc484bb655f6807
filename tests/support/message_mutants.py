"""Message buses that are broken where they receive, settle and declare, each in one way, for the contract to find."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from totoms.bus import DEAD_LETTERS, DELAY, ORDERING, PULL, QUEUES
from totoms.context import new_cid
from totoms.envelope import DeadLetter, DeadLetterReason, Outgoing, Received, Subscription
from totoms.errors import BackendError, LeaseLost
from totoms.local.bus import LocalMessageBus

Results = Sequence[BackendError | None]


class BlocksKeysOfDeadMessages(LocalMessageBus):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._nack(received, 1e9)


class ForgetsAttempts(LocalMessageBus):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        batch = await super()._receive(subscription, max_messages, wait)
        for one in batch:
            one.attempt = 1
        return batch


class GivesNewIdsOnRedelivery(LocalMessageBus):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        batch = await super()._receive(subscription, max_messages, wait)
        for one in batch:
            one.message_id = one.message_id if one.attempt == 1 else new_cid()
        return batch


class LeasesMoreThanIsAskedFor(LocalMessageBus):
    """It keeps what is left over for the next time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept: list[Received] = []

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        if not self._kept:
            self._kept = await super()._receive(subscription, max_messages + 10, wait)
        batch, self._kept = self._kept[:max_messages], self._kept[max_messages:]
        return batch


class ReturnsMoreThanIsAskedFor(LocalMessageBus):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await super()._receive(subscription, 2 * max_messages + 10, wait)


class LeavesItsPollOpen(LocalMessageBus):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await asyncio.shield(super()._receive(subscription, max_messages, wait))

    async def _stop_receiving(self, subscription: Subscription) -> None: ...


class LosesNacked(LocalMessageBus):
    async def _nack(self, received: Received, delay: float) -> None:
        await super()._ack([received])


class IgnoresBackoff(LocalMessageBus):
    async def _nack(self, received: Received, delay: float) -> None:
        await super()._nack(received, 0.0)


class GivesUpTooEarly(LocalMessageBus):
    async def _nack(self, received: Received, delay: float) -> None:
        if received.attempt < 2:
            await super()._nack(received, delay)
        else:
            await super()._dead_letter(received, DeadLetterReason("attempts_exhausted", "", "", received.attempt))


class PublishesACopyInsteadOfRetrying(LocalMessageBus):
    async def _nack(self, received: Received, delay: float) -> None:
        await super()._ack([received])
        topic = received.subscription.topic
        await super()._publish([Outgoing(received.body, received.message_id, received.attributes, topic, delay=delay)])


class DropsWhatWasPrefetched(LocalMessageBus):
    async def _release(self, batch: Sequence[Received]) -> None:
        await super()._ack(batch)


class CountsWhatWasPrefetched(LocalMessageBus):
    async def _release(self, batch: Sequence[Received]) -> None:
        for one in batch:
            await super()._nack(one, 0.0)


class AcksAnothersLease(LocalMessageBus):
    async def _ack(self, batch: Sequence[Received]) -> Results:
        results = await super()._ack(batch)
        late = [(one.lease,) for one, result in zip(batch, results, strict=True) if result]
        await self._do(lambda connection: connection.executemany("DELETE FROM deliveries WHERE id = ?", late))
        return results


class AcksOnlyTheFirst(LocalMessageBus):
    async def _ack(self, batch: Sequence[Received]) -> Results:
        await super()._ack(batch[:1])
        return [None] * len(batch)


class FailsToAckTwice(LocalMessageBus):
    async def _ack(self, batch: Sequence[Received]) -> Results:
        results = await super()._ack(batch)
        if any(results):
            raise BackendError("No such message.")
        return results


class NacksWhatIsSettled(LocalMessageBus):
    async def _nack(self, received: Received, delay: float) -> None:
        try:
            await super()._nack(received, delay)
        except LeaseLost:
            topic = received.subscription.topic
            await super()._publish([Outgoing(received.body, received.message_id, received.attributes, topic)])


class RenewsNoLease(LocalMessageBus):
    async def _extend(self, batch: Sequence[Received]) -> Results:
        return [None] * len(batch)


class HidesLostLeases(LocalMessageBus):
    async def _extend(self, batch: Sequence[Received]) -> Results:
        await super()._extend(batch)
        return [None] * len(batch)


class GivesNoReasons(LocalMessageBus):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._dead_letter(received, DeadLetterReason("", attempts=reason.attempts))


class LosesDeadLetters(LocalMessageBus):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._ack([received])


class KeepsDeadLettersInTheQueueToo(LocalMessageBus):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._dead_letter(replace(received, lease=None), reason)
        await super()._nack(received, 0.0)


class ListsAllDeadLetters(LocalMessageBus):
    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return await super()._list_dead_letters(subscription, 1000)


class ListsTheNewestFirst(LocalMessageBus):
    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return (await super()._list_dead_letters(subscription, limit))[::-1]


class ListsNothingForUnknownSubscriptions(LocalMessageBus):
    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        try:
            return await super()._list_dead_letters(subscription, limit)
        except BackendError:
            return []


class ReplaysAsNew(LocalMessageBus):
    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        letters = await super()._list_dead_letters(subscription, 1000)
        chosen = [one for one in letters if letter_ids is None or one.letter_id in letter_ids]
        topic = next(iter(self.topics.values()))
        await super()._publish([Outgoing(one.body, new_cid(), one.attributes, topic) for one in chosen])
        return await super()._purge_dead_letters(subscription, [one.letter_id for one in chosen])


class ReplaysToEverybody(LocalMessageBus):
    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        letters = await super()._list_dead_letters(subscription, 1000)
        chosen = [one for one in letters if letter_ids is None or one.letter_id in letter_ids]
        topic = next(iter(self.topics.values()))
        await super()._publish([Outgoing(one.body, one.message_id, one.attributes, topic) for one in chosen])
        return await super()._purge_dead_letters(subscription, [one.letter_id for one in chosen])


class PurgesAll(LocalMessageBus):
    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await super()._purge_dead_letters(subscription, None)


class WithoutExtras(LocalMessageBus):
    capabilities = LocalMessageBus.capabilities - {ORDERING, DELAY, QUEUES, DEAD_LETTERS}


class IgnoresWhatItHasNot(WithoutExtras):
    def _require(self, capability: str) -> None: ...


class WithoutPull(LocalMessageBus):
    capabilities = LocalMessageBus.capabilities - {PULL}

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await super(LocalMessageBus, self)._receive(subscription, max_messages, wait)


class PullsUndeclared(LocalMessageBus):
    capabilities = LocalMessageBus.capabilities - {PULL}
