"""What the tests of the local bus share: buses on the test's own folder, and processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_bus_kit import BLOG, BusClock, make_bus
from local_kit import Kit
from processes import Process
from totoms.local.bus import LocalMessageBus


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    made = Kit(tmp_path / "root")
    yield made
    for bus in made.buses:
        await bus.close()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Start a piece of Python as a process; it is killed at the end of the test."""
    started: list[Process] = []

    def start(source: str, *arguments: object) -> Process:
        path = tmp_path / f"script-{len(started)}.py"
        path.write_text(source)
        started.append(Process(path, *map(str, arguments), root=str(tmp_path / "root")))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def clock() -> BusClock:
    return BusClock()


@pytest.fixture
async def bus(local_root: str, clock: BusClock) -> AsyncIterator[LocalMessageBus]:
    """A bus that has subscribed `BLOG` and goes by the test's clock."""
    bus = make_bus(local_root, clock)
    await bus._subscribe(BLOG, create=True)
    yield bus
    await bus.close()


@pytest.fixture
async def another(local_root: str, clock: BusClock, tmp_path: Path) -> AsyncIterator[Callable[..., LocalMessageBus]]:
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
