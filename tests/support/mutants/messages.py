"""Message buses that are broken where they receive, settle and declare, each in one way, for the contract to find."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from support.local.bus import BusOfTests
from totoms.context import new_cid
from totoms.errors import BackendError, LeaseLost, NotFound
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason
from totoms.messages.driver import BACKLOG, DEAD_LETTERS, DELAY, ORDERING, PULL, QUEUES
from totoms.messages.message import decode_message, encode_message
from totoms.messages.outgoing import Outgoing
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Backlog, Subscription

Results = Sequence[BackendError | None]


class BlocksKeysOfDeadMessages(BusOfTests):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._nack(received, 1e9)


class ForgetsAttempts(BusOfTests):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        batch = await super()._receive(subscription, max_messages, wait)
        for one in batch:
            one.attempt = 1
        return batch


class GivesNewIdsOnRedelivery(BusOfTests):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        batch = await super()._receive(subscription, max_messages, wait)
        for one in batch:
            one.message_id = one.message_id if one.attempt == 1 else new_cid()
        return batch


class LeasesMoreThanIsAskedFor(BusOfTests):
    """It keeps what is left over for the next time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept: list[Received] = []

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        if not self._kept:
            self._kept = await super()._receive(subscription, max_messages + 10, wait)
        batch, self._kept = self._kept[:max_messages], self._kept[max_messages:]
        return batch


class ReturnsMoreThanIsAskedFor(BusOfTests):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await super()._receive(subscription, 2 * max_messages + 10, wait)


class LeavesItsPollOpen(BusOfTests):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await asyncio.shield(super()._receive(subscription, max_messages, wait))

    async def _stop_receiving(self, subscription: Subscription) -> None: ...


class LosesNacked(BusOfTests):
    async def _nack(self, received: Received, delay: float) -> None:
        await super()._ack([received])


class IgnoresBackoff(BusOfTests):
    async def _nack(self, received: Received, delay: float) -> None:
        await super()._nack(received, 0.0)


class GivesUpTooEarly(BusOfTests):
    async def _nack(self, received: Received, delay: float) -> None:
        if received.attempt < 2:
            await super()._nack(received, delay)
        else:
            await super()._dead_letter(received, DeadLetterReason("attempts_exhausted", "", "", received.attempt))


class PublishesACopyInsteadOfRetrying(BusOfTests):
    async def _nack(self, received: Received, delay: float) -> None:
        await super()._ack([received])
        topic = received.subscription.topic
        await super()._publish([Outgoing(received.body, received.message_id, received.attributes, topic, delay=delay)])


class DropsWhatWasPrefetched(BusOfTests):
    async def _release(self, batch: Sequence[Received]) -> None:
        await super()._ack(batch)


class CountsWhatWasPrefetched(BusOfTests):
    async def _release(self, batch: Sequence[Received]) -> None:
        for one in batch:
            await super()._nack(one, 0.0)


class AcksAnothersLease(BusOfTests):
    async def _ack(self, batch: Sequence[Received]) -> Results:
        results = await super()._ack(batch)
        late = [(one.lease,) for one, result in zip(batch, results, strict=True) if result]
        await self._do(lambda connection: connection.executemany("DELETE FROM deliveries WHERE id = ?", late))
        return results


class AcksOnlyTheFirst(BusOfTests):
    async def _ack(self, batch: Sequence[Received]) -> Results:
        await super()._ack(batch[:1])
        return [None] * len(batch)


class FailsToAckTwice(BusOfTests):
    async def _ack(self, batch: Sequence[Received]) -> Results:
        results = await super()._ack(batch)
        if any(results):
            raise BackendError("No such message.")
        return results


class RefusesToAckWhatIsBeingRenewed(BusOfTests):
    renewing: frozenset[str] = frozenset()

    async def _extend(self, batch: Sequence[Received]) -> Results:
        self.renewing = frozenset(one.message_id for one in batch)
        try:
            return await super()._extend(batch)
        finally:
            self.renewing = frozenset()

    async def _ack(self, batch: Sequence[Received]) -> Results:
        refused = [one.message_id in self.renewing for one in batch]
        results = await super()._ack(batch)
        return [LeaseLost("It is over.") if no else result for no, result in zip(refused, results, strict=True)]


class NacksWhatIsSettled(BusOfTests):
    async def _nack(self, received: Received, delay: float) -> None:
        try:
            await super()._nack(received, delay)
        except LeaseLost:
            topic = received.subscription.topic
            await super()._publish([Outgoing(received.body, received.message_id, received.attributes, topic)])


class RenewsNoLease(BusOfTests):
    async def _extend(self, batch: Sequence[Received]) -> Results:
        return [None] * len(batch)


class HidesLostLeases(BusOfTests):
    async def _extend(self, batch: Sequence[Received]) -> Results:
        await super()._extend(batch)
        return [None] * len(batch)


