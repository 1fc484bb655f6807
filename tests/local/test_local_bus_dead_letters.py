"""The dead-letter store of the local bus: kept with the reason, listed, delivered again, deleted."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.local.bus import (
    BLOG,
    MAIL,
    Clock,
    crash_image,
    nothing_comes,
    open_bus,
    publish,
    receive,
    receive_numbers,
    receive_one,
    settled,
)
from totoms.errors import NotFound
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

REASON = DeadLetterReason("attempts_exhausted", "ValueError", "it never worked: ☃", 5)


async def bury(bus: LocalMessageBus, *numbers: int) -> list[Received]:
    buried = []
    for number in numbers:
        await publish(bus, number)
        buried.append(await receive_one(bus))
        await bus._dead_letter(buried[-1], REASON)
    return buried


async def test_dead_letter_has_everything_and_is_not_delivered_again(bus: LocalMessageBus, clock: Clock) -> None:
    (received,) = await bury(bus, 1)
    clock.advance(1_000_000.0)
    assert await nothing_comes(bus)
    (letter,) = await bus.list_dead_letters(BLOG.name)
    assert (letter.message_id, letter.subscription, letter.reason) == (received.message_id, BLOG.name, REASON)
    assert (letter.body, dict(letter.attributes)) == (received.body, dict(received.attributes))
    assert letter.dead_since == 1_000_000.0


async def test_dead_letters_are_listed_oldest_first_and_no_more_than_asked_for(bus: LocalMessageBus) -> None:
    buried = await bury(bus, *range(5))
    letters = await bus.list_dead_letters(BLOG.name, limit=3)
    assert [letter.message_id for letter in letters] == [one.message_id for one in buried[:3]]


async def test_subscription_keeps_its_own_dead_letters(bus: LocalMessageBus) -> None:
    await bus._subscribe(MAIL, create=True)
    await bury(bus, 1)
    assert await bus.list_dead_letters(MAIL.name) == []
    assert await receive_numbers(bus, 1, MAIL) == [1]


async def test_dead_letters_survive_a_restart(bus: LocalMessageBus, local_root: str) -> None:
    (received,) = await bury(bus, 1)
    await bus.close()
    async with open_bus(local_root) as later:
        (letter,) = await later.list_dead_letters(BLOG.name)
        assert (letter.message_id, letter.reason) == (received.message_id, REASON)


async def test_replayed_message_is_the_same_with_its_attempts_starting_over(bus: LocalMessageBus) -> None:
    await publish(bus, 1)
    await bus._nack(await receive_one(bus), 0.0)
    received = await receive_one(bus)
    assert received.attempt == 2
    await bus._dead_letter(received, REASON)
    assert await bus.replay_dead_letters(BLOG.name) == 1
    again = await receive_one(bus)
    assert (again.body, dict(again.attributes)) == (received.body, dict(received.attributes))
    assert (again.message_id, again.attempt) == (received.message_id, 1)
    assert await bus.list_dead_letters(BLOG.name) == []


@pytest.mark.parametrize("process", [False, True], ids=["other bus", "other process"])
async def test_replaying_wakes_a_consumer_that_waits(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], process: bool
) -> None:
    await bury(bus, 1)
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    await another(process=process).replay_dead_letters(BLOG.name)
    assert len(await waiting) == 1


@pytest.fixture
async def earlier_folder(tmp_path: Path) -> Path:
    """A folder with one dead letter, as a killed process of a release leaves it that used ids again."""
    async with open_bus(tmp_path / "made") as bus:
        await bus._subscribe(BLOG, create=True)
        await bury(bus, 1)
        folder = crash_image(tmp_path / "made", tmp_path / "earlier")
    with closing(sqlite3.connect(folder / "bus.sqlite3")) as connection:
        connection.executescript(
            "DROP INDEX dead_letters_subscription; ALTER TABLE dead_letters RENAME TO todays; "
            "CREATE TABLE dead_letters (id INTEGER PRIMARY KEY, subscription TEXT NOT NULL, message_id TEXT NOT NULL, "
            "body BLOB NOT NULL, attributes BLOB NOT NULL, ordering_key TEXT, checksum INTEGER NOT NULL, "
            "reason TEXT NOT NULL, error_class TEXT NOT NULL, description TEXT NOT NULL, attempts INTEGER NOT NULL, "
            "dead_since REAL NOT NULL); "
            "CREATE INDEX dead_letters_subscription ON dead_letters (subscription, id); "
            "INSERT INTO dead_letters SELECT * FROM todays; DROP TABLE todays;"
        )
    return folder


async def test_id_of_a_dead_letter_is_not_used_again(bus: LocalMessageBus, local_root: str) -> None:
    await bury(bus, 1)
    (first,) = await bus.list_dead_letters(BLOG.name)
    await bus.replay_dead_letters(BLOG.name)
    assert await receive_numbers(bus, 1) == [1]
    await bus.close()
    async with open_bus(local_root) as later:
        await later._subscribe(BLOG, create=True)
        await bury(later, 2)
        assert await later.purge_dead_letters(BLOG.name, [first.letter_id]) == 0
        assert len(await later.list_dead_letters(BLOG.name)) == 1


async def test_dead_letters_of_an_earlier_release_are_kept_and_their_ids_not_used_again(earlier_folder: Path) -> None:
    async with open_bus(earlier_folder) as bus:
        await bus._subscribe(BLOG, create=True)
        (first,) = await bus.list_dead_letters(BLOG.name)
        assert first.reason == REASON
        await bus.replay_dead_letters(BLOG.name)
        assert await receive_numbers(bus, 1) == [1]
        await bury(bus, 2)
        (second,) = await bus.list_dead_letters(BLOG.name)
        assert second.letter_id != first.letter_id


async def test_chosen_dead_letters_are_replayed_and_purged(bus: LocalMessageBus) -> None:
    buried = await bury(bus, 1, 2, 3)
    ids = [letter.letter_id for letter in await bus.list_dead_letters(BLOG.name)]
    assert await bus.replay_dead_letters(BLOG.name, [ids[1], "no such letter"]) == 1
    assert await receive_numbers(bus, 1) == [2]
    assert await bus.purge_dead_letters(BLOG.name, [ids[0]]) == 1
    assert [letter.message_id for letter in await bus.list_dead_letters(BLOG.name)] == [buried[2].message_id]
    assert await bus.purge_dead_letters(BLOG.name) == 1
    assert await bus.list_dead_letters(BLOG.name) == []
    assert await bus.replay_dead_letters(BLOG.name) == 0


async def test_publishing_while_dead_letters_are_replayed_mixes_nothing_up(bus: LocalMessageBus) -> None:
    await bury(bus, *range(20))
    replayed, *_ = await asyncio.gather(
        bus.replay_dead_letters(BLOG.name), *(publish(bus, number) for number in range(20, 60))
    )
    assert replayed == 20
    assert sorted(await receive_numbers(bus, 60)) == list(range(60))


async def test_pushed_message_is_kept_though_it_has_no_lease(bus: LocalMessageBus) -> None:
    pushed = Received(b"\xff no message", "pushed-1", 1, Subscription("push-posts", "posts-topic", "posts"))
    await bus._dead_letter(pushed, DeadLetterReason("undecodable"))
    (letter,) = await bus.list_dead_letters("push-posts")
    assert (letter.message_id, letter.body) == ("pushed-1", b"\xff no message")
    with pytest.raises(NotFound, match="push-posts"):  # there is no subscription to deliver it to
        await bus.replay_dead_letters("push-posts")
    assert await bus.purge_dead_letters("push-posts") == 1
    for operation in (bus.list_dead_letters, bus.replay_dead_letters, bus.purge_dead_letters):
        with pytest.raises(NotFound, match="push-posts"):
            await operation("push-posts")


async def test_text_of_a_reason_that_is_not_unicode_is_kept_as_well_as_it_can(bus: LocalMessageBus) -> None:
    await publish(bus, 1, 2)
    one, other = await receive(bus, most=2)
    reason = DeadLetterReason("non_retryable", "E\udcff", "file \udcff\0", 1)
    letter_id, acked = await asyncio.gather(bus._dead_letter(one, reason), bus._ack([other]))
    (letter,) = await bus.list_dead_letters(BLOG.name)
    assert (letter.letter_id, acked) == (letter_id, [None])
    assert letter.reason.description.startswith("file ")
