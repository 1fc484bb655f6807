"""Message buses that are broken where they publish, close and subscribe, each in one way, for the contract to find."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from totoms.context import new_cid
from totoms.envelope import Outgoing, Received, Subscription
from totoms.errors import BackendError, Closed, MessageTooLarge
from totoms.local.bus import LocalMessageBus

Results = Sequence[BackendError | None]


class Changes(LocalMessageBus):
    """What is published is changed on its way."""

    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        return await super()._publish([self.changed(one) for one in batch])

    def changed(self, one: Outgoing) -> Outgoing:
        return one


class RoundsLargeNumbers(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        return replace(one, body=orjson.dumps(orjson.loads(one.body)))


class DropsAttributes(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        kept = {name: value for name, value in one.attributes.items() if name != "traceparent"}
        return replace(one, attributes=kept)


class IgnoresDelay(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        return replace(one, delay=0.0)


class DelaysTooLong(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        return replace(one, delay=10 * one.delay)


class DeliversTwice(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        return list(await super()._publish([*batch, *batch]))[: len(batch)]


class LosesOtherTypes(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        await super()._publish([one for one in batch if one.attributes["messageType"] != "ofAnother"])
        return [None] * len(batch)


class LosesWhatGoesToQueues(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        return [None] * len(batch) if batch[0].queue else await super()._publish(batch)


class LosesOneOfABatch(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        await super()._publish(batch[:1000])
        return [None] * len(batch)


class RefusesLargeBatches(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        if sum(len(one.body) for one in batch) > self.max_message_bytes:
            return [MessageTooLarge("The batch is too large.")] * len(batch)
        return await super()._publish(batch)


class RefusesAtTheLimit(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        if any(len(one.body) > self.max_message_bytes - 1000 for one in batch):
            return [MessageTooLarge("The broker said so.")]
        return await super()._publish(batch)


class AcceptsTooLarge(LocalMessageBus):
    async def publish_message(self, *arguments: Any, **options: Any) -> str:
        try:
            return await super().publish_message(*arguments, **options)
        except MessageTooLarge:
            return new_cid()


class SendsBeforeItMeasures(LocalMessageBus):
    async def publish_message(self, *arguments: Any, **options: Any) -> str:
        sqlite3.connect(":memory:").close()
        return await super().publish_message(*arguments, **options)


class SwallowsAfterClose(LocalMessageBus):
    async def publish_message(self, *arguments: Any, **options: Any) -> str:
        return new_cid() if self._closed else await super().publish_message(*arguments, **options)


class HangsAfterClose(LocalMessageBus):
    async def publish_message(self, *arguments: Any, **options: Any) -> str:
        if self._closed:
            await asyncio.Event().wait()
        return await super().publish_message(*arguments, **options)


class HangsWhenClosedWhilePublishing(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        try:
            return await super()._publish(batch)
        finally:
            if self._closed:
                await asyncio.Event().wait()


class CannotCloseTwice(LocalMessageBus):
    async def close(self) -> None:
        if self._closed:
            raise Closed("The message bus is closed.")
        await super().close()


class BlocksTheLoop(LocalMessageBus):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        time.sleep(0.15)  # noqa: ASYNC251 - this is what is wrong with it
        return await super()._publish(batch)


class Away(LocalMessageBus):
    """Knows whether its database can be written now."""

    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        return await (self.publish_away(batch) if await asyncio.to_thread(self._is_away) else super()._publish(batch))

    async def publish_away(self, batch: Sequence[Outgoing]) -> Results:
        return [None] * len(batch)

    def _is_away(self) -> bool:
        connection = sqlite3.connect(self._root / "bus.sqlite3", timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        finally:
            connection.close()
        return False


class LosesWhatIsPublishedWhileAway(Away):
    pass


class LetsTheDriversErrorsOut(Away):
    async def publish_away(self, batch: Sequence[Outgoing]) -> Results:
        raise ConnectionResetError("by peer")


class MakesWhatItMayNot(LocalMessageBus):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        await super()._subscribe(subscription, create=True)


class DeliversToOneOfTwoSubscriptions(LocalMessageBus):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        await super()._subscribe(replace(subscription, name="of-all"), create=create)

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await super()._receive(replace(subscription, name="of-all"), max_messages, wait)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        await super()._stop_receiving(replace(subscription, name="of-all"))


class DeliversToEachConsumer(LocalMessageBus):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        self._own = f"{subscription.name}-{new_cid()}"
        await super()._subscribe(replace(subscription, name=self._own), create=create)

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await super()._receive(replace(subscription, name=self._own), max_messages, wait)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        await super()._stop_receiving(replace(subscription, name=self._own))


class SubscribesWithItsFirstReceive(LocalMessageBus):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None: ...

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        if subscription.name not in self._feeds:
            await super()._subscribe(subscription, create=True)
        return await super()._receive(subscription, max_messages, wait)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        if subscription.name in self._feeds:
            await super()._stop_receiving(subscription)


class IgnoresOrdering(LocalMessageBus):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> None:
        await super()._subscribe(replace(subscription, ordered=False), create=create)
