"""Publishing: unknown topics, closing, batches, sizes and outages. Behaviours 5, 6, 18, 19 and 25."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from totoms.errors import BackendError, Closed, MessageTooLarge, NotFound, Unavailable
from totoms.messages.bus import MessageBus
from totoms.messages.driver import DEAD_LETTERS, PULL
from totoms.messages.message import MessageDestination, ProcessingResponse, TotoMessage
from totoms.testing.audit import IO, Recording
from totoms.testing.contract import Contract, check_same
from totoms.testing.messages.decorators import on_topic, pulled
from totoms.testing.messages.listener import succeed
from totoms.testing.messages.topic import POSTS, Topic, message

_BATCH: Final = 1_001
"""More than any broker accepts in a request: Pub/Sub accepts 1,000 messages, SNS 10."""
_OUTAGE_SECONDS: Final = 5.0


class Publishing(Contract):
    """Behaviours 5, 6, 18, 19 and 25."""

    @on_topic
    async def test_05_unknown_topic_is_not_found(self, topic: Topic) -> None:
        """A topic that is not in the configuration raises `NotFound`, which names it."""
        bus = await topic.bus()
        with pytest.raises(NotFound, match="nowhere"):
            await bus.publish_message(MessageDestination(topic="nowhere"), message("lost"))
        with pytest.raises(NotFound, match="nowhere"):
            await bus.publish_messages(MessageDestination(topic="nowhere"), [message("lost")])

    @on_topic
    async def test_05_topic_that_the_broker_does_not_know_is_not_found(self, topic: Topic) -> None:
        """A configured topic that does not exist raises `NotFound`, on publish and on subscribe."""
        missing = await topic.harness.missing_topic()
        if missing is None:
            return
        bus = await topic.harness.connect({"posts": missing})
        with pytest.raises(NotFound):
            await bus.publish_message(POSTS, message("lost"))
        if PULL in self.capabilities:
            subscription = topic.subscription(identifier=missing)
            with pytest.raises(NotFound):
                await bus._subscribe(subscription, create=True)

    @pulled
    async def test_05_missing_subscription_is_not_found(self, topic: Topic) -> None:
        """Without `create` a missing subscription raises `NotFound`, which names it, and is not created."""
        bus, subscription = await topic.bus(), topic.subscription()
        for _ in range(2):
            with pytest.raises(NotFound, match=subscription.name):
                await bus._subscribe(subscription, create=False)
        await bus._subscribe(subscription, create=True)
        await (await topic.connect())._subscribe(subscription, create=False)

    @on_topic
    async def test_06_publish_after_close_is_refused(self, topic: Topic) -> None:
        """After close, publishing raises `Closed` at once; a second close does nothing."""
        bus = await topic.connect()
        await bus.publish_message(POSTS, message("before"))
        async with topic.promptly("the closed bus answers"):
            await bus.close()
            await bus.close()
            with pytest.raises(Closed):
                await bus.publish_message(POSTS, message("after"))
            with pytest.raises(Closed):
                await bus.publish_messages(POSTS, [message("after")])
            if DEAD_LETTERS in self.capabilities:
                with pytest.raises(Closed):
                    await bus.list_dead_letters("any")

    @on_topic
    async def test_06_close_while_publishing_does_not_hang(self, topic: Topic) -> None:
        """Messages in flight during close are published or raise a typed error."""
        bus = await topic.connect()
        async with topic.promptly("the bus closes and answers"):
            publishing = [asyncio.ensure_future(bus.publish_message(POSTS, message(f"{n}"))) for n in range(20)]
            await asyncio.sleep(0)
            await asyncio.gather(bus.close(), bus.close())
            results = await asyncio.gather(*publishing, return_exceptions=True)
        assert all(isinstance(result, str | BackendError) for result in results), results

    @pulled
    async def test_18_batch_beyond_the_brokers_limit_is_split(self, topic: Topic) -> None:
        """In a batch above the broker's limit, each message has its own result and arrives."""
        listener, bus = await topic.listen(max_concurrency=100), await topic.bus()
        results = await bus.publish_messages(POSTS, (message(f"{number}") for number in range(_BATCH)))
        assert [result for result in results if not isinstance(result, str)] == []
        assert len(set(map(str, results))) == _BATCH
        await listener.until_settled(_BATCH)
        found = {handled.delivery.message_id: handled.id for handled in listener.begun if handled.delivery}
        assert found == {result: f"{number}" for number, result in enumerate(results)}

    @pulled
    async def test_18_batch_beyond_the_brokers_limit_in_bytes_is_split(self, topic: Topic) -> None:
        """A batch above the broker's limit in bytes is split too."""
        listener, bus = await topic.listen(), await topic.bus()
        large = "x" * int(0.6 * bus.max_message_bytes)
        results = await bus.publish_messages(POSTS, [message(f"{number}", data=large) for number in range(5)])
        await listener.until_settled(5)
        ids = {handled.delivery.message_id for handled in listener.begun if handled.delivery}
        assert ids == set(results)

    @on_topic
    async def test_18_empty_batch_has_no_results(self, topic: Topic) -> None:
        """An empty batch has no results."""
        assert await (await topic.bus()).publish_messages(POSTS, []) == []

    @pulled
    async def test_18_batch_with_a_message_that_cannot_be_sent_is_refused_whole(self, topic: Topic) -> None:
        """If one message of a batch is too large, publishing raises before anything is sent."""
        receiver, bus = await topic.subscribe(), await topic.bus()
        large = message("large", data="x" * bus.max_message_bytes)
        with pytest.raises(MessageTooLarge):
            await bus.publish_messages(POSTS, [message("small"), large, message("small too")])
        await topic.nothing_left(receiver)

    @pytest.mark.parametrize("letter", ["x", "é"])
    @pulled
    async def test_19_message_up_to_the_size_limit_is_accepted(self, topic: Topic, letter: str) -> None:
        """A message at the size limit in bytes, and one below it, arrive unchanged."""
        listener, bus = await topic.listen(), await topic.bus()
        at, below = _sized(bus, letter, 0), _sized(bus, letter, -1)
        await bus.publish_message(POSTS, at)
        await bus.publish_message(POSTS, below)
        await listener.until_settled(2)
        arrived = sorted(handled.data for handled in listener.begun)
        assert len(arrived) == 2
        for data, sent in zip(arrived, sorted([at.data, below.data]), strict=True):
            check_same(data, sent, "the largest messages")

    @pytest.mark.parametrize("letter", ["x", "é"])
    @on_topic
    async def test_19_message_above_the_size_limit_is_refused_before_any_io(self, topic: Topic, letter: str) -> None:
        """A message one byte above the limit raises `MessageTooLarge` before any I/O."""
        bus = await topic.connect()
        large, largest = _sized(bus, letter, 1), _sized(bus, letter, 5 * bus.max_message_bytes)
        with Recording(IO, this_thread=True) as done:
            for message in (large, largest):
                with pytest.raises(MessageTooLarge):
                    await bus.publish_message(POSTS, message)
        assert done.seen == [], "I/O before the message was refused"

    @pulled
    async def test_25_broker_away_is_a_typed_error_or_a_wait(self, topic: Topic) -> None:
        """During an outage of 5 s publish waits or raises `Unavailable`; consumers resume, and nothing is lost."""
        finish = asyncio.Event()

        async def slow(handled: TotoMessage) -> ProcessingResponse:
            if handled.id == "before":
                await finish.wait()
            return succeed(handled)

        listener = await topic.listen(slow)
        await topic.publish("before")
        await listener.until_begun("before")
        async with topic.harness.outage():
            during = asyncio.ensure_future(topic.publish("during"))
            finish.set()
            await topic.advance(_OUTAGE_SECONDS)
            await asyncio.wait({during}, timeout=0.5)  # with a virtual clock, publishing must get to meet the outage
        async with topic.promptly("publish ends"):
            await asyncio.wait({during})
        error = during.exception()
        assert error is None or isinstance(error, Unavailable), f"publish raised {error!r}, not Unavailable"
        if error is not None:
            await topic.publish("during")
        await topic.publish("after")
        await listener.until_begun("before", "during", "after")
        await topic.progress.until(lambda: listener.settled >= {"before", "during", "after"}, "all are settled")
        await topic.barrier()
        assert listener.counts.dead_lettered == 0
        again = [one for one in listener.begun if listener.ids.index(one.id) != listener.begun.index(one)]
        assert all(one.delivery and one.delivery.redelivered for one in again if one.id != "during")
        assert await topic.dead_letters(listener.subscription) == []


def _sized(bus: MessageBus, letter: str, beyond: int) -> TotoMessage:
    """Return a message that is `beyond` bytes above the size limit."""
    empty = bus._outgoing(POSTS, message("sized", cid="c", timestamp="", data=""), None, 0.0)
    rest = bus.max_message_bytes - len(empty.body) + beyond
    rest -= sum(len(name) + len(value.encode()) for name, value in empty.attributes.items())
    size = len(letter.encode())
    return message("sized", cid="c", timestamp="", data=letter * (rest // size) + "." * (rest % size))
