"""Every file of the local bus deleted, cut and bit-flipped: all messages are there, or an error names the file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.local.bus import BLOG, FILES, open_bus, receive_now
from support.processes import Process
from totoms.errors import CorruptData

TESTS = Path(__file__).parents[1]
TOTAL = 60
ENDS = ("closed", "killed", "killed after a merge")
PUBLISHER = """
import asyncio, os, sys
from support.local.bus import BLOG, POSTS, make_bus, receive_exactly
from totoms import TotoMessage

async def main(total, how):
    bus = make_bus(os.environ["TOTOMS_LOCAL_ROOT"])
    await bus._subscribe(BLOG, create=True)
    ids = []
    for number in range(total):
        message = TotoMessage(type="number", id=str(number), data={"text": "x" * 40 * number})
        ids.append(await bus.publish_message(POSTS, message))
        if number == total // 2 and how != "killed":  # so that database and log both have messages
            bus._get_writer()._database.upkeep._log_written = 1 << 30
    for one in await receive_exactly(bus, 5):  # some are acked, so that there are commits of both kinds, and free pages
        assert await bus._ack([one]) == [None]
        ids.remove(one.message_id)
    ids += [await bus.publish_message(POSTS, TotoMessage(type="last", id=str(number))) for number in range(5)]
    if how == "closed":
        await bus.close()
    print(f"published {' '.join(ids)} end", flush=True)
    if how != "closed":
        await asyncio.sleep(1000)

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


async def outcome(root: Path, acknowledged: set[str]) -> str:
    """What becomes of the folder when it is opened: "whole", or the name of the file that an error names."""
    try:
        async with open_bus(root) as bus:
            await bus._subscribe(BLOG, create=True)
            got = {one.message_id for one in await receive_now(bus)}
            dead = {letter.message_id for letter in await bus._list_dead_letters(BLOG.name, 1000)}
            # What a leased message was handed to is dead or not: what counts is that it is stored.
            rows = await bus._do(lambda connection: connection.execute("SELECT message_id FROM deliveries").fetchall())
            stored = {row[0] for row in rows} | got
            unknown = dead - acknowledged  # a damaged id: the message exists, and was reported as damaged
            missing = acknowledged - stored - dead
            assert len(missing) <= len(unknown), f"{len(missing)} acknowledged messages lost without a word"
            return "whole" if not dead else "dead letter"
    except CorruptData as error:
        named = Path(error.resource or "nothing").name
        return named if named in FILES and named in str(error) else f"no file: {error}"


def make_folder(folder: Path, how: str) -> set[str]:
    script = folder.with_suffix(".py")
    script.write_text(PUBLISHER)
    process = Process(script, str(TOTAL), how, root=str(folder), env={"PYTHONPATH": str(TESTS)})
    try:
        ids = process.expect("^published (.*) end$").group(1).split()
        if how == "closed":
            assert process.wait() == 0, process.output
    finally:
        process.kill()
    assert len(ids) == TOTAL
    return set(ids)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, set[str]]]:
    """A folder after each end of a process, with what was acknowledged."""
    made = {}
    for how in ENDS:
        folder = tmp_path_factory.mktemp("damage") / how.replace(" ", "-")
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


@pytest.mark.parametrize("how", ENDS)
async def test_undamaged_folder_gives_all(folders: Any, tmp_path: Path, how: str) -> None:
    folder, ids = folders[how]
    assert await outcome(copy(folder, tmp_path / "copy"), ids) == "whole"


@pytest.mark.parametrize("damage", [delete, empty, halve])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ENDS)
async def test_missing_or_cut_file_is_reported_by_name(
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
    if (how, name, damage) == ("killed", "bus.sqlite3", halve):
        expected = "whole"  # nothing was merged yet: all of it is in the log
    assert await outcome(copied, ids) == expected


@pytest.mark.parametrize("size", [1, 31, 32, 0.3, 0.9], ids=str)
@pytest.mark.parametrize("how", ENDS[1:])
async def test_log_that_is_cut_anywhere_is_reported_by_name(
    folders: Any, tmp_path: Path, how: str, size: float
) -> None:
    folder, ids = folders[how]
    log = copy(folder, tmp_path / "copy") / "bus.sqlite3-wal"
    os.truncate(log, size if isinstance(size, int) else int(size * log.stat().st_size))
    # A log that was merged is written over from its start: its end may be of no use any more.
    may_be_whole = how == "killed after a merge" and size == 0.9
    assert await outcome(log.parent, ids) in (("whole", log.name) if may_be_whole else (log.name,))


async def test_missing_database_and_log_are_reported_together(folders: Any, tmp_path: Path) -> None:
    folder, ids = folders["killed"]
    copied = copy(folder, tmp_path / "copy")
    for name in FILES[:3]:
        delete(copied / name)
    assert await outcome(copied, ids) == "bus.sqlite3"


async def test_database_of_another_folder_is_reported(folders: Any, tmp_path: Path) -> None:
    folder, ids = folders["killed"]
    copied = copy(folder, tmp_path / "copy")
    other = tmp_path / "other"
    make_folder(other, "killed")
    for name in FILES[:3]:
        (copied / name).write_bytes((other / name).read_bytes())
    assert await outcome(copied, ids) == "bus.sqlite3"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ENDS)
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
@pytest.mark.parametrize("how", ENDS)
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
    folder, _ = folders["killed after a merge"]
    copied = copy(folder, tmp_path / "copy")
    halve(copied / name)
    script = TESTS / "support/faults/consumer.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "handled")],
        env={**os.environ, "TOTOMS_LOCAL_ROOT": str(copied)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.strip())
    assert line.startswith("totoms: ")
    assert name in line
    assert sum(name in line for line in done.stdout.splitlines()) == 1


async def test_killed_in_the_first_moments_is_begun_anew(tmp_path: Path) -> None:
    """The folder as a process leaves it that dies while making the files."""
    async with open_bus(tmp_path) as bus:
        await bus._subscribe(BLOG, create=True)
    (tmp_path / "bus.sqlite3").unlink()
    (tmp_path / "bus.state").rename(tmp_path / "bus.state-new")
    os.truncate(tmp_path / "bus.state-new", 10)
    assert await outcome(tmp_path, set()) == "whole"
