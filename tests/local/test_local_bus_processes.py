"""Several processes, and several event loops of one, on a folder at once; one of them stopped."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.local.bus import BLOG, DEADLINE, open_bus, publish, receive_numbers
from support.processes import Process
from totoms.local.messages import state as state_module
from totoms.local.messages.bus import LocalMessageBus


async def read_numbers(root: Path | str, wanted: int) -> list[int]:
    async with open_bus(root) as bus:
        await bus._subscribe(BLOG, create=True)
        return await receive_numbers(bus, wanted)


def test_eight_processes_open_write_and_consume_at_once_and_none_is_locked_out(
    script: Callable[..., Process], local_root: str
) -> None:
    writers = [
        script(
            """
async def main(first):
    async with open_bus(root) as bus:
        await bus._subscribe(BLOG, create=True)
        await asyncio.gather(*(publish(bus, *range(first + 25 * part, first + 25 * (part + 1))) for part in range(6)))
        got = await receive_numbers(bus, 50)
    tell("got", *got)
asyncio.run(main(int(sys.argv[1])))
""",
            150 * number,
        )
        for number in range(8)
    ]
    got = [int(number) for writer in writers for number in writer.expect("^got (.*)$")[1].split()]
    assert [writer.wait() for writer in writers] == [0] * 8
    assert len(got) == 400
    left = asyncio.run(read_numbers(local_root, 1200 - 400))
    assert sorted(got + left) == list(range(1200))


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


async def test_stopped_process_lets_the_others_publish(bus: LocalMessageBus, script: Callable[..., Process]) -> None:
    process = script("""
async def one(bus):
    while True:
        await publish(bus, 1)
        tell("published")
async def main():
    bus = make_bus(root)
    await asyncio.gather(*(one(bus) for _ in range(4)))
asyncio.run(main())
""")
    await asyncio.to_thread(process.expect, "^published$")
    published = False
    async with asyncio.timeout(DEADLINE):
        while not published:  # when it is stopped during its own commit, the next one waits for it
            process.send(signal.SIGSTOP)
            publishing = asyncio.ensure_future(publish(bus, 0))
            done, _ = await asyncio.wait([publishing], timeout=2)
            published = bool(done)
            process.send(signal.SIGCONT)
            await publishing
