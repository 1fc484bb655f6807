"""What is published arrives, unchanged, at everybody who subscribed: behaviours 1 to 4, 21 and 22."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import pytest

from totoms.bus import QUEUES
from totoms.context import current_cid, new_cid
from totoms.envelope import Subscription
from totoms.errors import Unsupported
from totoms.messages import (
    ID_ATTRIBUTE,
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
    MessageDestination,
    ProcessingResponse,
    TotoMessage,
)
from totoms.testing.contract import Contract
from totoms.testing.messages_listener import MESSAGE_TYPE, succeed
from totoms.testing.messages_topic import NAME, POSTS, Topic, message, pulled
from totoms.tracing import current_traceparent, remember_traceparent

_PAYLOADS: Final[Mapping[str, Any]] = {
    "unicode": {"é": "Grüße 📚 \u202e \ufeff \u2028", "control": "a\x00b\tc\nd\x7f", 'key with "quotes"': "'"},
    "empty": {},
    "nothing": None,
    "nested": {"a": [{"b": [[], {}, [None, True, False, ""]]}] * 3, "depth": [[[[[[[[[["ten"]]]]]]]]]]},
    "large numbers": [2**53 + 1, 2**63, -(2**64), 10**40, 1.7976931348623157e308, 5e-324, 0.1, -0.0],
    "text": "only text",
    "large": ["x" * 1000] * 50,
}
_TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Delivery(Contract):
    """Behaviours 1 to 4, 21 and 22."""

    @pytest.mark.parametrize("payload", _PAYLOADS)
    @pulled
    async def test_01_message_arrives_unchanged(self, topic: Topic, payload: str) -> None:
        """Body, type, cid, id, text and numbers arrive as they were published."""
        listener = await topic.listen()
        published = TotoMessage(
            "2025.11.23 12:00:00", f"cid-{new_cid()}", "id é 1", MESSAGE_TYPE, "Ein Beitrag: é\n", _PAYLOADS[payload]
        )
        message_id = await (await topic.bus()).publish_message(POSTS, published)
        await listener.until_settled(1)
        (handled,) = listener.begun
        assert handled == published
        assert repr(handled.data) == repr(published.data)  # 1, 1.0 and True are equal, and not the same
        delivery = handled.delivery
        assert delivery is not None
        assert (delivery.message_id, delivery.attempt, delivery.redelivered) == (message_id, 1, False)
        assert (delivery.topic, delivery.subscription) == (NAME, listener.subscription.name)
        assert delivery.attributes[ID_ATTRIBUTE] == message_id
        assert delivery.attributes[TYPE_ATTRIBUTE] == MESSAGE_TYPE

    @pulled
    async def test_01_message_to_a_queue_arrives_at_who_takes_from_it(self, topic: Topic) -> None:
        """A queue keeps a message until somebody takes it; without QUEUES, `Unsupported`."""
        bus, name = await topic.bus(), f"tested-{new_cid()[:16]}"
        if QUEUES not in self.capabilities:
            with pytest.raises(Unsupported):
                await bus.publish_message(MessageDestination(queue=name), message("queued"))
            return
        message_id = await bus.publish_message(MessageDestination(queue=name), message("queued"))
        listener = await topic.listen(subscription=Subscription(name, "", ""))
        await listener.until_settled(1)
        (handled,) = listener.begun
        assert handled.id == "queued"
        assert handled.delivery is not None
        assert (handled.delivery.message_id, handled.delivery.attempt) == (message_id, 1)

    @pulled
    async def test_02_several_messages_arrive_as_a_set(self, topic: Topic) -> None:
        """Of several messages, published at the same time, each arrives once, with the id it was given."""
        listener, bus = await topic.listen(), await topic.bus()
        names = [f"message-{number}" for number in range(50)]
        ids = await asyncio.gather(*(bus.publish_message(POSTS, message(name)) for name in names))
        await listener.until_settled(len(names))
        await topic.expire_leases()
        await topic.barrier()
        found = {handled.id: handled.delivery.message_id for handled in listener.begun if handled.delivery}
        assert found == dict(zip(names, ids, strict=True))
        assert len(listener.begun) == len(names), "a message that was settled came again"

    @pulled
    async def test_03_each_subscription_gets_everything(self, topic: Topic) -> None:
        """Two subscriptions of a topic both get every message."""
        one, other = await topic.listen(), await topic.listen()
        names = [f"message-{number}" for number in range(10)]
        ids = await topic.publish(*names)
        for listener in (one, other):
            await listener.until_settled(len(names))
            assert sorted(listener.ids) == sorted(names)
            assert {received.message_id for received in listener.bus.received} >= set(ids)

    @pulled
    async def test_03_consumers_of_one_subscription_share_it(self, topic: Topic) -> None:
        """Two consumers of one subscription are at work at the same time, and no message is handled by both."""
        both = asyncio.Event()

        async def wait_for_the_other(handled: TotoMessage) -> ProcessingResponse:
            await both.wait()
            return succeed(handled)

        one = await topic.listen(wait_for_the_other, max_concurrency=1)
        other = await topic.listen(wait_for_the_other, one.subscription, max_concurrency=1)
        names = [f"message-{number}" for number in range(10)]
        await topic.publish(*names)
        await topic.news.until(lambda: one.running and other.running, "both consumers are at work")
        both.set()
        await topic.news.until(lambda: len(one.begun) + len(other.begun) >= len(names), "all messages are handled")
        await topic.barrier()
        assert sorted(one.ids + other.ids) == sorted(names)

    @pulled
    async def test_04_message_published_before_the_first_consumer_is_kept(self, topic: Topic) -> None:
        """What is published after a subscription was made, and before anybody consumed from it, is kept."""
        bus, subscription = await topic.subscribe()
        await topic.publish("early")
        listener = topic.consume(bus, subscription)
        await listener.until_settled(1)
        assert (listener.ids, listener.attempts) == (["early"], [1])

    @pulled
    async def test_04_message_published_while_nobody_runs_is_kept(self, topic: Topic) -> None:
        """What is published while the bus that made the subscription is closed is kept for the next."""
        bus, subscription = await topic.subscribe()
        await bus.close()
        await topic.publish("meanwhile")
        listener = await topic.listen(subscription=subscription)
        await listener.until_settled(1)
        assert (listener.ids, listener.attempts) == (["meanwhile"], [1])

    @pulled
    async def test_21_unknown_type_is_ignored_and_counted(self, topic: Topic) -> None:
        """A message of a type that nobody handles is counted, settled, and not dead-lettered."""
        listener, bus = await topic.listen(), await topic.bus()
        await bus.publish_message(POSTS, TotoMessage(type="ofAnother", id="ignored"))
        await listener.until_settled(1)
        await topic.publish("known")
        await listener.until_settled(2)
        await topic.barrier()
        assert listener.ids == ["known"]
        assert (listener.counts.ignored, listener.counts.retried, listener.counts.dead_lettered) == (1, 0, 0)
        assert await topic.letters(listener.subscription) == []

    @pulled
    async def test_22_traceparent_and_cid_travel(self, topic: Topic) -> None:
        """A message carries the trace and the cid on, also to the messages that its handler publishes."""
        bus = await topic.bus()
        seen: list[tuple[str, str, str]] = []

        async def pass_on(handled: TotoMessage) -> ProcessingResponse:
            seen.append((handled.cid, current_cid.get(), current_traceparent()))
            if handled.id == "first":
                await bus.publish_message(POSTS, message("second"))
            return succeed(handled)

        async def request() -> None:
            current_cid.set("cid-of-the-request")
            remember_traceparent(_TRACE)
            await topic.publish("first")

        listener = await topic.listen(pass_on)
        await asyncio.create_task(request())  # in a context of its own, as each request is
        await listener.until_settled(2)
        assert listener.ids == ["first", "second"]
        assert seen == [("cid-of-the-request", "cid-of-the-request", _TRACE)] * 2
        traces = [one.delivery.attributes.get(TRACEPARENT_ATTRIBUTE) for one in listener.begun if one.delivery]
        assert traces == [_TRACE] * 2
