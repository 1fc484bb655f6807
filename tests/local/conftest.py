"""What the tests of the local bus share: buses on one root folder, and processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_kit import Kit
from processes import Process


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
