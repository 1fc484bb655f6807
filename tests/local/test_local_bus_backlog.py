"""How many messages wait in a subscription of the local bus, and how old the oldest is."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.local.bus import (
    BLOG,
    MAIL,
    Clock,
    crash_image,
    open_bus,
    publish,
    receive,
    receive_numbers,
    receive_one,
    settled,
)
from totoms.errors import NotFound
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.subscription import Backlog, Subscription

NOTHING = Backlog(0, None)


async def test_messages_are_counted_until_they_are_handled(bus: Any, clock: Clock) -> None:
    assert await bus._backlog(BLOG) == NOTHING
    await publish(bus, 1)
    clock.advance(10)
    await publish(bus, 2)
    clock.advance(5)
    assert await bus._backlog(BLOG) == Backlog(2, 15.0)
    assert await receive_numbers(bus, 1) == [1]
    assert await bus._backlog(BLOG) == Backlog(1, 5.0)
    assert await receive_numbers(bus, 1) == [2]
    assert await bus._backlog(BLOG) == NOTHING


async def test_message_that_is_being_handled_or_waits_for_another_attempt_is_counted(bus: Any, clock: Clock) -> None:
    await publish(bus, 1)
    clock.advance(3)
    one = await receive_one(bus)
    assert await bus._backlog(BLOG) == Backlog(1, 3.0)
    await bus._nack(one, 60.0)
    clock.advance(3)
    assert await bus._backlog(BLOG) == Backlog(1, 6.0)
    clock.advance(60)
    await bus._release(await receive(bus))
    assert await bus._backlog(BLOG) == Backlog(1, 66.0)


async def test_message_that_goes_straight_to_a_waiting_consumer_has_an_age(bus: Any, clock: Clock) -> None:
    waiting = asyncio.create_task(receive(bus))
    await settled(bus)
    await publish(bus, 1)
    clock.advance(7)
    assert await bus._backlog(BLOG) == Backlog(1, 7.0)
    await bus._ack(await waiting)


async def test_delayed_message_counts_from_when_it_is_due(bus: Any, clock: Clock) -> None:
    await publish(bus, 1, delay=60.0)
    await publish(bus, 2)
    clock.advance(20)
    assert await bus._backlog(BLOG) == Backlog(1, 20.0)
    assert await receive_numbers(bus, 1) == [2]
    assert await bus._backlog(BLOG) == NOTHING
    clock.advance(45)
    assert await bus._backlog(BLOG) == Backlog(1, 5.0)


async def test_dead_letter_is_not_counted_until_it_is_replayed(bus: Any, clock: Clock) -> None:
    await publish(bus, 1)
    await bus._dead_letter(await receive_one(bus), DeadLetterReason("non_retryable", "", "", 1))
    assert await bus._backlog(BLOG) == NOTHING
    clock.advance(100)
    assert await bus.replay_dead_letters(BLOG.name) == 1
    clock.advance(4)
    assert await bus._backlog(BLOG) == Backlog(1, 4.0)


async def test_each_subscription_has_a_backlog_of_its_own(bus: Any) -> None:
    await bus._subscribe(MAIL, create=True)
    await publish(bus, 1)
    assert await receive_numbers(bus, 1) == [1]
    assert (await bus._backlog(BLOG), await bus._backlog(MAIL)) == (NOTHING, Backlog(1, 0.0))
    with pytest.raises(NotFound, match="jobs"):
        await bus._backlog(Subscription("jobs", "", ""))


async def test_message_of_an_earlier_release_is_counted_without_an_age(
    local_root: str, clock: Clock, tmp_path: Path
) -> None:
    async with open_bus(local_root, clock) as bus:
        await bus._subscribe(BLOG, create=True)
        await publish(bus, 1)
        folder = crash_image(local_root, tmp_path / "old")
    with closing(sqlite3.connect(folder / "bus.sqlite3")) as connection:
        connection.execute("ALTER TABLE deliveries DROP COLUMN published")
    async with open_bus(folder, clock) as bus:
        await publish(bus, 2)
        assert await bus._backlog(BLOG) == Backlog(2, None)
        await bus._subscribe(BLOG, create=True)
        assert await receive_numbers(bus, 1) == [1]
        assert await bus._backlog(BLOG) == Backlog(1, 0.0)
