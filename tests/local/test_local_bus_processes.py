"""Several processes on one folder: at once, killed at any line, forked."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_bus_kit import BLOG, FILES, make_bus, number_of, open_bus, publish, receive, receive_numbers, rows_of
from totoms.local import database as database_module
from totoms.local import state as state_module
from totoms.local.bus import LocalMessageBus

_PREAMBLE = """
import asyncio, os, sys
from local_bus_kit import BLOG, POSTS, make_bus, number_of, open_bus, publish, receive, receive_numbers
root = sys.argv[1]
"""
DEADLINE = 60.0


@pytest.fixture
def start(local_root: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in a process of its own, on the test's folder. Killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _PREAMBLE + code, local_root, *map(str, arguments)],  # noqa: E501
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    return out.split()


async def read_numbers(root: Path | str, wanted: int) -> list[int]:
    async with open_bus(root) as bus:
        await bus._subscribe(BLOG, create=True)
        return await receive_numbers(bus, wanted)


def test_eight_processes_open_write_and_consume_at_once_and_none_is_locked_out(
    start: Callable[..., subprocess.Popen[str]], local_root: str
) -> None:
    writers = [
        start(
            """
async def main(first):
    async with open_bus(root) as bus:
        await bus._subscribe(BLOG, create=True)
        await asyncio.gather(*(publish(bus, *range(first + 25 * part, first + 25 * (part + 1))) for part in range(6)))
        got = await receive_numbers(bus, 50)
    print(*got)
asyncio.run(main(int(sys.argv[2])))
""",
            150 * number,
        )
        for number in range(8)
    ]
    got = [int(number) for writer in writers for number in finished(writer)]
    assert len(got) == 400
    left = asyncio.run(read_numbers(local_root, 1200 - 400))
    assert sorted(got + left) == list(range(1200))


def test_killed_publisher_loses_nothing_that_it_was_told_is_kept(
    start: Callable[..., subprocess.Popen[str]], local_root: str
) -> None:
    told: list[int] = []
    for turn in range(4):
        publisher = start(
            """
async def main(number):
    bus = make_bus(root)
    await bus._subscribe(BLOG, create=True)
    while True:
        await asyncio.gather(*(one(bus, number + part) for part in range(8)))
        number += 8
async def one(bus, number):
    await publish(bus, number)
    os.write(1, b"%d\\n" % number)
asyncio.run(main(int(sys.argv[2])))
""",
            10_000 * turn,
        )
        assert publisher.stdout is not None
        told += [int(publisher.stdout.readline()) for _ in range(30 + 10 * turn)]
        publisher.kill()
        told += [int(line) for line in publisher.stdout.read().split("\n")[:-1]]
    found = asyncio.run(_drain(local_root))
    assert set(told) <= found
    assert len(found) <= len(told) + 4 * 8  # what was committed as it was killed, and nobody was told


async def _drain(root: str) -> set[int]:
    found: set[int] = set()
    async with open_bus(root) as bus:
        await bus._subscribe(BLOG, create=True)
        while batch := await receive(bus, most=500, wait=0.2):
            found |= {number_of(one) for one in batch}
            await bus._ack(batch)
    return found


def test_message_of_a_killed_consumer_comes_again_and_says_so(
    start: Callable[..., subprocess.Popen[str]], local_root: str
) -> None:
    consumer = start(
        """
async def main():
    bus = make_bus(root)
    type(bus).lease_seconds = 0.3
    await bus._subscribe(BLOG, create=True)
    await publish(bus, 1)
    await receive(bus)
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    )
    assert consumer.stdout is not None
    assert consumer.stdout.readline() == "held\n"
    consumer.kill()

    async def take_over() -> tuple[int, int]:
        async with open_bus(local_root) as bus:
            await bus._subscribe(BLOG, create=True)
            (one,) = await receive(bus)
            return number_of(one), one.attempt

    assert asyncio.run(take_over()) == (1, 2)


def test_process_that_ends_without_closing_leaves_the_files_in_order(
    start: Callable[..., subprocess.Popen[str]], local_root: str
) -> None:
    finished(start("asyncio.run(publish(make_bus(root), 0))"))
    finished(
        start("""
async def main():
    bus = make_bus(root)
    await bus._subscribe(BLOG, create=True)
    await publish(bus, 1)
asyncio.run(main())
""")
    )
    assert not (Path(local_root) / "bus.sqlite3-wal").exists()
    assert asyncio.run(read_numbers(local_root, 1)) == [1]


