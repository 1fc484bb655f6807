"""Delivery of published messages to subscriptions: behaviours 1 to 4, 21 and 22."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import pytest

from totoms.context import current_cid, current_traceparent, new_cid, remember_traceparent
from totoms.errors import Unsupported
from totoms.messages.driver import QUEUES
from totoms.messages.message import (
    ID_ATTRIBUTE,
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
    MessageDestination,
    ProcessingResponse,
    TotoMessage,
)
from totoms.messages.subscription import Subscription
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled, short_leases
from totoms.testing.messages.listener import MESSAGE_TYPE, succeed
from totoms.testing.messages.topic import NAME, POSTS, Topic, message

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
        """All fields of a message arrive as published, with any text and numbers."""
        listener = await topic.listen()
        published = TotoMessage(
            "2025.11.23 12:00:00", f"cid-{new_cid()}", "id é 1", MESSAGE_TYPE, "Ein Beitrag: é\n", _PAYLOADS[payload]
        )
        message_id = await (await topic.bus()).publish_message(POSTS, published)
        await listener.until_settled(1)
        (handled,) = listener.begun
        assert handled == published
        assert repr(handled.data) == repr(published.data)  # 1, 1.0 and True compare equal
        delivery = handled.delivery
        assert delivery is not None
        assert (delivery.message_id, delivery.attempt, delivery.redelivered) == (message_id, 1, False)
        assert (delivery.topic, delivery.subscription) == (NAME, listener.subscription.name)
        assert delivery.attributes[ID_ATTRIBUTE] == message_id
        assert delivery.attributes[TYPE_ATTRIBUTE] == MESSAGE_TYPE

    @pulled
    async def test_01_message_to_a_queue_arrives_at_who_takes_from_it(self, topic: Topic) -> None:
        """A queue keeps a message until a consumer takes it; without QUEUES publishing to one raises `Unsupported`."""
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

    @short_leases
    async def test_02_several_messages_arrive_as_a_set(self, topic: Topic) -> None:
        """Messages published concurrently each arrive once, with the id that was returned."""
        listener, bus = await topic.listen(), await topic.bus()
        names = [f"message-{number}" for number in range(50)]
        ids = await asyncio.gather(*(bus.publish_message(POSTS, message(name)) for name in names))
        await listener.until_settled(len(names))
        await topic.expire_leases()
        await topic.barrier()
        found = {handled.id: handled.delivery.message_id for handled in listener.begun if handled.delivery}
        assert found == dict(zip(names, ids, strict=True))
        assert len(listener.begun) == len(names), "a settled message was delivered again"

    @pulled
    async def test_03_each_subscription_gets_everything(self, topic: Topic) -> None:
        """Each of two subscriptions of a topic gets every message."""
        one, other = await topic.listen(), await topic.listen()
        names = [f"message-{number}" for number in range(10)]
        ids = await topic.publish(*names)
        for listener in (one, other):
            await listener.until_settled(len(names))
            assert sorted(listener.ids) == sorted(names)
            assert {received.message_id for received in listener.receiver.received} >= set(ids)

    @pulled
    async def test_03_consumers_of_one_subscription_share_it(self, topic: Topic) -> None:
        """Two consumers of one subscription work concurrently, and no message is handled by both."""
        both = asyncio.Event()

        async def wait_for_the_other(handled: TotoMessage) -> ProcessingResponse:
            await both.wait()
            return succeed(handled)

        one = await topic.listen(wait_for_the_other, max_concurrency=1)
        other = await topic.listen(wait_for_the_other, one.subscription, max_concurrency=1)
        names = [f"message-{number}" for number in range(10)]
        await topic.publish(*names)
        await topic.progress.until(lambda: one.running and other.running, "both consumers handle a message")
        both.set()
        await topic.progress.until(lambda: len(one.begun) + len(other.begun) >= len(names), "all messages are handled")
        await topic.barrier()
        assert sorted(one.ids + other.ids) == sorted(names)

    @pulled
    async def test_04_message_published_before_the_first_consumer_is_kept(self, topic: Topic) -> None:
        """A message published after the subscription was created, and before it has a consumer, is kept."""
        receiver = await topic.subscribe()
        await topic.publish("early")
        listener = topic.consume(receiver)
        await listener.until_settled(1)
        assert (listener.ids, listener.attempts) == (["early"], [1])

    @pulled
    async def test_04_message_published_while_no_consumer_runs_is_kept(self, topic: Topic) -> None:
        """A message published while the subscription has no bus is kept for the next one."""
        bus, subscription = await topic.connect(), topic.subscription()
        await bus._subscribe(subscription, create=True)
        await bus.close()
        await topic.connect()
        await topic.publish("meanwhile")
        listener = await topic.listen(subscription=subscription)
        await listener.until_settled(1)
        assert (listener.ids, listener.attempts) == (["meanwhile"], [1])

    @pulled
    async def test_21_unknown_type_is_ignored_and_counted(self, topic: Topic) -> None:
        """A message of a type without a handler is counted and acked, not dead-lettered."""
        listener, bus = await topic.listen(), await topic.bus()
        await bus.publish_message(POSTS, TotoMessage(type="ofAnother", id="ignored"))
        await listener.until_settled(1)
        await topic.publish("known")
        await listener.until_settled(2)
        await topic.barrier()
        assert listener.ids == ["known"]
        assert (listener.counts.ignored, listener.counts.retried, listener.counts.dead_lettered) == (1, 0, 0)
        assert await topic.dead_letters(listener.subscription) == []

    @pulled
    async def test_22_traceparent_and_cid_travel(self, topic: Topic) -> None:
        """A message carries the trace and the cid, and so do the messages that its handler publishes."""
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
        await asyncio.create_task(request())  # in its own context, like a request
        await listener.until_settled(2)
        assert listener.ids == ["first", "second"]
        assert seen == [("cid-of-the-request", "cid-of-the-request", _TRACE)] * 2
        traces = [one.delivery.attributes.get(TRACEPARENT_ATTRIBUTE) for one in listener.begun if one.delivery]
        assert traces == [_TRACE] * 2