class GivesNoReasons(BusOfTests):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._dead_letter(received, DeadLetterReason("", attempts=reason.attempts))


class LosesDeadLetters(BusOfTests):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._ack([received])


class KeepsWhatTheHandlerSaw(BusOfTests):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._dead_letter(replace(received, body=encode_message(decode_message(received.body))), reason)

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        letters = await super()._list_dead_letters(subscription, limit)
        return [replace(one, body=encode_message(decode_message(one.body))) for one in letters]


class KeepsDeadLettersInTheQueueToo(BusOfTests):
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._dead_letter(replace(received, lease=None), reason)
        await super()._nack(received, 0.0)


class TakesReplaysOneByOne(BusOfTests):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        batch = await super()._receive(subscription, 1, wait)
        await asyncio.sleep(0.5)  # until it looks again
        return batch


class ListsAllDeadLetters(BusOfTests):
    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return await super()._list_dead_letters(subscription, 1000)


class ListsTheNewestFirst(BusOfTests):
    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return (await super()._list_dead_letters(subscription, limit))[::-1]


class ListsNothingForUnknownSubscriptions(BusOfTests):
    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        try:
            return await super()._list_dead_letters(subscription, limit)
        except BackendError:
            return []


class ReplaysAsNew(BusOfTests):
    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        letters = await super()._list_dead_letters(subscription, 1000)
        chosen = [one for one in letters if letter_ids is None or one.letter_id in letter_ids]
        topic = next(iter(self.topics.values()))
        await super()._publish([Outgoing(one.body, new_cid(), one.attributes, topic) for one in chosen])
        return await super()._purge_dead_letters(subscription, [one.letter_id for one in chosen])


class ReplaysToEverybody(BusOfTests):
    async def _replay_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        letters = await super()._list_dead_letters(subscription, 1000)
        chosen = [one for one in letters if letter_ids is None or one.letter_id in letter_ids]
        topic = next(iter(self.topics.values()))
        await super()._publish([Outgoing(one.body, one.message_id, one.attributes, topic) for one in chosen])
        return await super()._purge_dead_letters(subscription, [one.letter_id for one in chosen])


class PurgesAll(BusOfTests):
    async def _purge_dead_letters(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        return await super()._purge_dead_letters(subscription, None)


class CountsHandledMessages(BusOfTests):
    """It never forgets one."""

    most = 0

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        found = await super()._backlog(subscription)
        assert found is not None
        self.most = max(self.most, found.messages)
        return replace(found, messages=self.most)


class CountsWhatNobodyLeases(BusOfTests):
    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        sql = "SELECT count(*) FROM deliveries WHERE token = 0"
        return Backlog(await self._do(lambda connection: connection.execute(sql).fetchone()[0]))


class CountsAnAttemptWhenItCounts(BusOfTests):
    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        sql = "UPDATE deliveries SET attempt = attempt + 1"
        await self._do(lambda connection: connection.execute(sql).rowcount)
        return await super()._backlog(subscription)


class GivesTheAgeOfTheNewest(BusOfTests):
    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        found = await super()._backlog(subscription)
        return found and replace(found, oldest_seconds=0.0 if found.messages else None)


class GivesTheAgeOfAnEarlierMessage(BusOfTests):
    """As if one from before the subscription counted."""

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        found = await super()._backlog(subscription)
        return found and replace(
            found, oldest_seconds=None if found.oldest_seconds is None else found.oldest_seconds + 1
        )


class GivesTheAgeOfTheFirst(BusOfTests):
    """Also when that was handled."""

    age = 0.0

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        found = await super()._backlog(subscription)
        assert found is not None
        self.age = max(self.age, found.oldest_seconds or 0.0)
        return replace(found, oldest_seconds=self.age if found.messages else None)


class GivesNoNumber(BusOfTests):
    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        return None


class HidesThatItVanished(BusOfTests):
    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        with contextlib.suppress(NotFound):
            return await super()._receive(subscription, max_messages, wait)
        await asyncio.sleep(0.01)
        return []


class AcksNothingOnceItVanished(BusOfTests):
    _times = 0

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        self._times += 1
        return await super()._subscribe(subscription, create=create)

    async def _ack(self, batch: Sequence[Received]) -> Results:
        return [LeaseLost("gone")] * len(batch) if self._times > 1 else await super()._ack(batch)


class WithoutExtras(BusOfTests):
    capabilities = LocalMessageBus.capabilities - {ORDERING, DELAY, QUEUES, DEAD_LETTERS, BACKLOG}

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        return None


class IgnoresWhatItHasNot(WithoutExtras):
    def _require(self, capability: str) -> None: ...

    def _keeps_order(self, destination: str) -> bool:
        return True


class WithoutPull(BusOfTests):
    capabilities = LocalMessageBus.capabilities - {PULL}

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        return await MessageBus._subscribe(self, subscription, create=create)


class PullsUndeclared(BusOfTests):
    capabilities = LocalMessageBus.capabilities - {PULL}
