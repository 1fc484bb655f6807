"""How many messages wait in a subscription, and how old the oldest is."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from support.azure.messages import Namespace
from totoms.errors import AccessDenied, NotFound, Unavailable
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.subscription import Backlog, Subscription

DEAD = DeadLetterReason("non_retryable", "", "", 1)


def aged(namespace: Namespace, path: str, seconds: float) -> None:
    """Have all messages of an entity be enqueued so much earlier."""

    def age() -> None:
        for message in namespace.server.store.source(path).each():
            message.enqueued -= seconds

    namespace.server.run(age)


async def test_messages_that_are_being_handled_are_counted_as_well(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    assert await bus._backlog(namespace.subscription) == Backlog(0, None)
    await namespace.publish(b"1", b"2", b"3")
    (one,) = await namespace.received(bus, 1)
    assert (await bus._backlog(namespace.subscription)).messages == 3
    assert await bus._ack([one]) == [None]
    assert (await bus._backlog(namespace.subscription)).messages == 2


async def test_oldest_message_is_looked_at_without_being_received(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    await namespace.publish(b"1")
    await asyncio.to_thread(aged, namespace, namespace.path, 600.0)
    await namespace.publish(b"2")
    for _ in range(3):
        found = await bus._backlog(namespace.subscription)
        assert (found.messages, found.oldest_seconds) == (2, pytest.approx(600.0, abs=100.0))
    assert namespace.locked() == 0
    received = await namespace.received(bus, 2)
    assert sorted((one.body, one.attempt) for one in received) == [(b"1", 1), (b"2", 1)]


async def test_replayed_messages_are_counted_with_the_others(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    await namespace.publish(b"1")
    (one,) = await namespace.received(bus, 1)
    await bus._dead_letter(one, DEAD)
    assert await bus._backlog(namespace.subscription) == Backlog(0, None)
    assert await bus.replay_dead_letters(namespace.subscription.name) == 1
    found = await bus._backlog(namespace.subscription)
    assert found.messages == 1
    assert found.oldest_seconds is not None


async def test_scheduled_message_is_not_counted(namespace: Namespace) -> None:
    queue = Subscription(f"queue-of-{namespace.topic}", "", "")
    bus = namespace.bus()
    await bus._subscribe(queue, create=True)
    assert await bus._publish([namespace.outgoing(b"1", queue=queue.name, delay=3600.0)]) == [None]
    assert await bus._backlog(queue) == Backlog(0, None)
    assert await bus._publish([namespace.outgoing(b"2", queue=queue.name)]) == [None]
    assert (await bus._backlog(queue)).messages == 1


async def test_messages_in_sessions_are_counted_without_an_age(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.ordered, create=True)
    await namespace.publish(b"1", key="a")
    assert await bus._backlog(namespace.ordered) == Backlog(1, None)


async def test_missing_subscription_is_reported(namespace: Namespace) -> None:
    with pytest.raises(NotFound, match="shop-posts"):
        await namespace.bus()._backlog(namespace.subscription)


async def test_missing_right_to_administer_is_named(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    namespace.server.admin_denied = True
    with pytest.raises(AccessDenied, match="Manage"):
        await bus._backlog(namespace.subscription)


async def test_count_fails_while_service_bus_is_away(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    await asyncio.to_thread(namespace.server.stop)
    try:
        with pytest.raises(Unavailable):
            await bus._backlog(namespace.subscription)
    finally:
        await asyncio.to_thread(namespace.server.start)


async def test_pushed_subscription_has_no_count(namespace: Namespace) -> None:
    pushed = replace(namespace.subscription, delivery="push", push_url="https://shop.example/shop/events")
    assert await namespace.bus()._backlog(pushed) is None


async def test_subscription_that_exists_is_found(namespace: Namespace) -> None:
    bus = namespace.bus()
    assert (await bus._existing(namespace.subscription)).pull is False
    await bus._subscribe(namespace.subscription, create=True)
    assert (await bus._existing(namespace.subscription)).pull is True
