"""Processes of the fault tests, on one root folder, with a token for their callers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.processes import Process
from totoms.auth.tokens import make_token
from totoms.local.keys import signing_key

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def launch(local_root: str) -> Iterator[Callable[..., Process]]:
    """Start a script of tests/support as a process; it is killed at the end of the test."""
    processes: list[Process] = []

    def start(script: str, *arguments: object, root: Path | str = local_root, **env: str) -> Process:
        processes.append(Process(SUPPORT / script, *map(str, arguments), root=str(root), env=env))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


@pytest.fixture
def bearer(local_root: str) -> dict[str, str]:
    """The header of a caller of a service on the local backend."""
    return {"authorization": f"Bearer {make_token(signing_key(Path(local_root)), 'me@example.com')}"}
