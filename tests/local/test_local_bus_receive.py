"""Receiving from the local bus: no more than asked for, soon, and nothing is stranded when the receiver goes away."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable

import pytest

from support.local.bus import (
    BLOG,
    DEADLINE,
    MAIL,
    Clock,
    nothing_comes,
    number_of,
    publish,
    receive,
    receive_numbers,
    receive_one,
    rows_of,
    settled,
)
from totoms.errors import Unavailable
from totoms.local.messages import rows, transactions
from totoms.local.messages.bus import LocalMessageBus

LEASED = "SELECT count(*) FROM deliveries WHERE attempt > 0"


async def test_receive_gives_no_more_than_asked_for(bus: LocalMessageBus, local_root: str) -> None:
    await publish(bus, *range(10))
    assert len(await receive(bus, most=3)) == 3
    await settled(bus)
    assert rows_of(local_root, LEASED) == [(3,)]


async def test_receive_that_waits_is_handed_no_more_than_asked_for(bus: LocalMessageBus, local_root: str) -> None:
    waiting = asyncio.ensure_future(receive(bus, most=3))
    await settled(bus)
    await asyncio.gather(*(publish(bus, number) for number in range(10)))
    assert 1 <= len(await waiting) <= 3
    await settled(bus)
    ((leased,),) = rows_of(local_root, LEASED)
    assert leased <= 3


async def test_message_for_a_consumer_that_waits_is_inserted_as_leased(bus: LocalMessageBus) -> None:
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    before = bus._get_writer()._database.commits
    await publish(bus, 1)
    (received,) = await waiting
    assert received.attempt == 1
    assert bus._get_writer()._database.commits == before + 1


async def test_receive_that_nothing_came_for_returns_empty_when_its_wait_is_over(bus: LocalMessageBus) -> None:
    assert await receive(bus, wait=0.01) == []


@pytest.mark.parametrize("process", [False, True], ids=["same process", "other process"])
async def test_message_published_elsewhere_wakes_a_consumer_that_waits(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], process: bool
) -> None:
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    await publish(another(process=process), 1)
    assert [number_of(one) for one in await waiting] == [1]


@pytest.mark.parametrize("process", [False, True], ids=["same process", "other process"])
async def test_two_consumers_of_a_subscription_share_its_messages(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], process: bool
) -> None:
    other = another(process=process)
    await other._subscribe(BLOG, create=True)
    seen: dict[LocalMessageBus, list[int]] = {bus: [], other: []}

    async def consume(consumer: LocalMessageBus) -> None:
        while len(seen[bus]) + len(seen[other]) < 200:
            batch = await receive(consumer, most=4, wait=0.05)
            seen[consumer] += [number_of(one) for one in batch]
            if batch:
                assert await consumer._ack(batch) == [None] * len(batch)

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(consume(bus), consume(other), publish(bus, *range(100)), publish(other, *range(100, 200)))
    assert sorted(seen[bus] + seen[other]) == list(range(200))


async def test_cancelled_receive_gives_back_what_it_was_handed(bus: LocalMessageBus, local_root: str) -> None:
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    publishing = asyncio.ensure_future(publish(bus, 1))
    while not bus._receivers[BLOG.name]._feed._ready:  # handed over, and not taken yet
        await asyncio.sleep(0)
    waiting.cancel()
    await publishing
    await asyncio.wait({waiting})
    received = await receive_one(bus)
    assert (number_of(received), received.attempt) == (1, 1)


async def test_receive_cancelled_at_any_moment_strands_nothing(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], local_root: str
) -> None:
    chance = random.Random(7)
    total, seen = 300, set()
    publishing = asyncio.ensure_future(publish(bus, *range(total)))

    async def receive_or_be_cancelled() -> None:
        task = asyncio.ensure_future(receive(bus, most=5, wait=DEADLINE))
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            batch = await task
        except asyncio.CancelledError:
            return
        assert all(one.attempt == 1 for one in batch)
        seen.update(number_of(one) for one in batch)
        await bus._ack(batch)

    while not publishing.done():
        await receive_or_be_cancelled()
    await publishing
    rest = await receive_numbers(bus, total - len(seen)) if len(seen) < total else []
    assert seen | set(rest) == set(range(total))
    assert rows_of(local_root, "SELECT * FROM deliveries") == []


async def test_stopped_receive_returns_at_once_and_gives_way_to_another_consumer(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus]
) -> None:
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    await bus._stop_receiving(BLOG)
    assert await waiting == []
    await publish(bus, 1)
    other = another()
    await other._subscribe(BLOG, create=True)
    received = await receive_one(other)
    assert (number_of(received), received.attempt) == (1, 1)


async def test_what_was_handed_over_to_a_receiver_that_stopped_is_available_at_once(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus]
) -> None:
    feed = bus._receivers[BLOG.name]._feed
    task = asyncio.ensure_future(receive(bus, most=5))
    await settled(bus)
    writer = bus._get_writer()
    # Time runs out for `_receive` in the moment in which a message is on its way to it.
    assert feed.reserve(1) == 1
    feed.wake()
    assert await task == []
    await bus._do(lambda _connection: None)
    feed.hand_over([], 1)
    await publish(bus, 1)
    await bus._stop_receiving(BLOG)
    other = another()
    await other._subscribe(BLOG, create=True)
    assert (await receive_one(other)).attempt == 1
    assert writer.is_running()


async def test_closing_ends_a_receive_that_waits(bus: LocalMessageBus, another: Callable[..., LocalMessageBus]) -> None:
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    await bus.close()
    assert await waiting == []
    other = another()
    await other._subscribe(BLOG, create=True)
    await publish(other, 1)
    assert (await receive_one(other)).attempt == 1


async def test_subscribing_again_serves_the_new_consumer(bus: LocalMessageBus) -> None:
    await bus._stop_receiving(BLOG)
    for number in range(3):
        await bus._subscribe(BLOG, create=True)
        await publish(bus, number)
        assert await receive_numbers(bus, 1) == [number]
        await bus._stop_receiving(BLOG)
    assert len(bus._get_writer()._feeds) == 0


async def test_subscriptions_of_one_bus_are_received_side_by_side(bus: LocalMessageBus) -> None:
    await bus._subscribe(MAIL, create=True)
    waiting = [asyncio.ensure_future(receive(bus, one)) for one in (BLOG, MAIL)]
    await settled(bus)
    await publish(bus, 1)
    assert [[number_of(one) for one in await task] for task in waiting] == [[1], [1]]


async def test_delayed_and_backlogged_messages_do_not_let_new_ones_overtake(bus: LocalMessageBus) -> None:
    await publish(bus, *range(20))
    first = await receive(bus, most=5)
    await asyncio.gather(publish(bus, *range(20, 40)), bus._ack(first))
    rest = await receive_numbers(bus, 40 - len(first))
    assert [number_of(one) for one in first] + rest == list(range(40))


async def test_a_wait_leaves_the_event_loop_free(bus: LocalMessageBus, clock: Clock) -> None:
    assert await nothing_comes(bus)
    async with asyncio.timeout(DEADLINE):
        waiting = asyncio.ensure_future(receive(bus))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})


@pytest.mark.parametrize("broken", ["lease", "next_due"])
async def test_receive_raises_when_the_database_fails_and_works_when_it_is_back(
    bus: LocalMessageBus, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    await publish(bus, 1)
    with monkeypatch.context() as patch:
        patch.setattr(transactions, "BLIP_SECONDS", 0.0)
        patch.setattr(rows, broken, fail)
        with pytest.raises(Unavailable, match="the disk is full or failing"):
            await receive(bus, wait=DEADLINE)
    (received,) = await receive(bus, wait=DEADLINE)
    assert received.attempt == 1
