"""Three workers of a service under other servers have one listener for Prometheus."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from standins.ports import free_port
from support.processes import Process
from support.telemetry.scrapes import eventually, samples

SERVICES = Path(__file__).parents[1] / "support" / "services"
WORKERS = 3
COMMANDS = {
    "uvicorn": ["uvicorn", "--factory", "counted:app", "--workers", "3", "--port"],
    "gunicorn": ["gunicorn", "counted:app()", "--worker-class=uvicorn_worker.UvicornWorker", "--workers=3", "--bind"],
    "granian": ["granian", "--interface=asgi", "--factory", "counted:app", "--workers", "3", "--port"],
}


class Server:
    """A server with three workers."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.port, self.metrics_port = free_port(), free_port()
        module, *arguments = COMMANDS[name]
        address = f"127.0.0.1:{self.port}" if name == "gunicorn" else str(self.port)
        variables = {
            "PYTHONPATH": str(SERVICES),
            "HYPERSCALER": "local",
            "OTEL_METRICS_EXPORTER": "prometheus",
            "OTEL_EXPORTER_PROMETHEUS_PORT": str(self.metrics_port),
            "TMPDIR": str(root),
        }
        self.process = Process("-m", module, *arguments, address, root=str(root / "data"), env=variables, cwd=root)
        self.requests = 0

    def ask(self) -> int:
        """Send a request on a new connection; return which process answered, or 0 if none did."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/worker", trust_env=False, timeout=30)
        except httpx.TransportError:  # it is starting, or this worker was killed
            return 0
        self.requests += answer.status_code == 200
        return int(answer.json()["process"])

    def counted(self) -> float:
        """How many requests Prometheus sees."""
        try:
            found = samples(self.metrics_port)
        except httpx.TransportError:
            return -1
        return sum(count for (name, _), count in found.items() if name == "http_server_request_duration_seconds_count")


@pytest.fixture(params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip(request.param, reason="not installed: nox -s tests does")
    server = Server(request.param, tmp_path)
    yield server
    server.process.kill()


def test_one_listener_counts_the_requests_to_all_workers(server: Server) -> None:
    processes: set[int] = set()

    def answered() -> int:
        processes.update({server.ask()} - {0})
        return len(processes)

    eventually(answered, WORKERS)
    eventually(server.counted, server.requests)
    assert server.process.output.count("Metrics for Prometheus") == 1

    if server.name != "granian":  # which ends when a worker is killed
        killed = processes.pop()
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: server.ask() not in (0, killed), True)
        eventually(server.counted, server.requests)
