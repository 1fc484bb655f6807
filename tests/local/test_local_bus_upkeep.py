"""The log and the file of the local bus stay small. The limits are small here; bytes and pages are counted."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.local.bus import BLOG, POSTS, crash_image, make_bus, open_bus, publish, receive_numbers
from support.processes import Process
from totoms import TotoMessage
from totoms.local.messages import checkpoints as upkeep
from totoms.local.messages.bus import LocalMessageBus

DEADLINE = 120.0
LIMIT = 256 * 1024
PAGE = 4096
SPARE = 32


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "CHECKPOINT_BYTES", LIMIT // 2)
    monkeypatch.setattr(upkeep, "LOG_BYTES", LIMIT)
    monkeypatch.setattr(upkeep, "SPARE_PAGES", SPARE)
    monkeypatch.setattr(upkeep, "VACUUM_PAGES", 64)
    monkeypatch.setattr(upkeep, "_IDLE_CHECK_SECONDS", 0.05)
    monkeypatch.setattr("totoms.local.messages.writer._IDLE_CHECK_SECONDS", 0.05)


async def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait until `condition` holds. It is about files that another thread writes, hence by looking again."""
    ends = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < ends, what()
        await asyncio.sleep(0.02)


def log_bytes(root: str) -> int:
    log = Path(root) / "bus.sqlite3-wal"
    return log.stat().st_size if log.exists() else 0


def file_bytes(root: str) -> int:
    return (Path(root) / "bus.sqlite3").stat().st_size


