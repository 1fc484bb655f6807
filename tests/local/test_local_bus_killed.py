"""Processes that die on the local bus: killed at any line, or ended without closing the bus."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.local.bus import (
    BLOG,
    FILES,
    number_of,
    open_bus,
    publish,
    receive_now,
    receive_numbers,
    receive_one,
    rows_of,
)
from support.processes import Process
from totoms.local.messages import checkpoints as upkeep
from totoms.local.messages import database as database_module
from totoms.local.messages import state as state_module


def test_killed_publisher_loses_nothing_that_was_acknowledged(script: Callable[..., Process], local_root: str) -> None:
    told: set[int] = set()
    for turn in range(4):
        first = 10_000 * turn
        publisher = script(
            """
async def main(number):
    bus = make_bus(root)
    await bus._subscribe(BLOG, create=True)
    while True:
        await asyncio.gather(*(one(bus, number + part) for part in range(8)))
        number += 8
async def one(bus, number):
    await publish(bus, number)
    tell("published", f"{number:06}")
asyncio.run(main(int(sys.argv[1])))
""",
            first,
        )
        publisher.expect(f"^published {first + 30 + 10 * turn:06}$")
        publisher.kill()
        whole = (re.fullmatch(r"published (\d{6})", line) for line in publisher.lines)
        told |= {int(line[1]) for line in whole if line}
    found = asyncio.run(_drain(local_root))
    assert told <= found
    assert len(found) <= len(told) + 4 * 8  # committed when it was killed, but not reported yet


async def _drain(root: str) -> set[int]:
    found: set[int] = set()
    async with open_bus(root) as bus:
        await bus._subscribe(BLOG, create=True)
        while batch := await receive_now(bus):
            found |= {number_of(one) for one in batch}
            await bus._ack(batch)
    return found


def test_message_of_a_killed_consumer_comes_again_and_says_so(script: Callable[..., Process], local_root: str) -> None:
    consumer = script(
        """
async def main():
    bus = make_bus(root)
    type(bus).lease_seconds = 0.3
    await bus._subscribe(BLOG, create=True)
    await publish(bus, 1)
    await receive(bus)
    tell("held")
    await asyncio.sleep(60)
asyncio.run(main())
"""
    )
    consumer.expect("^held$")
    consumer.kill()

    async def take_over() -> tuple[int, int]:
        async with open_bus(local_root) as bus:
            await bus._subscribe(BLOG, create=True)
            one = await receive_one(bus)
            return number_of(one), one.attempt

    assert asyncio.run(take_over()) == (1, 2)


def test_process_that_ends_without_closing_leaves_the_files_in_order(
    script: Callable[..., Process], local_root: str
) -> None:
    process = script("""
async def main():
    bus = make_bus(root)
    await publish(bus, 0)  # without a subscription
    await bus._subscribe(BLOG, create=True)
    await publish(bus, 1)
asyncio.run(main())
""")
    assert process.wait() == 0, process.output
    assert not (Path(local_root) / "bus.sqlite3-wal").exists()

    async def read() -> list[int]:
        async with open_bus(local_root) as bus:
            await bus._subscribe(BLOG, create=True)
            return await receive_numbers(bus, 1)

    assert asyncio.run(read()) == [1]


def test_process_killed_at_any_line_of_opening_committing_or_closing_leaves_files_that_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, told = tmp_path / "root", []
    images: dict[tuple[tuple[str, bytes], ...], list[int]] = {}  # most lines change nothing
    watched = {database_module.__file__, state_module.__file__, upkeep.__file__}
    monkeypatch.setattr(upkeep, "CHECKPOINT_BYTES", 1)  # so that each commit is followed by a merge

    def trace(frame: Any, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in watched:
            return None
        if event in ("line", "return") and root.exists():
            images[_image(root)] = list(told)
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
    assert len(images) > 30
    for turn, (image, numbers) in enumerate(images.items()):
        folder = tmp_path / f"image-{turn}"
        folder.mkdir()
        for name, content in image:
            (folder / name).write_bytes(content)
        assert set(numbers) <= asyncio.run(_stored(folder)), folder


async def _stored(root: Path) -> set[int]:
    async with open_bus(root) as bus:
        await bus._subscribe(BLOG, create=True)
        return {
            int(body.split(b'"number":')[1].split(b"}")[0]) for (body,) in rows_of(root, "SELECT body FROM deliveries")
        }


def _image(root: Path) -> tuple[tuple[str, bytes], ...]:
    names = [name for file in FILES for name in (file, f"{file}-new") if (root / name).exists()]
    return tuple((name, (root / name).read_bytes()) for name in names)