@pytest.mark.parametrize("first", ["parent", "child"])
def test_forked_child_uses_the_bus_on_its_own_and_neither_harms_the_other(
    start: Callable[..., subprocess.Popen[str]], local_root: str, first: str
) -> None:
    process = start(
        """
async def use(bus, number):
    await publish(bus, number)
async def close(bus):
    await bus.close()
async def begin(bus):
    await bus._subscribe(BLOG, create=True)
    await publish(bus, 0)
bus = make_bus(root)
asyncio.run(begin(bus))
to_child, from_child = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    asyncio.run(use(bus, 1))
    os.write(from_child[1], b"x")
    os.read(to_child[0], 1)
    asyncio.run(use(bus, 2))
    asyncio.run(close(bus))
    os._exit(0)
asyncio.run(use(bus, 3))
os.read(from_child[0], 1)
if sys.argv[2] == "parent":
    asyncio.run(close(bus))
os.write(to_child[1], b"x")
assert os.waitpid(child, 0)[1] == 0
if sys.argv[2] == "child":
    asyncio.run(use(bus, 4))
    asyncio.run(close(bus))
""",
        first,
    )
    finished(process)
    wanted = [0, 1, 2, 3] + ([4] if first == "child" else [])
    assert not (Path(local_root) / "bus.sqlite3-wal").exists(), "the last to close has merged the log"
    assert sorted(asyncio.run(read_numbers(local_root, len(wanted)))) == wanted


def test_process_killed_at_any_line_of_opening_committing_or_closing_leaves_files_that_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, images, told = tmp_path / "root", [], []
    watched = {database_module.__file__, state_module.__file__}

    def trace(frame: Any, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in watched:
            return None
        if event in ("line", "return") and root.exists():
            images.append((_image(root, tmp_path / f"image-{len(images)}"), list(told)))
        return trace

    async def live(numbers: range) -> None:
        async with open_bus(root) as bus:
            await bus._subscribe(BLOG, create=True)
            for number in numbers:
                await publish(bus, number)
                told.append(number)

    threading.settrace(trace)
    try:
        asyncio.run(live(range(3)))
        asyncio.run(live(range(3, 5)))
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    assert len(images) > 100
    for image, numbers in images:
        assert set(numbers) <= asyncio.run(_drain_now(image)), image


async def _drain_now(root: Path) -> set[int]:
    bus = make_bus(root)
    await bus._subscribe(BLOG, create=True)
    found = {int(row[0].split(b'"number":')[1].split(b"}")[0]) for row in rows_of(root, "SELECT body FROM deliveries")}
    await bus.close()
    return found


def _image(root: Path, to: Path) -> Path:
    to.mkdir()
    for name in (*FILES, *(f"{name}-new" for name in FILES)):
        if (root / name).exists():
            shutil.copyfile(root / name, to / name)
    return to


def test_child_forked_while_the_guard_is_held_can_use_the_bus(
    start: Callable[..., subprocess.Popen[str]], local_root: str
) -> None:
    finished(
        start("""
from totoms.local import bus as module
with module._guard:
    child = os.fork()
    if child == 0:
        async def use():
            async with open_bus(root) as bus:
                await bus._subscribe(BLOG, create=True)
                await publish(bus, 1)
        asyncio.run(use())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
""")
    )
    assert asyncio.run(read_numbers(local_root, 1)) == [1]


def test_two_event_loops_in_threads_of_one_process_share_a_folder(local_root: str) -> None:
    failures: list[BaseException] = []

    async def use(first: int) -> None:
        async with open_bus(local_root) as bus:
            await bus._subscribe(BLOG, create=True)
            await asyncio.gather(*(publish(bus, number) for number in range(first, first + 50)))

    def run(first: int) -> None:
        try:
            asyncio.run(use(first))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(50 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert failures == []
    assert sorted(asyncio.run(read_numbers(local_root, 200))) == list(range(200))


async def test_bus_in_use_elsewhere_opens_without_reading_the_whole_database(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> bytes:
        raise AssertionError("the first to open has looked already")

    monkeypatch.setattr(state_module, "digest_of", refuse)
    other = another(process=True)
    await publish(other, 1)
    assert await receive_numbers(bus, 1) == [1]
    monkeypatch.undo()
