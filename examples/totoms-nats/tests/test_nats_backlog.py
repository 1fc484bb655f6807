"""How many messages wait in a subscription, and how old the oldest is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from totoms import MessageDestination, TotoMessage
from totoms.errors import NotFound, Unavailable
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.subscription import Backlog, Subscription

POSTS = MessageDestination(topic="posts")
NOTHING = Backlog(0, None)


async def subscribed(installation: Any, name: str = "blog-posts", topic: str = "") -> tuple[Any, Subscription]:
    topic = topic or installation.topic()
    bus, subscription = installation.bus(topic), installation.subscription(topic, name)
    await bus._subscribe(subscription, create=True)
    return bus, subscription


async def test_messages_count_until_they_are_acknowledged(installation: Any) -> None:
    earlier, first = await subscribed(installation, "shop-posts")
    await earlier.publish_message(POSTS, TotoMessage(type="a"))
    bus, subscription = await subscribed(installation, topic=first.topic)
    assert await bus._backlog(subscription) == NOTHING, "published before the subscription"
    await bus.publish_messages(POSTS, [TotoMessage(type="a") for _ in range(3)])
    (one,) = await bus._receive(subscription, 1, 10)
    assert (await bus._backlog(subscription)).messages == 3, "one of them is being handled"
    await bus._nack(one, 600.0)
    assert (await bus._backlog(subscription)).messages == 3, "one of them waits for another attempt"
    await bus._ack(await bus._receive(subscription, 2, 10))
    assert (await bus._backlog(subscription)).messages == 1
    assert (await bus._backlog(first)).messages == 4


async def test_age_is_that_of_the_oldest_message_which_is_not_acknowledged(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    await bus.publish_message(POSTS, TotoMessage(type="a"))
    old = (await bus._backlog(subscription)).oldest_seconds
    await asyncio.to_thread(installation.do, lambda js: js.publish(f"{subscription.topic}", b"{}"))
    older = (await bus._backlog(subscription)).oldest_seconds
    assert 0 <= old < older
    (first,) = await bus._receive(subscription, 1, 10)
    (second,) = await bus._receive(subscription, 1, 10)
    await bus._ack([second])
    oldest = (await bus._backlog(subscription)).oldest_seconds
    assert older < oldest
    await bus._ack([first])
    assert await bus._backlog(subscription) == NOTHING


async def test_age_is_not_that_of_a_message_published_before_the_subscription(installation: Any) -> None:
    earlier, first = await subscribed(installation, "shop-posts")
    await earlier.publish_message(POSTS, TotoMessage(type="a"))
    before = time.time()
    bus, subscription = await subscribed(installation, topic=first.topic)
    await bus.publish_message(POSTS, TotoMessage(type="a"))
    waiting = (await bus._backlog(subscription)).oldest_seconds
    assert time.time() - waiting >= before
    await bus._receive(subscription, 1, 10)
    handled = (await bus._backlog(subscription)).oldest_seconds
    assert time.time() - handled >= before


async def test_replayed_messages_and_queues_are_counted(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    await bus.publish_message(POSTS, TotoMessage(type="a"))
    (one,) = await bus._receive(subscription, 1, 10)
    await bus._dead_letter(one, DeadLetterReason("non_retryable", "", "", 1))
    assert await bus._backlog(subscription) == NOTHING
    await bus.replay_dead_letters(subscription.name)
    assert (await bus._backlog(subscription)).messages == 1
    queue = Subscription("jobs", "", "")
    await bus._subscribe(queue, create=True)
    await bus.publish_message(MessageDestination(queue="jobs"), TotoMessage(type="a"))
    assert (await bus._backlog(queue)).messages == 1


async def test_missing_subscription_is_reported(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    for missing in (
        installation.subscription(subscription.topic, "nobody-posts"),
        installation.subscription(f"{installation.prefix}.nobody", "blog-posts"),
    ):
        with pytest.raises(NotFound):
            await bus._backlog(missing)


async def test_count_fails_while_the_server_is_away(installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bus, subscription = await subscribed(installation)
    monkeypatch.setattr("totoms_nats.clients.DEADLINE", 0.5)
    monkeypatch.setattr("totoms_nats.clients._CONNECT", 0.2)
    async with installation.outage():
        with pytest.raises(Unavailable):
            await bus._backlog(subscription)
