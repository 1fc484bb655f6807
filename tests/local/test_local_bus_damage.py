"""Every file of the local bus deleted, cut and bit-flipped: all messages are there, or an error names the file."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from totoms import MessageDestination, TotoMessage
from totoms.envelope import Subscription
from totoms.environment import TotoEnvironment
from totoms.errors import CorruptData
from totoms.local.bus import LocalMessageBus
from totoms.local.configuration import LocalConfiguration

TOTAL = 60
SUBSCRIPTION = Subscription("blog-posts", "posts-topic", "posts")
FILES = ("bus.sqlite3", "bus.sqlite3-wal", "bus.sqlite3-shm", "bus.state")

PUBLISHER = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[3])
from test_local_bus_damage import open_bus, publish, SUBSCRIPTION
async def main():
    bus = open_bus(sys.argv[1])
    await bus._subscribe(SUBSCRIPTION, create=True)
    # Some are taken and acked, so that there are commits of both kinds, and free pages.
    print(*await publish(bus), flush=True)
    if sys.argv[2] == "killed":
        await asyncio.sleep(1000)
    await bus.close()
asyncio.run(main())
"""


def open_bus(root: Path | str) -> LocalMessageBus:
    configuration = LocalConfiguration(root=Path(root))
    return LocalMessageBus(TotoEnvironment("local", configuration), {"posts": "posts-topic"})


async def publish(bus: LocalMessageBus) -> list[str]:
    """Publish and ack until about `TOTAL` acknowledged messages are left; return their ids."""
    destination = MessageDestination(topic="posts")
    ids = []
    for number in range(TOTAL):
        message = TotoMessage(type="number", id=str(number), data={"text": "x" * 40 * number})
        ids.append(await bus.publish_message(destination, message))
        if number == TOTAL // 2:  # so that the killed process leaves a database and a log, both with messages
            bus._writer_of()._database._unmerged = 1 << 30
    for _ in range(5):
        (one,) = await bus._receive(SUBSCRIPTION, 1, 20)
        assert await bus._ack([one]) == [None]
        ids.remove(one.message_id)
    for number in range(5):
        ids.append(await bus.publish_message(destination, TotoMessage(type="last", id=str(number))))
    return ids


async def outcome(root: Path, acknowledged: set[str]) -> str:
    """What becomes of the folder when it is opened: "whole", or the name of the file that an error names."""
    bus = open_bus(root)
    try:
        await bus._subscribe(SUBSCRIPTION, create=True)
        got: set[str] = set()
        while batch := await bus._receive(SUBSCRIPTION, 1000, 0.15):
            got.update(one.message_id for one in batch)
        dead = {letter.message_id for letter in await bus._list_dead_letters(SUBSCRIPTION.name, 1000)}
        # What a leased message was handed to is dead or not: what counts is that it is stored.
        rows = await bus._do(lambda connection: connection.execute("SELECT message_id FROM deliveries").fetchall())
        stored = {row[0] for row in rows} | got
        unknown = dead - acknowledged  # a damaged id: the message is there, and was told to be damaged
        missing = acknowledged - stored - dead
        assert len(missing) <= len(unknown), f"{len(missing)} acknowledged messages lost without a word"
        return "whole" if not dead else "dead letter"
    except CorruptData as error:
        named = Path(error.resource or "nothing").name
        return named if named in FILES and named in str(error) else f"no file: {error}"
    finally:
        await bus.close()


