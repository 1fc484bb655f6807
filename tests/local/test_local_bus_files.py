"""Files of the local bus that are foreign, old, or cut in an unacknowledged part: an error names them, or they work."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.local.bus import (
    BLOG,
    FILES,
    POSTS,
    Clock,
    crash_image,
    make_bus,
    nothing_comes,
    number_of,
    open_bus,
    publish,
    receive_exactly,
    receive_now,
    receive_numbers,
    receive_one,
)
from totoms.errors import CorruptData
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.message import TotoMessage

DATABASE, LOG, INDEX, STATE = FILES
TOTAL, BURIED = 60, 3
SHUTDOWNS = ("clean", "killed", "killed after a merge")


async def fill(root: Path, shutdown: str, image: Path) -> Path:
    """Publish messages, some of several pages, kill some, and leave the files as after such a shutdown."""
    bus = make_bus(root)
    await bus._subscribe(BLOG, create=True)
    numbers = iter(range(TOTAL))
    for number in range(BURIED):
        await publish(bus, next(numbers))
        await bus._dead_letter(await receive_one(bus), DeadLetterReason("non_retryable", description=f"{number}"))
    for number in numbers:
        if number == TOTAL // 2 and shutdown == "killed after a merge":
            bus._get_writer()._database.upkeep._log_written = 1 << 40
        text = "y" * 9000 if number % 10 == 0 else ""
        await bus.publish_message(POSTS, TotoMessage(type="posted", data={"text": text, "number": number}))
    if shutdown == "clean":
        await bus.close()
        shutil.copytree(root, image)
    else:
        crash_image(root, image)
        await bus.close()
    return image


async def read_all(root: Path) -> set[int]:
    """Return all messages: deliverable, dead-lettered, or reported as damaged."""
    clock = Clock()
    async with open_bus(root, clock) as bus:
        await bus._subscribe(BLOG, create=True)
        clock.now += 10_000_000_000.0  # nothing is leased or delayed for so long
        found: set[int] = set()
        while batch := await receive_now(bus):
            found |= {number_of(one) for one in batch}
            await bus._ack(batch)
        letters = await bus.list_dead_letters(BLOG.name, 1000)
        damaged = sum(letter.reason.reason == "damaged" for letter in letters)
        found |= {int(letter.reason.description) for letter in letters if letter.reason.reason == "non_retryable"}
    missing = set(range(TOTAL)) - found
    assert len(missing) <= damaged, f"{missing} are gone without a word"
    return found | missing


@pytest.mark.parametrize("size", [None, 0, 1, 0.5, "garbage"], ids=str)
@pytest.mark.parametrize("shutdown", SHUTDOWNS[1:])
async def test_index_of_the_log_is_made_anew(tmp_path: Path, shutdown: str, size: float | str | None) -> None:
    image = await fill(tmp_path / "root", shutdown, tmp_path / "image")
    if size == "garbage":
        (image / INDEX).write_bytes(random.Random(1).randbytes((image / INDEX).stat().st_size))
    else:
        cut(image / INDEX, size)  # type: ignore[arg-type]
    assert await read_all(image) == set(range(TOTAL))


def cut(path: Path, size: float | None) -> None:
    if size is None:
        path.unlink()
    else:
        whole = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(size if isinstance(size, int) else int(whole * size))


@pytest.mark.parametrize("shutdown", SHUTDOWNS)
@pytest.mark.parametrize("name", [DATABASE, LOG])
async def test_damaged_files_are_left_as_they_are_and_reported_again(tmp_path: Path, shutdown: str, name: str) -> None:
    if shutdown == "clean" and name == LOG:
        return  # there is none
    image = await fill(tmp_path / "root", shutdown, tmp_path / "image")
    cut(image / name, 100)
    left = {file: (image / file).read_bytes() for file in (DATABASE, LOG, STATE) if (image / file).exists()}
    for _ in range(3):
        with pytest.raises(CorruptData, match=name):
            await read_all(image)
    assert left == {file: (image / file).read_bytes() for file in (DATABASE, LOG, STATE) if (image / file).exists()}


async def test_older_copy_of_the_database_is_not_taken_for_the_current_one(tmp_path: Path) -> None:
    image = await fill(tmp_path / "root", "clean", tmp_path / "image")
    async with open_bus(tmp_path / "root") as bus:
        await publish(bus, 1000)
    shutil.copyfile(image / DATABASE, tmp_path / "root" / DATABASE)
    with pytest.raises(CorruptData, match=DATABASE):
        await read_all(tmp_path / "root")


async def test_whole_folder_deleted_is_a_new_beginning(tmp_path: Path) -> None:
    await fill(tmp_path / "root", "clean", tmp_path / "image")
    shutil.rmtree(tmp_path / "root")
    async with open_bus(tmp_path / "root") as bus:
        await bus._subscribe(BLOG, create=True)
        await publish(bus, 1)
        assert await receive_numbers(bus, 1) == [1]


@pytest.mark.parametrize("tail", [b"", b"\0" * 4096, b"\xff" * 10_000, random.Random(3).randbytes(4096 + 24)])
async def test_torn_end_of_the_log_that_was_never_acknowledged_is_not_damage(tmp_path: Path, tail: bytes) -> None:
    image = await fill(tmp_path / "root", "killed", tmp_path / "image")
    with (image / LOG).open("ab") as log:
        log.write(tail)
    assert await read_all(image) == set(range(TOTAL))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE deliveries SET body = 5 WHERE id = {row}",
        "UPDATE deliveries SET body = 'text' WHERE id = {row}",
        "UPDATE deliveries SET attributes = CAST('{{' AS BLOB) WHERE id = {row}",
        "UPDATE deliveries SET message_id = CAST(X'ff' AS TEXT) WHERE id = {row}",
        "UPDATE deliveries SET ordering_key = CAST(X'ff' AS TEXT) WHERE id = {row}",
        "UPDATE deliveries SET ordering_key = 'other' WHERE id = {row}",
        "UPDATE deliveries SET checksum = 'x' WHERE id = {row}",
    ],
)
async def test_damaged_row_becomes_a_dead_letter_and_the_others_flow(
    bus: LocalMessageBus, local_root: str, statement: str
) -> None:
    ids = await publish(bus, 1, 2, 3)
    with closing(sqlite3.connect(Path(local_root) / DATABASE, isolation_level=None)) as database:
        database.execute(statement.format(row=database.execute("SELECT min(id) + 1 FROM deliveries").fetchone()[0]))
    got = await receive_exactly(bus, 2)
    assert [one.message_id for one in got] == [ids[0], ids[2]]
    assert await nothing_comes(bus)
    (letter,) = await bus.list_dead_letters(BLOG.name)
    assert letter.reason.reason == "damaged"


async def test_big_database_is_closed_and_opened(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], local_root: str
) -> None:
    messages = [TotoMessage(type="big", data={"text": "x" * 200_000}) for _ in range(200)]
    ids = await bus.publish_messages(POSTS, messages)
    await bus.close()
    assert (Path(local_root) / DATABASE).stat().st_size > 30 << 20
    again = another()
    await again._subscribe(BLOG, create=True)
    assert {one.message_id for one in await receive_exactly(again, 200)} == set(ids)


async def test_database_deleted_while_it_is_used_is_reported_to_the_next(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], local_root: str
) -> None:
    await publish(bus, 1)
    (Path(local_root) / DATABASE).unlink()
    other = another(process=True)
    async with asyncio.timeout(60):
        with pytest.raises(CorruptData, match=DATABASE):
            await publish(other, 1)
