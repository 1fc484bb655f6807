"""The services that the READMEs show are run as a reader would: saved to a file, started, called."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from standins.ports import free_port
from support.processes import Process

ROOT = Path(__file__).parents[2]


def python_block(page: str) -> str:
    """The one Python block of a page that is a whole service."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    (service,) = [block for block in blocks if "asyncio.run(main())" in block or "TotoMicroservice.run(" in block]
    return service


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], tuple[Process, httpx.Client]]]:
    started: list[Process] = []

    def starting(page: str) -> tuple[Process, httpx.Client]:
        port = free_port()
        script = tmp_path / "service.py"
        script.write_text(python_block(page).replace("start(port=8080)", "start()"))
        command = [sys.executable, "-m", "totoms", "token", "--user", "me@example.com"]
        service = Process(script, root=str(tmp_path / "root"), env={"PORT": str(port)}, cwd=tmp_path)
        started.append(service)
        assert service.port() == port
        token = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "", "TOTOMS_LOCAL_ROOT": str(tmp_path / "root")},
        ).stdout.strip()
        return service, httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"})

    yield starting
    for service in started:
        service.kill()


def test_first_service_answers_and_handles_its_message(start: Callable[[str], tuple[Process, httpx.Client]]) -> None:
    service, client = start("README.md")

    with client:
        assert client.get("/hello/world").json() == {"hello": "world", "from": "me@example.com"}
    service.expect("world was greeted")


def test_first_service_is_about_thirty_lines() -> None:
    assert len([line for line in python_block("README.md").splitlines() if line.strip()]) <= 33


def test_service_of_the_index_page_answers(start: Callable[[str], tuple[Process, httpx.Client]]) -> None:
    _, client = start("packages/totoms-core/README.md")

    with client:
        assert client.get("/hello").json() == {"hello": "me@example.com"}