def make_folder(folder: Path, how: str) -> set[str]:
    source = folder.parent / f"{folder.name}.py"
    source.write_text(PUBLISHER)
    process = subprocess.Popen(
        [sys.executable, str(source), str(folder), how, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    ids = process.stdout.readline().split()
    if how == "killed":
        process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    assert len(ids) == TOTAL
    return set(ids)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, set[str]]]:
    """A folder after a clean end and one after a kill, each with what was acknowledged."""
    made = {}
    for how in ("closed", "killed"):
        folder = tmp_path_factory.mktemp("damage") / how
        made[how] = (folder, make_folder(folder, how))
    return made


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def delete(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    os.truncate(file, 0)


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path, place: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_undamaged_folder_gives_all(folders: Any, tmp_path: Path, how: str) -> None:
    folder, ids = folders[how]
    assert await outcome(copy(folder, tmp_path / "copy"), ids) == "whole"


@pytest.mark.parametrize("damage", [delete, empty, halve])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_missing_or_cut_file_is_told_by_name(
    folders: Any, tmp_path: Path, how: str, name: str, damage: Callable[[Path], None]
) -> None:
    folder, ids = folders[how]
    copied = copy(folder, tmp_path / "copy")
    if not (copied / name).exists():
        assert how == "closed"
        assert name.endswith(("-wal", "-shm"))
        return
    damage(copied / name)
    expected = "whole" if name.endswith("-shm") else name
    assert await outcome(copied, ids) == expected


async def test_missing_database_and_log_are_told_together(folders: Any, tmp_path: Path) -> None:
    folder, ids = folders["killed"]
    copied = copy(folder, tmp_path / "copy")
    for name in FILES[:3]:
        delete(copied / name)
    assert await outcome(copied, ids) == "bus.sqlite3"


async def test_database_of_another_folder_is_told(folders: Any, tmp_path: Path) -> None:
    folder, ids = folders["killed"]
    copied = copy(folder, tmp_path / "copy")
    other = tmp_path / "other"
    make_folder(other, "killed")
    for name in FILES[:3]:
        (copied / name).write_bytes((other / name).read_bytes())
    assert await outcome(copied, ids) == "bus.sqlite3"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_flipped_bits_lose_nothing_silently(folders: Any, tmp_path: Path, how: str, name: str) -> None:
    folder, ids = folders[how]
    if not (folder / name).exists():
        return
    seen = await flips(folder, ids, name, tmp_path, 24)
    if name.endswith("-shm"):
        assert set(seen) == {"whole"}
    elif how == "closed":
        assert set(seen) == {name}, "after a clean end every bit counts"


async def flips(folder: Path, ids: set[str], name: str, tmp_path: Path, number: int) -> list[str]:
    size = (folder / name).stat().st_size
    # All over the file, and more closely at its beginning, where the headers are.
    places = sorted(
        {*range(0, min(size, 100), max(1, min(size, 100) // (number // 2))), *range(0, size, max(1, size // number))}
    )
    seen = []
    for turn, place in enumerate(places):
        copied = copy(folder, tmp_path / f"copy-{turn}")
        flip(copied / name, place, (turn * 5 + 1) % 8)
        try:
            seen.append(await outcome(copied, ids))
        except Exception as error:
            raise AssertionError(f"bit {(turn * 5 + 1) % 8} of byte {place} of {size}: {error!r}") from error
    return seen


@pytest.mark.faults
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_two_thousand_flipped_bits_lose_nothing_silently(
    folders: Any, tmp_path: Path, how: str, name: str, figure: Any
) -> None:
    folder, ids = folders[how]
    if not (folder / name).exists():
        return
    seen = await flips(folder, ids, name, tmp_path, 250)
    figure(
        f"{name} bit-flipped after the process was {how}, {len(seen)}x",
        ", ".join(f"{seen.count(one)} {one}" for one in sorted(set(seen))),
    )


@pytest.mark.parametrize("name", ["bus.sqlite3", "bus.sqlite3-wal"])
def test_service_on_a_damaged_folder_ends_with_one_line_and_status_2(folders: Any, tmp_path: Path, name: str) -> None:
    folder, _ = folders["killed"]
    copied = copy(folder, tmp_path / "copy")
    halve(copied / name)
    script = Path(__file__).parent.parent / "support" / "fault_consumer.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "handled")],
        env={**os.environ, "TOTOMS_LOCAL_ROOT": str(copied)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert done.returncode == 2
    assert "Traceback" not in "\n".join(told)
    assert sum(name in line for line in told) == 1


async def test_killed_in_the_first_moments_is_begun_anew(tmp_path: Path) -> None:
    """The folder as a process leaves it that dies while making the files."""
    bus = open_bus(tmp_path)
    await bus._subscribe(SUBSCRIPTION, create=True)
    await bus.close()
    (tmp_path / "bus.sqlite3").unlink()
    (tmp_path / "bus.state").rename(tmp_path / "bus.state-new")
    os.truncate(tmp_path / "bus.state-new", 10)
    assert await outcome(tmp_path, set()) == "whole"


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
async def test_damaged_row_becomes_a_dead_letter_and_the_others_flow(kit: Any, statement: str) -> None:
    bus, subscription = await kit.consumer()
    ids = await kit.publish(bus, 1, 2, 3)
    database = sqlite3.connect(kit.root / "bus.sqlite3", isolation_level=None)
    database.execute(statement.format(row=database.execute("SELECT min(id) + 1 FROM deliveries").fetchone()[0]))
    database.close()
    got = await kit.get(bus, subscription, 2)
    assert [one.message_id for one in got] == [ids[0], ids[2]]
    assert await kit.nothing(bus, subscription)
    (letter,) = await bus.list_dead_letters(subscription.name)
    assert letter.reason.reason == "damaged"


async def test_big_database_is_closed_and_opened(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    messages = [TotoMessage(type="big", data={"text": "x" * 200_000}) for _ in range(200)]
    ids = await bus.publish_messages(MessageDestination(topic="posts"), messages)
    await bus.close()
    assert (kit.root / "bus.sqlite3").stat().st_size > 30 << 20
    again, _ = await kit.consumer()
    assert {one.message_id for one in await kit.get(again, subscription, 200)} == set(ids)


async def test_database_deleted_while_it_is_used_is_told_to_the_next(kit: Any) -> None:
    bus, _ = await kit.consumer()
    await kit.publish(bus, 1)
    (kit.root / "bus.sqlite3").unlink()
    other = kit.bus(own_writer=True)
    async with asyncio.timeout(60):
        with pytest.raises(CorruptData, match=r"bus\.sqlite3"):
            await kit.publish(other, 1)
