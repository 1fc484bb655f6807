"""Processes that forked on the local bus: neither affects the other, or a third process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.local.bus import BLOG, open_bus, receive_numbers
from support.processes import Process
from totoms.local.messages.state import StateFile


async def read_numbers(root: Path | str, wanted: int) -> list[int]:
    async with open_bus(root) as bus:
        await bus._subscribe(BLOG, create=True)
        return await receive_numbers(bus, wanted)


@pytest.mark.parametrize("first", ["parent", "child"])
def test_forked_child_uses_the_bus_on_its_own_and_neither_harms_the_other(
    script: Callable[..., Process], local_root: str, first: str
) -> None:
    process = script(
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
if sys.argv[1] == "parent":
    asyncio.run(close(bus))
os.write(to_child[1], b"x")
assert os.waitpid(child, 0)[1] == 0
if sys.argv[1] == "child":
    asyncio.run(use(bus, 4))
    asyncio.run(close(bus))
""",
        first,
    )
    assert process.wait() == 0, process.output
    wanted = [0, 1, 2, 3] + ([4] if first == "child" else [])
    assert not (Path(local_root) / "bus.sqlite3-wal").exists(), "the last to close has merged the log"
    assert sorted(asyncio.run(read_numbers(local_root, len(wanted)))) == wanted


def test_child_forked_while_the_guard_is_held_can_use_the_bus(script: Callable[..., Process], local_root: str) -> None:
    process = script("""
from totoms.local.messages import bus as module
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
    assert process.wait() == 0, process.output
    assert asyncio.run(read_numbers(local_root, 1)) == [1]


@pytest.mark.parametrize("end", ["close", "exit", "kill"])
def test_forked_child_that_lives_on_does_not_lock_the_folder(
    script: Callable[..., Process], local_root: str, end: str
) -> None:
    process = script(
        """
async def begin(bus):
    await bus._subscribe(BLOG, create=True)
    await publish(bus, 1)
bus = make_bus(root)
asyncio.run(begin(bus))
if os.fork() == 0:
    tell("child", os.getpid())
    import time; time.sleep(1000)
how = sys.argv[1]
if how == "close":
    asyncio.run(bus.close())
tell("end")
if how == "kill":
    os.kill(os.getpid(), 9)
os._exit(0) if how == "close" else sys.exit()
""",
        end,
    )
    process.expect("^end$")
    child = int(process.expect(r"^child (\d+)$")[1])
    process.wait_for_exit()
    assert asyncio.run(read_numbers(local_root, 1)) == [1]
    state = StateFile(Path(local_root) / "bus.state")
    assert state.load() == "clean", "the child does not count as a user of the files"
    state.close()
    os.kill(child, signal.SIGKILL)  # it is there still
