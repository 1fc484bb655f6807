"""What the tests of the local bus share: buses on the test's own folder, and processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from support.local.bus import BLOG, Clock, make_bus
from support.processes import Process
from totoms.local.messages.bus import LocalMessageBus

TESTS = Path(__file__).parents[1]
PRELUDE = """
import asyncio, os, sys
from support.local.bus import BLOG, make_bus, number_of, open_bus, publish, receive, receive_numbers
root = os.environ["TOTOMS_LOCAL_ROOT"]
def tell(*what):  # at once, so that lines of several processes are not mixed
    os.write(1, (" ".join(map(str, what)) + "\\n").encode())
"""


@pytest.fixture
def script(tmp_path: Path, local_root: str) -> Iterator[Callable[..., Process]]:
    """Start a piece of Python as a process on the test's folder; it is killed at the end of the test."""
    started: list[Process] = []

    def start(source: str, *arguments: object) -> Process:
        path = tmp_path / f"script-{len(started)}.py"
        path.write_text(PRELUDE + source)
        started.append(Process(path, *map(str, arguments), root=local_root, env={"PYTHONPATH": str(TESTS)}))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bus(local_root: str, clock: Clock) -> AsyncIterator[LocalMessageBus]:
    """A bus that has subscribed `BLOG` and goes by the test's clock."""
    bus = make_bus(local_root, clock)
    await bus._subscribe(BLOG, create=True)
    yield bus
    await bus.close()


@pytest.fixture
async def another(local_root: str, clock: Clock, tmp_path: Path) -> AsyncIterator[Callable[..., LocalMessageBus]]:
    """Make further buses on the same folder.

    Args of the function:
        process: Give it a writer, a connection and locks of its own, as if it were in another process.
    """
    made: list[LocalMessageBus] = []

    def make(*, process: bool = False) -> LocalMessageBus:
        root = Path(local_root)
        if process:
            root = tmp_path / f"link-{len(made)}"
            root.symlink_to(local_root)
        made.append(make_bus(root, clock))
        return made[-1]

    yield make
    for bus in made:
        await bus.close()
