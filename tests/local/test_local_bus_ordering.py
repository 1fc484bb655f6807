"""Ordering keys on the local bus: one message of a key at a time, in the order they were published."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from support.local.bus import (
    BLOG,
    DEADLINE,
    LEASE,
    Clock,
    make_bus,
    nothing_comes,
    number_of,
    publish,
    receive,
    receive_numbers,
    receive_one,
    settled,
)
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.dead_letters import DeadLetterReason

ORDERED = replace(BLOG, ordered=True)


@pytest.fixture
async def bus(local_root: str, clock: Clock) -> AsyncIterator[LocalMessageBus]:
    bus = make_bus(local_root, clock)
    await bus._subscribe(ORDERED, create=True)
    yield bus
    await bus.close()


async def test_later_message_of_a_key_waits_while_an_earlier_one_is_leased(bus: LocalMessageBus) -> None:
    await publish(bus, 1, 2, 3, ordering_key="a")
    for number in (1, 2, 3):
        batch = await receive(bus, ORDERED)
        assert [number_of(one) for one in batch] == [number]
        assert await nothing_comes(bus, ORDERED)
        await bus._ack(batch)


async def test_later_message_of_a_key_waits_while_an_earlier_one_is_in_backoff(
    bus: LocalMessageBus, clock: Clock
) -> None:
    await publish(bus, 1, 2, ordering_key="a")
    await bus._nack(await receive_one(bus, ORDERED), 10.0)
    assert await nothing_comes(bus, ORDERED)
    clock.advance(11.0)
    assert await receive_numbers(bus, 2, ORDERED) == [1, 2]


async def test_later_message_of_a_key_waits_while_an_earlier_one_is_delayed(bus: LocalMessageBus, clock: Clock) -> None:
    await publish(bus, 1, ordering_key="a", delay=10.0)
    await publish(bus, 2, ordering_key="a")
    assert await nothing_comes(bus, ORDERED)
    clock.advance(11.0)
    assert await receive_numbers(bus, 2, ORDERED) == [1, 2]


async def test_earlier_message_comes_first_when_its_lease_runs_out(bus: LocalMessageBus, clock: Clock) -> None:
    await publish(bus, 1, 2, ordering_key="a")
    await receive_one(bus, ORDERED)
    clock.advance(LEASE + 1)
    assert await receive_numbers(bus, 2, ORDERED) == [1, 2]


async def test_released_message_comes_before_the_later_one(bus: LocalMessageBus) -> None:
    await publish(bus, 1, 2, ordering_key="a")
    await bus._release([await receive_one(bus, ORDERED)])
    assert await receive_numbers(bus, 2, ORDERED) == [1, 2]


async def test_dead_letter_makes_way_for_the_next_of_its_key(bus: LocalMessageBus) -> None:
    await publish(bus, 1, 2, ordering_key="a")
    await bus._dead_letter(await receive_one(bus, ORDERED), DeadLetterReason("non_retryable"))
    assert await receive_numbers(bus, 1, ORDERED) == [2]


async def test_other_keys_and_messages_without_one_do_not_wait(bus: LocalMessageBus) -> None:
    await publish(bus, 1, 2, ordering_key="a")
    await publish(bus, 3, 4, ordering_key="b")
    await publish(bus, 5, 6)
    seen: set[int] = set()
    while len(seen) < 4:
        seen |= {number_of(one) for one in await receive(bus, ORDERED)}
    assert seen == {1, 3, 5, 6}
    assert await nothing_comes(bus, ORDERED)


async def test_subscription_that_is_not_ordered_ignores_keys(bus: LocalMessageBus) -> None:
    await bus._subscribe(replace(BLOG, name="unordered"), create=True)
    await publish(bus, 1, 2, 3, ordering_key="a")
    seen: list[int] = []
    while len(seen) < 3:
        seen += [number_of(one) for one in await receive(bus, replace(BLOG, name="unordered"))]
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("process", [False, True], ids=["other bus", "other process"])
async def test_consumer_elsewhere_gets_the_next_of_a_key_as_soon_as_the_one_before_is_settled(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], process: bool
) -> None:
    await publish(bus, 1, 2, 3, ordering_key="a")
    first = await receive_one(bus, ORDERED)
    other = another(process=process)
    await other._subscribe(ORDERED, create=True)
    waiting = asyncio.ensure_future(receive(other, ORDERED))
    await settled(other)
    assert not waiting.done()
    await bus._ack([first])
    (second,) = await waiting
    assert number_of(second) == 2
    waiting = asyncio.ensure_future(receive(bus, ORDERED))
    await settled(bus)
    await other._dead_letter(second, DeadLetterReason("non_retryable"))
    assert [number_of(one) for one in await waiting] == [3]


async def test_order_is_kept_by_several_consumers_and_across_failures(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock
) -> None:
    keys, each, chance = 7, 12, random.Random(11)
    consumers = [bus, another(), another(process=True)]
    for consumer in consumers[1:]:
        await consumer._subscribe(ORDERED, create=True)
    done: dict[int, list[int]] = {key: [] for key in range(keys)}
    at_work: set[int] = set()

    async def consume(consumer: LocalMessageBus) -> None:
        while sum(map(len, done.values())) < keys * each:
            batch = await receive(consumer, ORDERED, 3, wait=0.02)
            for received in batch:
                key, position = divmod(number_of(received), each)
                assert key not in at_work
                at_work.add(key)
                assert len(done[key]) == position
            await asyncio.sleep(0)
            for received in batch:
                key, position = divmod(number_of(received), each)
                at_work.discard(key)
                if chance.random() < 0.3:
                    await consumer._nack(received, 0.0)
                else:
                    done[key].append(position)
                    assert await consumer._ack([received]) == [None]

    async with asyncio.timeout(DEADLINE):
        publishing = (
            publish(consumers[key % 3], *range(key * each, (key + 1) * each), ordering_key=f"key-{key}")
            for key in range(keys)
        )
        await asyncio.gather(*map(consume, consumers), *publishing)
    assert all(order == list(range(each)) for order in done.values())


async def test_next_of_a_key_follows_when_the_first_lost_its_key_to_damage(
    bus: LocalMessageBus, local_root: str
) -> None:
    ids = await publish(bus, 1, 2, 3, ordering_key="a")
    with closing(sqlite3.connect(Path(local_root) / "bus.sqlite3", isolation_level=None)) as database:
        database.execute("UPDATE deliveries SET ordering_key = 'b' WHERE message_id = ?", (ids[0],))
    assert await receive_numbers(bus, 2, ORDERED) == [2, 3]
    (letter,) = await bus.list_dead_letters(ORDERED.name)
    assert letter.message_id == ids[0]


async def test_lines_are_formed_and_dissolved_when_the_subscription_changes_its_mind(bus: LocalMessageBus) -> None:
    await bus._subscribe(BLOG, create=True)
    await publish(bus, 1, 2, 3, ordering_key="a")
    await bus._subscribe(ORDERED, create=True)
    assert number_of(await receive_one(bus, ORDERED)) == 1
    assert await nothing_comes(bus, ORDERED)
    await bus._subscribe(BLOG, create=True)
    assert await receive_numbers(bus, 2, BLOG) == [2, 3]
