"""How many messages wait, and how old the oldest is: behaviour 62."""

from __future__ import annotations

import time
from typing import Final

import pytest

from totoms.errors import NotFound
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.driver import BACKLOG, DEAD_LETTERS
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled
from totoms.testing.messages.topic import CLOCK_SKEW, POSTS, Topic, message

_DEAD: Final = DeadLetterReason("non_retryable", "ValueError", "as the test says", 1)


class Backlogs(Contract):
    """Behaviour 62."""

    @pulled
    async def test_62_messages_are_counted_until_they_are_handled(self, topic: Topic) -> None:
        """Published messages are counted, handled ones are not; without BACKLOG the backend gives no number."""
        await topic.subscribe()  # so that the broker keeps the next message
        await topic.publish("before the subscription")
        receiver = await topic.subscribe()
        subscription, bus = receiver.subscription, await topic.bus()
        if BACKLOG not in topic.capabilities:
            assert await bus._backlog(subscription) is None
            return
        assert (await topic.until_backlog(subscription, 0)).oldest_seconds is None
        await bus.publish_messages(POSTS, (message(f"{number}") for number in range(3)))
        await topic.until_backlog(subscription, 3)
        listener = topic.consume(receiver)
        await listener.until_settled(3)
        assert (await topic.until_backlog(subscription, 0)).oldest_seconds is None
        with pytest.raises(NotFound):
            await bus._backlog(topic.subscription())

    @pulled
    async def test_62_message_is_counted_while_it_is_handled_or_waits_for_its_next_attempt(self, topic: Topic) -> None:
        """Counting leases nothing, and a message counts until it is acked or dead-lettered, and again when replayed."""
        if BACKLOG not in topic.capabilities:
            return
        receiver = await topic.subscribe()
        subscription, bus = receiver.subscription, await topic.bus()
        await topic.publish("one")
        await topic.until_backlog(subscription, 1)
        one = await topic.receive_one(receiver)
        assert one.attempt == 1, "counting counted an attempt"
        await topic.until_backlog(subscription, 1)
        await receiver.nack(one, 3.0)
        await topic.until_backlog(subscription, 1)
        await topic.advance(3.0 + CLOCK_SKEW)
        await receiver.dead_letter(await topic.receive_one(receiver), _DEAD)
        await topic.until_backlog(subscription, 0)
        if DEAD_LETTERS in topic.capabilities:
            assert await bus.replay_dead_letters(subscription.name) == 1
            await topic.until_backlog(subscription, 1)

    @pulled
    async def test_62_age_is_that_of_the_oldest_message(self, topic: Topic) -> None:
        """Where the broker says it, the age is the time since the oldest message that is not acked was published."""
        if BACKLOG not in topic.capabilities:
            return
        await topic.subscribe()  # so that the broker keeps the next message
        await topic.publish("before the subscription")
        await topic.advance(1.0)
        began = time.monotonic()
        receiver = await topic.subscribe()
        subscription = receiver.subscription
        (first,) = await topic.publish("first")
        await topic.advance(1.0)
        published = time.monotonic()
        await topic.publish("second")
        oldest = (await topic.until_backlog(subscription, 2)).oldest_seconds
        if oldest is None:
            return
        passed = 1.0 if topic.harness.virtual_clock else time.monotonic() - began
        assert 1.0 - CLOCK_SKEW <= oldest <= passed + CLOCK_SKEW
        await receiver.ack([one for one in await topic.receive(receiver, 2) if one.message_id == first])
        oldest = (await topic.until_backlog(subscription, 1)).oldest_seconds
        assert oldest is not None
        assert oldest <= time.monotonic() - published + CLOCK_SKEW
