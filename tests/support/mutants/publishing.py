"""Message buses that are broken where they publish, close and subscribe, each in one way, for the contract to find."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from support.local.bus import BusOfTests
from support.messages.by_name import Through
from totoms.context import new_cid
from totoms.errors import BackendError, Closed, MessageTooLarge
from totoms.messages.message import decode_message, encode_message
from totoms.messages.outgoing import Outgoing
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Subscription

Results = Sequence[BackendError | None]


class Changes(BusOfTests):
    """What is published is changed on its way."""

    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        return await super()._publish([self.changed(one) for one in batch])

    def changed(self, one: Outgoing) -> Outgoing:
        return one


class RoundsLargeNumbers(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        return replace(one, body=orjson.dumps(orjson.loads(one.body)))


class WritesTextsOnly(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        return replace(one, body=encode_message(decode_message(one.body)))


class DropsAttributes(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        kept = {name: value for name, value in one.attributes.items() if name != "traceparent"}
        return replace(one, attributes=kept)


class DropsVersions(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        return replace(one, attributes={**one.attributes, "schemaVersion": "1"})


class IgnoresDelay(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        return replace(one, delay=0.0)


class DelaysTooLong(Changes):
    def changed(self, one: Outgoing) -> Outgoing:
        return replace(one, delay=10 * one.delay)


class DeliversTwice(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        return list(await super()._publish([*batch, *batch]))[: len(batch)]


class LosesOtherTypes(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        await super()._publish([one for one in batch if one.attributes["messageType"] != "ofAnother"])
        return [None] * len(batch)


class LosesWhatGoesToQueues(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        return [None] * len(batch) if batch[0].queue else await super()._publish(batch)


class LosesOneOfABatch(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        await super()._publish(batch[:1000])
        return [None] * len(batch)


class FailsTheWholeBatch(BusOfTests):
    fails_whole = True  # see VirtualHarness


class FailsBesideALongType(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        if any(len(one.attributes["messageType"]) > 1024 for one in batch):
            return [MessageTooLarge("The broker said so.")] * len(batch)
        return await super()._publish(batch)


class RefusesLargeBatches(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        if sum(len(one.body) for one in batch) > self.max_message_bytes:
            return [MessageTooLarge("The batch is too large.")] * len(batch)
        return await super()._publish(batch)


class RefusesAtTheLimit(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        if any(len(one.body) > self.max_message_bytes - 1000 for one in batch):
            return [MessageTooLarge("The broker said so.")]
        return await super()._publish(batch)


class AcceptsTooLarge(BusOfTests):
    async def publish_message(self, *arguments: Any, **options: Any) -> str:
        try:
            return await super().publish_message(*arguments, **options)
        except MessageTooLarge:
            return new_cid()


class SendsBeforeItMeasures(BusOfTests):
    async def publish_message(self, *arguments: Any, **options: Any) -> str:
        sqlite3.connect(":memory:").close()
        return await super().publish_message(*arguments, **options)


class SwallowsAfterClose(BusOfTests):
    async def publish_message(self, *arguments: Any, **options: Any) -> str:
        return new_cid() if self._closed else await super().publish_message(*arguments, **options)


class HangsAfterClose(BusOfTests):
    async def publish_message(self, *arguments: Any, **options: Any) -> str:
        if self._closed:
            await asyncio.Event().wait()
        return await super().publish_message(*arguments, **options)


class HangsWhenClosedWhilePublishing(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        try:
            return await super()._publish(batch)
        finally:
            if self._closed:
                await asyncio.Event().wait()


class CannotCloseTwice(BusOfTests):
    async def close(self) -> None:
        if self._closed:
            raise Closed("The message bus is closed.")
        await super().close()


class BlocksTheLoop(BusOfTests):
    async def _publish(self, batch: Sequence[Outgoing]) -> Results:
        time.sleep(0.15)  # noqa: ASYNC251 - this is what is wrong with it
        return await super()._publish(batch)


class Away(BusOfTests):
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


class MakesWhatItMayNot(BusOfTests):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        await super()._subscribe(subscription, create=True)
        return Through(self, subscription)


class DeliversToOneOfTwoSubscriptions(BusOfTests):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        await super()._subscribe(replace(subscription, name="of-all"), create=create)
        return Through(self, subscription)

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await super()._receive(replace(subscription, name="of-all"), max_messages, wait)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        await super()._stop_receiving(replace(subscription, name="of-all"))


class DeliversToEachConsumer(BusOfTests):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        self._own = f"{subscription.name}-{new_cid()}"
        await super()._subscribe(replace(subscription, name=self._own), create=create)
        return Through(self, subscription)

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        return await super()._receive(replace(subscription, name=self._own), max_messages, wait)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        await super()._stop_receiving(replace(subscription, name=self._own))


class SubscribesWithItsFirstReceive(BusOfTests):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        return Through(self, subscription)

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        if subscription.name not in self._receivers:
            await super()._subscribe(subscription, create=True)
        return await super()._receive(subscription, max_messages, wait)

    async def _stop_receiving(self, subscription: Subscription) -> None:
        if subscription.name in self._receivers:
            await super()._stop_receiving(subscription)


class IgnoresOrdering(BusOfTests):
    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        await super()._subscribe(replace(subscription, ordered=False), create=create)
        return Through(self, subscription)
