"""The local bus among processes: forked, stopped, killed, on a full disk, and many at once."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from totoms import MessageDestination, TotoMessage
from totoms.errors import Unavailable

POSTS = MessageDestination(topic="posts")
PRELUDE = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parent.parent / "support")!r})
from pathlib import Path
from local_kit import Kit, POSTS, TOPICS
from totoms import TotoMessage
from totoms.environment import TotoEnvironment
from totoms.local.bus import LocalMessageBus
from totoms.local.configuration import LocalConfiguration
SUBSCRIPTION = Kit.subscription()
def make():
    return LocalMessageBus(TotoEnvironment("local", LocalConfiguration()), TOPICS)
async def put(bus, *numbers):
    for number in numbers:
        print("published", await bus.publish_message(POSTS, TotoMessage(type="number", id=str(number))), flush=True)
"""


def ids(process: Any) -> set[str]:
    return {line.split()[1] for line in process.lines if line.startswith("published ")}


async def received(kit: Any, number: int) -> set[str]:
    """Receive `number` messages that other processes published."""
    kit.clock.now = time.time() + 1
    bus, subscription = await kit.consumer()
    return {one.message_id for one in await kit.get(bus, subscription, number)}


async def test_forked_child_and_parent_both_go_on(kit: Any, script: Any) -> None:
    await (await kit.consumer())[0].close()
    process = script(
        PRELUDE
        + """
bus = make()
asyncio.run(put(bus, 1))
child = os.fork()
asyncio.run(put(bus, 2, 3))
if child == 0:
    asyncio.run(bus.close())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
asyncio.run(put(bus, 4))
asyncio.run(bus.close())
print("end")
"""
    )
    await asyncio.to_thread(process.expect, "^end")
    assert len(ids(process)) == 6
    assert await received(kit, 6) == ids(process)


@pytest.mark.parametrize("end", ["close", "exit", "kill"])
async def test_forked_child_that_lives_on_keeps_the_folder_from_nobody(kit: Any, script: Any, end: str) -> None:
    await (await kit.consumer())[0].close()
    process = script(
        PRELUDE
        + f"""
bus = make()
asyncio.run(put(bus, 1))
if os.fork() == 0:
    print("child", os.getpid(), flush=True)
    import time; time.sleep(1000)
how = {end!r}
if how == "close":
    asyncio.run(bus.close())
print("end", flush=True)
if how == "kill":
    os.kill(os.getpid(), 9)
os._exit(0) if how == "close" else sys.exit()
"""
    )
    await asyncio.to_thread(process.expect, "^end")
    await asyncio.to_thread(process.expect, "^child")
    try:
        async with asyncio.timeout(15):
            assert await received(kit, 1) == ids(process)
    finally:
        os.kill(int(process.expect(r"^child (\d+)").group(1)), signal.SIGKILL)


async def test_process_that_ends_without_closing_loses_nothing(kit: Any, script: Any) -> None:
    await (await kit.consumer())[0].close()
    process = script(PRELUDE + "bus = make()\nasyncio.run(put(bus, 1, 2, 3))\n")
    assert await asyncio.to_thread(process.wait) == 0
    assert not (kit.root / "bus.sqlite3-wal").exists(), "it was merged at the end"
    assert await received(kit, 3) == ids(process)


async def test_killed_process_loses_no_acknowledged_message(kit: Any, script: Any) -> None:
    await (await kit.consumer())[0].close()
    seen: set[str] = set()
    for _ in range(5):
        process = script(
            PRELUDE
            + """
async def main():
    bus = make()
    await asyncio.gather(*(put(bus, *range(100000)) for _ in range(8)))
asyncio.run(main())
"""
        )
        await asyncio.to_thread(process.expect, "published")
        process.kill()
        # The last line may have been cut by the kill.
        seen |= {one for one in ids(process) if len(one) == len(next(iter(ids(process))))}
    kit.clock.now = time.time() + 1
    bus, subscription = await kit.consumer()
    got: set[str] = set()
    while batch := await bus._receive(subscription, 1000, 0.3):
        got |= {one.message_id for one in batch}
    assert seen <= got, f"{len(seen - got)} of {len(seen)} lost"


