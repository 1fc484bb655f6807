"""Ordering keys and delays: behaviours 17 and 23."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import pytest

from totoms.declaration.messaging import MessageBusConfig, MessageBusTopicConfig
from totoms.errors import ConfigurationError, Unsupported
from totoms.messages.driver import DELAY, ORDERING
from totoms.messages.message import ProcessingResponse, TotoMessage
from totoms.messaging import _check_capabilities
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import on_topic, pulled
from totoms.testing.messages.listener import fail, succeed
from totoms.testing.messages.topic import POSTS, Topic, message

_KEYS: Final = ("a", "b", "é ✓")
_EACH: Final = 6


class Ordering(Contract):
    """Behaviours 17 and 23."""

    @pulled
    async def test_17_order_is_kept_under_concurrency_and_across_a_failure(self, topic: Topic) -> None:
        """Messages of one key are handled in order, also if some fail, and concurrently with other keys."""
        if ORDERING not in self.capabilities:
            await _ordering_is_refused(topic)
            return
        begun: list[TotoMessage] = []
        succeeded: dict[str, list[int]] = {key: [] for key in _KEYS}
        all_keys = asyncio.Event()

        async def process(handled: TotoMessage) -> ProcessingResponse:
            key, number = handled.data
            assert handled.delivery is not None
            begun.append(handled)
            if {one.data[0] for one in begun} == set(_KEYS):
                all_keys.set()
            if number == 0:
                await all_keys.wait()  # no key waits for another
            if number in (0, 2, 5) and handled.delivery.attempt == 1:
                return fail(handled)
            succeeded[key].append(number)
            return succeed(handled)

        receiver = await topic.subscribe(topic.subscription(ordered=True))
        bus = await topic.bus()
        for number in range(_EACH):
            for key in _KEYS:
                await bus.publish_message(POSTS, message(f"{key}-{number}", data=[key, number]), ordering_key=key)
        listeners = [topic.consume(receiver, process), await topic.listen(process, receiver.subscription)]
        await topic.progress.until(
            lambda: sum(map(len, succeeded.values())) >= _EACH * len(_KEYS),
            "all messages are handled",
            lambda: succeeded,
        )
        await topic.barrier()
        assert succeeded == {key: list(range(_EACH)) for key in _KEYS}
        for key in _KEYS:
            order = [number for handled in begun for its, number in [handled.data] if its == key]
            assert order == [0, 0, 1, 2, 2, 3, 4, 5, 5], f"messages of the key {key!r} overtook a failed one"
        assert sum(listener.counts.retried for listener in listeners) == 3 * len(_KEYS)

    @pulled
    async def test_17_dead_lettered_message_lets_the_next_of_its_key_pass(self, topic: Topic) -> None:
        """A dead-lettered message does not block its key."""
        if ORDERING not in self.capabilities:
            await _ordering_is_refused(topic)
            return
        listener = await topic.listen(
            lambda handled: fail(handled) if handled.id == "bad" else succeed(handled), topic.subscription(ordered=True)
        )
        await topic.publish("first", "bad", "last", ordering_key="key")
        await listener.until_settled(2)
        assert listener.ids == ["first", *["bad"] * listener.subscription.retry.max_attempts, "last"]

    @on_topic
    async def test_17_ordering_is_refused_where_it_is_not_declared(self, topic: Topic) -> None:
        """Without ORDERING a key raises `Unsupported`, and a service with an ordered topic does not start."""
        if ORDERING not in self.capabilities:
            await _ordering_is_refused(topic)
            return
        bus = await topic.bus()
        _check_capabilities(bus, _ORDERED)
        assert await bus.publish_message(POSTS, message("first"), ordering_key="key")

    @pulled
    async def test_23_delayed_message_comes_after_its_delay(self, topic: Topic) -> None:
        """A delayed message is delivered after its delay, and not before."""
        receiver = await topic.subscribe()
        bus = await topic.bus()
        if DELAY not in self.capabilities:
            with pytest.raises(Unsupported):
                await bus.publish_message(POSTS, message("late"), delay=1.0)
            with pytest.raises(Unsupported):
                await bus.publish_messages(POSTS, [message("late")], delay=1.0)
            await topic.nothing_left(receiver)
            return
        since = time.monotonic()
        (message_id,) = await topic.publish("late", delay=3.0)
        (late,) = await topic.receive_after({message_id: 3.0}, since, receiver)
        assert late.attempt == 1
        await topic.nothing_left(receiver)


_ORDERED: Final = MessageBusConfig(topics=[MessageBusTopicConfig(logical_name="posts", secret="posts", ordered=True)])


async def _ordering_is_refused(topic: Topic) -> None:
    bus = await topic.bus()
    with pytest.raises(Unsupported):
        await bus.publish_message(POSTS, message("first"), ordering_key="key")
    with pytest.raises(Unsupported):
        await bus.publish_messages(POSTS, [message("first")], ordering_key="key")
    with pytest.raises(ConfigurationError, match="no order"):
        _check_capabilities(bus, _ORDERED)
