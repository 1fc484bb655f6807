"""Processes beside each other on the local bus: one that forked and lives on, one that is stopped."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from totoms import MessageDestination

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
        message_id = await bus.publish_message(POSTS, TotoMessage(type="number", id=str(number)))
        os.write(1, f"published {{message_id}}\\n".encode())  # at once: two processes write here
"""


def ids(process: Any) -> set[str]:
    """What the process said it had published, in lines that no kill cut short."""
    found = (re.fullmatch(r"published ([0-9a-f]{32})", line) for line in process.lines)
    return {one[1] for one in found if one}


async def received(kit: Any, number: int) -> set[str]:
    """Receive `number` messages that other processes published."""
    kit.clock.now = time.time() + 1
    bus, subscription = await kit.consumer()
    return {one.message_id for one in await kit.get(bus, subscription, number)}


@pytest.mark.parametrize("end", ["close", "exit", "kill"])
async def test_forked_child_that_lives_on_keeps_the_folder_from_nobody(kit: Any, script: Any, end: str) -> None:
    await (await kit.consumer())[0].close()
    process = script(
        PRELUDE
        + f"""
bus = make()
asyncio.run(put(bus, 1))
if os.fork() == 0:
    os.write(1, b"child %d\\n" % os.getpid())
    import time; time.sleep(1000)
how = {end!r}
if how == "close":
    asyncio.run(bus.close())
os.write(1, b"end\\n")
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