async def test_stopped_process_lets_the_others_publish(kit: Any, script: Any) -> None:
    bus, _ = await kit.consumer()
    process = script(
        PRELUDE
        + """
async def main():
    bus = make()
    await asyncio.gather(*(put(bus, *range(100000)) for _ in range(4)))
asyncio.run(main())
"""
    )
    await asyncio.to_thread(process.expect, "published")
    refused = 0
    for number in range(8):
        process.send(signal.SIGSTOP)
        publishing = asyncio.ensure_future(kit.publish(bus, number))
        done, _ = await asyncio.wait([publishing], timeout=0.5)
        refused += not done  # stopped in the middle of its own commit: whoever comes next waits for it
        process.send(signal.SIGCONT)
        async with asyncio.timeout(20):
            await publishing
    assert refused < 8


async def test_eight_processes_publish_at_once_without_an_error(kit: Any, script: Any) -> None:
    await (await kit.consumer())[0].close()
    source = (
        PRELUDE
        + """
async def main():
    bus = make()
    await asyncio.gather(*(put(bus, *range(15)) for _ in range(8)))
    await bus.close()
    print("end")
asyncio.run(main())
"""
    )
    processes = [script(source) for _ in range(8)]
    for process in processes:
        assert await asyncio.to_thread(process.wait) == 0, process.output
    everything = set().union(*(ids(process) for process in processes))
    assert len(everything) == 8 * 8 * 15
    assert await received(kit, len(everything)) == everything


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "root"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("CANNOT MOUNT A SMALL DISK HERE: only root can; the test with a file size limit runs anyway")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_full_disk_refuses_loses_nothing_and_recovers_by_itself(small_disk: Path, kit: Any) -> None:
    assert kit.root == small_disk
    bus, subscription = await kit.consumer()
    await fill_and_recover(kit, bus, subscription, small_disk / "ballast")


async def fill_and_recover(kit: Any, bus: Any, subscription: Any, ballast: Path) -> None:
    waiting = asyncio.ensure_future(bus._receive(subscription, 1, 60))
    await asyncio.sleep(0)
    acknowledged = set(await kit.publish(bus, 1))
    (first,) = await waiting
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(b"x" * 65536)
                file.flush()
        except OSError:
            pass
    big = TotoMessage(type="big", data={"text": "x" * 50_000})
    refusals = 0
    for _ in range(100):
        try:
            acknowledged.add(await bus.publish_message(POSTS, big))
        except Unavailable:
            refusals += 1
            if refusals == 3:
                break
    assert refusals == 3
    other = asyncio.ensure_future(bus._receive(subscription, 100, 60))  # alive while the disk is full
    await asyncio.sleep(0)
    ballast.unlink()
    acknowledged.update(await kit.publish(bus, 2))
    assert await bus._ack([first]) == [None]
    got = {first.message_id} | {one.message_id for one in await other}
    async with asyncio.timeout(20):
        while not acknowledged <= got:
            got |= {one.message_id for one in await bus._receive(subscription, 100, 20)}
    await bus.close()
    again, _ = await kit.consumer()
    await kit.publish(again, 3)


async def test_file_that_may_not_grow_refuses_loses_nothing_and_recovers(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    acknowledged = set(await kit.publish(bus, 1, 2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in kit.root.iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, before[1]))
        big = TotoMessage(type="big", data={"text": "x" * 100_000})
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"bus\.sqlite3"):
                await bus.publish_message(POSTS, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    acknowledged.update(await kit.publish(bus, 3))
    assert {one.message_id for one in await kit.get(bus, subscription, 3)} == acknowledged


async def test_folder_that_cannot_be_used_is_told(kit: Any) -> None:
    from totoms.errors import BackendError

    kit.root.write_text("a file")
    bus = kit.bus()
    with pytest.raises(BackendError, match="root"):
        await kit.publish(bus, 1)
    kit.root.unlink()
    await kit.publish(bus, 1)  # and by itself again