@contextmanager
def reader(root: str) -> Iterator[None]:
    """Somebody's connection with an open transaction that reads."""
    with closing(sqlite3.connect(Path(root) / "bus.sqlite3", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM deliveries").fetchone()
        yield


def large(number: int) -> TotoMessage:
    return TotoMessage(type="posted", data={"text": "x" * 20_000, "number": number})


async def test_log_stays_small_while_several_processes_write(
    bus: LocalMessageBus, another: Any, local_root: str
) -> None:
    buses = [bus, *(another(process=True) for _ in range(3))]
    most = 0

    async def write(one: LocalMessageBus, first: int) -> None:
        nonlocal most
        for number in range(first, first + 60):
            await one.publish_message(POSTS, large(number))
            most = max(most, log_bytes(local_root))

    await asyncio.gather(*(write(one, 1000 * number) for number, one in enumerate(buses)))
    # 240 messages of 20 kB were written. Each process may write a little while another one merges.
    assert most < 8 * LIMIT
    wanted = [1000 * process + number for process in range(4) for number in range(60)]
    assert sorted(await receive_numbers(bus, len(wanted))) == wanted


async def test_log_is_cut_by_the_next_commit_after_a_reader_has_gone(bus: LocalMessageBus, local_root: str) -> None:
    await publish(bus, 0)
    with reader(local_root):
        for number in range(1, 50):
            await bus.publish_message(POSTS, large(number))
        assert log_bytes(local_root) > 2 * LIMIT
    bus._get_writer()._database.upkeep._not_before = 0.0  # the pause after a failed merge is over
    await publish(bus, 50)
    await until(lambda: log_bytes(local_root) <= LIMIT, lambda: log_bytes(local_root))
    assert sorted(await receive_numbers(bus, 51)) == list(range(51))


async def test_log_is_truncated_after_the_last_reader_without_a_writer(bus: LocalMessageBus, local_root: str) -> None:
    await publish(bus, 0)
    with reader(local_root):
        for number in range(1, 50):
            await bus.publish_message(POSTS, large(number))
        assert log_bytes(local_root) > 2 * LIMIT
    await until(lambda: log_bytes(local_root) <= LIMIT, lambda: log_bytes(local_root))


async def test_process_with_nothing_to_do_cuts_the_log_that_another_one_left(
    bus: LocalMessageBus, another: Any, local_root: str
) -> None:
    other = another(process=True)
    await publish(bus, 0)
    with reader(local_root):
        for number in range(1, 50):
            await other.publish_message(POSTS, large(number))
        await other.close()
    await until(lambda: log_bytes(local_root) <= LIMIT, lambda: log_bytes(local_root))


async def test_file_shrinks_after_a_backlog(bus: LocalMessageBus, local_root: str) -> None:
    for number in range(0, 300, 50):
        await bus.publish_messages(POSTS, [large(one) for one in range(number, number + 50)])
    grown = file_bytes(local_root)
    assert grown > 100 * PAGE
    await receive_numbers(bus, 300)
    await until(lambda: file_bytes(local_root) <= (SPARE + 20) * PAGE, lambda: file_bytes(local_root))
    await publish(bus, 7)
    assert await receive_numbers(bus, 1) == [7]


async def test_file_shrinks_though_its_process_is_never_idle(
    bus: LocalMessageBus, local_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep.Upkeep, "when_idle", lambda self: False)
    for number in range(0, 300, 50):
        await bus.publish_messages(POSTS, [large(one) for one in range(number, number + 50)])
    await receive_numbers(bus, 300)
    for number in range(200):
        await bus.publish_message(POSTS, large(number))
        await receive_numbers(bus, 1)
    assert file_bytes(local_root) < 3 * SPARE * PAGE


@pytest.fixture
async def old_folder(tmp_path: Path) -> Path:
    """A folder as a killed process of an earlier release leaves it: 40 messages without times, in a file that cannot
    shrink.
    """
    async with open_bus(tmp_path / "made") as bus:
        await bus._subscribe(BLOG, create=True)
        await publish(bus, *range(40))
        folder = crash_image(tmp_path / "made", tmp_path / "old")
    with closing(sqlite3.connect(folder / "bus.sqlite3", isolation_level=None)) as connection:
        connection.execute("ALTER TABLE deliveries DROP COLUMN published")
        connection.execute("PRAGMA auto_vacuum=NONE")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    return folder


def vacuums_by_increments(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / "bus.sqlite3")) as connection:
        return connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


async def test_database_of_an_earlier_release_is_converted_once_with_a_line_in_the_log(
    old_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="totoms")
    for _ in range(2):
        async with open_bus(old_folder) as bus:
            await bus._subscribe(BLOG, create=True)
    assert caplog.text.count("Converting") == 1
    assert vacuums_by_increments(old_folder)
    async with open_bus(old_folder) as bus:
        await bus._subscribe(BLOG, create=True)
        assert await receive_numbers(bus, 40) == list(range(40))


_KILLED = """
import signal
from totoms.local.messages.checkpoints import Upkeep
convert = Upkeep.convert

def killed(self, path):
    self._connection.set_progress_handler(lambda: os.kill(os.getpid(), signal.SIGKILL), int(sys.argv[2]))
    convert(self, path)

Upkeep.convert = killed

async def main():
    await publish(make_bus(sys.argv[1]), 1)

asyncio.run(main())
"""


@pytest.mark.parametrize("steps", [10, 50, 150])
async def test_process_killed_while_it_converts_loses_nothing(
    old_folder: Path, script: Callable[..., Process], steps: int
) -> None:
    assert script(_KILLED, old_folder, steps).wait() == -9
    async with open_bus(old_folder) as bus:
        await bus._subscribe(BLOG, create=True)
        assert await receive_numbers(bus, 40) == list(range(40))
    assert vacuums_by_increments(old_folder)


async def test_database_that_cannot_be_converted_works_as_before(
    old_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> Any:
            if sql == "VACUUM":
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *args)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Full))
    async with open_bus(old_folder) as bus:
        await bus._subscribe(BLOG, create=True)
        assert await receive_numbers(bus, 40) == list(range(40))
    assert "Could not convert" in caplog.text


async def test_new_database_can_shrink_from_the_start(local_root: str) -> None:
    bus = make_bus(local_root)
    await publish(bus, 1)
    await bus.close()
    assert vacuums_by_increments(Path(local_root))
