"""The command lines of docs/deploying.md: the blog under other servers, with several workers."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from standins.ports import free_port
from support.processes import DEADLINE, Process
from totoms.auth.tokens import make_token

ROOT = Path(__file__).parents[2]
KEY = "a key for the tests of other servers"
PAGE = (ROOT / "docs/deploying.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^(?:uvicorn|gunicorn|granian) .*$", PAGE, re.MULTILINE)]
(WORKER,) = re.findall(r"^```python\n(# worker\.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_page_shows_three_servers_and_our_protocol_under_gunicorn() -> None:
    assert [command[0] for command in COMMANDS] == ["uvicorn", "gunicorn", "granian", "gunicorn"]


@pytest.fixture(params=COMMANDS, ids=lambda command: "-".join(re.findall(r"^\w+|worker\.Worker", " ".join(command))))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Process, httpx.Client]]:
    name, *arguments = request.param
    pytest.importorskip(name, reason="not installed: nox -s tests does")
    (tmp_path / "worker.py").write_text(WORKER)
    port = free_port()
    arguments = [word.replace("8080", str(port)) for word in arguments]
    arguments[arguments.index("--workers") + 1] = "2"
    variables = {
        "PYTHONPATH": f"{ROOT / 'examples' / 'blog'}{os.pathsep}{tmp_path}",
        "JWT_SIGNING_KEY": KEY,
        "DIGEST_KEY": "some key",
        "HYPERSCALER": "local",
    }
    process = Process("-m", name, *arguments, root=str(tmp_path / "root"), env=variables, cwd=tmp_path)
    headers = {"Authorization": f"Bearer {make_token(KEY, 'me@example.com', claims={'roles': ['author']})}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        yield process, client
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        process.send(signal.SIGTERM)  # so that a server that is still there ends its workers
        process.wait(5)
    process.kill()


def wait_until_both_workers_are_ready(process: Process) -> None:
    deadline = time.monotonic() + DEADLINE
    while process.output.count("Subscribed blog-posts") < 2:
        assert time.monotonic() < deadline, process.output
        time.sleep(0.02)


def test_documented_command_serves_handles_messages_and_drains(server: tuple[Process, httpx.Client]) -> None:
    process, client = server
    wait_until_both_workers_are_ready(process)
    assert client.get("/ready").status_code == 200

    for number in range(10):
        answer = client.post("/blog/posts", json={"title": f"Post {number}", "text": "by some worker"})
        assert answer.json() == {"slug": f"post-{number}"}
    for number in range(10):
        process.expect(f"Added post-{number} to the digest")

    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert len(re.findall("blog has stopped", process.output)) == 2
