"""Receiving: at most as many messages as requested, and none left in a socket between two receives."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from support.azure.messages import BusOfTests, Namespace
from totoms.errors import BackendError, Closed, NotFound
from totoms_azure.messages import link, sources


async def _subscribed(namespace: Namespace, **settings: float) -> BusOfTests:
    bus = namespace.bus(**settings)
    await bus._subscribe(namespace.subscription, create=True)
    return bus


async def test_no_more_is_held_than_was_asked_for(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await namespace.publish(*(b"%d" % number for number in range(20)))
    held = 0
    for most in (1, 2, 4, 3):
        batch = await bus._receive(namespace.subscription, most, 5.0)
        assert 0 < len(batch) <= most
        held += len(batch)
        assert namespace.locked() == held


async def test_after_a_receive_that_found_nothing_messages_go_to_who_asks(namespace: Namespace) -> None:
    bus, other = await _subscribed(namespace), await _subscribed(namespace)
    assert await bus._receive(namespace.subscription, 10, 0.3) == []
    await namespace.publish(*(b"%d" % number for number in range(5)))
    received = await namespace.received(other, 5)
    assert [one.attempt for one in received] == [1] * 5


async def test_after_a_receive_that_found_less_messages_go_to_who_asks(namespace: Namespace) -> None:
    bus, other = await _subscribed(namespace), await _subscribed(namespace)
    await namespace.publish(b"1")
    assert len(await bus._receive(namespace.subscription, 10, 5.0)) == 1
    await namespace.publish(b"2", b"3")
    assert sorted(one.body for one in await namespace.received(other, 2)) == [b"2", b"3"]


async def test_receive_that_waits_returns_when_its_consumer_stops(namespace: Namespace) -> None:
    bus, other = await _subscribed(namespace), await _subscribed(namespace)
    receiving = asyncio.create_task(bus._receive(namespace.subscription, 10, 600.0))
    await asyncio.sleep(0)
    await bus._stop_receiving(namespace.subscription)
    assert await asyncio.wait_for(receiving, 120) == []
    await namespace.publish(b"1")
    assert len(await namespace.received(other, 1)) == 1


async def test_cancelled_receive_keeps_no_message(namespace: Namespace) -> None:
    bus, other = await _subscribed(namespace), await _subscribed(namespace)
    receiving = asyncio.create_task(bus._receive(namespace.subscription, 10, 600.0))
    queue = namespace.server.entity(namespace.path)
    await namespace.until(lambda: namespace.server.run(lambda: any(t.wants() for t in queue.takers)), "it does not ask")
    receiving.cancel()
    await asyncio.wait({receiving})
    await bus._stop_receiving(namespace.subscription)
    await namespace.publish(b"1")
    assert [one.attempt for one in await namespace.received(other, 1)] == [1]


async def test_links_that_drop_are_opened_again(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await namespace.publish(b"1")
    (one,) = await namespace.received(bus, 1)
    await asyncio.to_thread(namespace.server.drop_links)
    await namespace.publish(b"2")
    (two,) = await _through_errors(namespace, bus)
    assert two.body == b"2"
    assert list(await bus._ack([one, two])) == [None, None]
    assert namespace.bodies() == []


async def test_connection_that_breaks_is_made_anew(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    for number in range(3):
        await namespace.publish(b"%d" % number)
        (one,) = await _through_errors(namespace, bus)
        assert one.body == b"%d" % number
        assert list(await bus._ack([one])) == [None]
        await asyncio.to_thread(namespace.server.kill_connections)


async def test_queue_of_replays_that_is_made_later_is_found(namespace: Namespace) -> None:
    bus = await _subscribed(namespace, look_seconds=0.2)
    assert await bus._receive(namespace.subscription, 1, 0.5) == []
    queue = f"{namespace.topic}.shop-posts-replay"
    await asyncio.to_thread(namespace.server.make_queue, queue)
    assert await bus._publish([namespace.outgoing(b"1", queue=queue)]) == [None]
    (one,) = await namespace.received(bus, 1)
    assert list(await bus._ack([one])) == [None]
    assert namespace.bodies(queue) == []


async def test_missing_permission_for_replays_does_not_prevent_receiving(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    namespace.server.denied = {f"{namespace.topic}.shop-posts-replay"}
    await namespace.publish(b"1")
    assert len(await namespace.received(bus, 1)) == 1


async def test_subscription_that_is_deleted_is_reported(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await bus._receive(namespace.subscription, 1, 0.1)
    server = namespace.server
    await asyncio.to_thread(server.run, lambda: server.store.topics[namespace.topic].subscriptions.clear())
    await asyncio.to_thread(server.kill_connections)
    async with asyncio.timeout(120):
        while True:
            try:
                await bus._receive(namespace.subscription, 1, 1.0)
            except NotFound:
                break
            except BackendError:
                await asyncio.sleep(0)


@pytest.mark.parametrize("end", ["close", "cancel"])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16, 32, 64, 128])
async def test_no_connection_is_left_of_a_receive_that_ends_while_it_connects(
    namespace: Namespace, end: str, steps: int
) -> None:
    bus = await _subscribed(namespace)
    receiving = asyncio.create_task(bus._receive(namespace.subscription, 1, 600.0))
    for _ in range(steps):
        await asyncio.sleep(0)
    if end == "cancel":
        receiving.cancel()
        await asyncio.wait({receiving})
    async with asyncio.timeout(120):
        await bus.close()
        await asyncio.wait({receiving})
    await namespace.until(lambda: not namespace.server.connections, "a connection is left open")


async def test_nothing_is_to_be_had_of_a_closed_bus(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    receiving = asyncio.create_task(bus._receive(namespace.subscription, 1, 600.0))
    await asyncio.sleep(0)
    await bus.close()
    async with asyncio.timeout(120):
        assert await receiving == []
    with pytest.raises(Closed):
        await bus._receive(namespace.subscription, 1, 1.0)
    with pytest.raises(Closed):
        await bus._subscribe(namespace.subscription, create=False)


async def _through_errors(namespace: Namespace, bus: BusOfTests) -> list[object]:
    async with asyncio.timeout(120):
        while True:
            try:
                return await namespace.received(bus, 1)
            except BackendError:
                await asyncio.sleep(0)


@pytest.mark.parametrize("behind", [-86_400, -1_000, 0, 1_000, 86_400])
@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
async def test_lease_does_not_depend_on_the_clock_of_this_machine(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch, behind: int, create: bool, ordered: bool
) -> None:
    class Skewed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(seconds=behind)

    subscription = namespace.ordered if ordered else namespace.subscription
    bus = namespace.bus(lease_seconds=20.0)
    await bus._subscribe(subscription, create=True)
    if not create:
        bus = namespace.bus()
        await bus._subscribe(subscription, create=False)
    monkeypatch.setattr(link, "datetime", Skewed)
    await namespace.publish(b"1", key="a")
    (one,) = await namespace.received(bus, 1, subscription)
    if create:
        assert one.lease.seconds == 20.0
    elif ordered and behind > 0:
        assert one.lease.seconds <= 300.0  # nothing says more than this clock does
    else:
        assert 5.0 <= one.lease.seconds < 200.0  # by the broker's clock alone: from when the message was enqueued


async def test_new_messages_have_their_turn_while_many_are_replayed(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_TURN", 0.0)
    queue = f"{namespace.topic}.shop-posts-replay"
    await asyncio.to_thread(namespace.server.make_queue, queue)
    bus = await _subscribed(namespace)
    sent = [namespace.outgoing(b"replayed", queue=queue) for _ in range(6)]
    assert await bus._publish(sent) == [None] * 6
    await namespace.publish(*[b"new"] * 6)
    bodies = [(await namespace.received(bus, 1))[0].body for _ in range(2)]
    assert bodies == [b"replayed", b"new"]
