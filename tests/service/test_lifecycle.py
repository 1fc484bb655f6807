"""Start, signals, exit statuses: a whole service as a process, over real sockets."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from standins.ports import free_port
from support.processes import DEADLINE, Process

BLOG = Path(__file__).parents[1] / "support/services/blog.py"


@pytest.fixture
def start(local_root: str) -> Iterator[Any]:
    processes: list[Process] = []

    def begin(*arguments: str, **env: str) -> Process:
        processes.append(Process(BLOG, *arguments, root=local_root, env=env))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()


@pytest.fixture
def token(local_root: str) -> str:
    command = [sys.executable, "-m", "totoms", "token", "--user", "me@example.com"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE).stdout.strip()


def client(process: Process, token: str) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{process.port()}", headers={"Authorization": f"Bearer {token}"}, timeout=DEADLINE
    )


class Answer(threading.Thread):
    """A GET under way in a thread."""

    def __init__(self, http: httpx.Client, path: str) -> None:
        super().__init__(daemon=True)
        self._http, self._path = http, path
        self.status: int | None = None
        self.start()

    def run(self) -> None:
        try:
            self.status = self._http.get(self._path).status_code
        except httpx.HTTPError:
            self.status = None


def test_service_answers_publishes_and_handles(start: Any, token: str) -> None:
    service = start()
    with client(service, token) as http:
        health = {"status": "ok", "apiName": "blog", "message": "Service is running"}
        assert http.get("/health").json().items() >= health.items()
        assert http.get("/ready").status_code == 200
        answer = http.post("/blog/posts", json={"title": "hello"}, headers={"x-correlation-id": "c-42"})
        assert answer.status_code == 200
        assert answer.headers["x-correlation-id"] == "c-42"
        service.expect("handler done hello cid=c-42")


@pytest.mark.parametrize("loop", ["asyncio", "fastest"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_and_ends_with_status_zero(start: Any, token: str, sig: int, loop: str) -> None:
    service = start(BLOG_LOOP=loop)
    with client(service, token) as http:
        http.post("/blog/posts", json={"title": "slow", "seconds": 0.5})
        service.expect("handler begun slow")
        request = Answer(http, "/blog/slow?seconds=0.5")
        service.expect("slow request begun")
        service.send(sig)
        request.join(DEADLINE)
        assert request.status == 200
    assert service.wait() == 0
    assert "handler done slow" in service.output
    assert "start returned" in service.output
    assert "Traceback" not in service.output


def test_service_serves_on_while_balancers_see_that_it_is_not_ready(start: Any, token: str) -> None:
    service = start(BLOG_DELAY="3600")
    with client(service, token) as http:
        service.send(signal.SIGTERM)
        service.expect("is no longer ready; it stops in 3600 s")
        answer = http.get("/ready")
        assert answer.status_code == 503
        assert answer.headers["connection"] == "close"
        assert http.post("/blog/posts", json={"title": "late"}).status_code == 200
        service.expect("handler done late")
        service.send(signal.SIGTERM)
        assert service.wait() == -signal.SIGTERM


def test_service_stops_after_the_delay(start: Any) -> None:
    service = start(BLOG_DELAY="0.2")
    service.port()
    service.send(signal.SIGTERM)
    assert service.wait() == 0
    assert service.output.index("is no longer ready") < service.output.index("is draining")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once_and_the_message_comes_again(
    start: Any, token: str, first: int, second: int
) -> None:
    service = start()
    with client(service, token) as http:
        http.post("/blog/posts", json={"title": "endless", "seconds": 3600})
        service.expect("handler begun endless")
        service.send(first)
        service.expect("is draining")
        service.send(second)
        assert service.wait() == -second


def test_second_signal_ends_a_process_whose_handler_blocks_the_loop(start: Any, token: str) -> None:
    service = start()
    with client(service, token) as http:
        http.post("/blog/posts", json={"title": "blocking", "block": 3600})
    service.expect("handler begun blocking")
    service.send(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        service.wait(0.2)
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        service.send(signal.SIGTERM)  # again and again: the kernel may merge two that come before the first was seen
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert service.wait(0.2) == -signal.SIGTERM
            return
    pytest.fail("the second signal did not end the process")


def test_handlers_over_the_grace_are_cut_off_and_their_message_comes_again(start: Any, token: str) -> None:
    service = start(BLOG_GRACE="0.2")
    with client(service, token) as http:
        http.post("/blog/posts", json={"title": "long", "seconds": 2})
    service.expect("handler begun long")
    service.send(signal.SIGTERM)
    assert service.wait() == 0
    assert "handler done long" not in service.output
    again = start()
    again.expect("handler done long")


@pytest.mark.parametrize("loop", ["asyncio", "fastest"])
def test_hung_def_handler_and_delegate_do_not_keep_the_process_and_the_message_comes_again(
    start: Any, token: str, loop: str
) -> None:
    service = start(BLOG_GRACE="0.2", BLOG_LOOP=loop)
    with client(service, token) as http:
        http.post("/blog/posts", json={"type": "hangs"})
        service.expect("handler hangs, attempt 1")
        request = Answer(http, "/blog/hang")
        service.expect("hung request begun")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
        request.join(DEADLINE)
        assert request.status != 200
    start().expect("handler hangs, attempt 2")


def assert_one_line_and_status_two(process: Process, names: str) -> None:
    assert process.wait() == 2
    errors = [line for line in process.lines if line.startswith("totoms: ")]
    assert len(errors) == 1
    assert names in errors[0]
    assert "Traceback" not in process.output


def test_port_in_use_is_one_line_and_status_two(start: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_one_line_and_status_two(start(port), port)


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"HYPERSCALER": "lokal"}, "local"),
        ({"HYPERSCALER": "nowhere"}, "nowhere"),
        ({"BLOG_NEEDS_SECRET": "1"}, "blog-api-key"),
        ({"ENVIRONMENT": "prod"}, "prod"),
        ({"JWT_SIGNING_KEY": "short"}, "jwt-signing-key"),
        ({"TOTOMS_LOCAL_ROOT": "/proc/no-such-folder"}, "/proc/no-such-folder"),
    ],
    ids=["misspelt", "unknown hyperscaler", "missing secret", "local in production", "short key", "root not writable"],
)
def test_service_that_cannot_start_says_why_in_one_line(start: Any, env: dict[str, str], names: str) -> None:
    assert_one_line_and_status_two(start(**env), names)


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_port_out_of_range_is_one_line_and_status_two(start: Any, port: str) -> None:
    assert_one_line_and_status_two(start(port), port)


def test_factory_serves_with_several_workers_under_uvicorn(local_root: str, token: str) -> None:
    port = free_port()
    arguments = ["blog:app", "--factory", "--workers", "2", "--port", str(port), "--app-dir", str(BLOG.parent)]
    server = Process("-m", "uvicorn", *arguments, root=local_root)
    try:
        for _ in range(2):
            server.expect("Application startup complete")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}) as http:
            assert http.get("/ready").status_code == 200
            assert http.post("/blog/posts", json={"title": "by a worker"}).status_code == 200
        server.expect("handler done by a worker")
        server.send(signal.SIGTERM)
        assert server.wait() in (0, -signal.SIGTERM)
        closed = [line for line in server.lines if line.startswith("closed by ")]
        assert len(closed) == len(set(closed)) == 2
    finally:
        server.kill()
