"""Several workers of a service: one of them listens for Prometheus, and shows the metrics of all."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from standins.ports import free_port
from support.telemetry.scrapes import eventually, samples, scrape, status, value
from totoms.telemetry.metrics_server import MAX_THREADS

WORKER = Path(__file__).parents[1] / "support" / "telemetry" / "worker.py"
Start = Callable[..., "Worker"]


class Worker:
    """One process, controlled by the test."""

    def __init__(self, service: str, port: int, folder: Path, group: int) -> None:
        variables = {**os.environ, "OTEL_EXPORTER_PROMETHEUS_PORT": str(port), "TMPDIR": str(folder)}
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), service],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables,
            process_group=group,
        )
        self.log: list[str] = []
        self._answer("ok")

    def __call__(self, command: str, answer: str = "ok") -> str:
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        return self._answer(answer)

    def _answer(self, start: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line.strip()
            self.log.append(line.strip())
        raise AssertionError(f"The worker has ended: {self.log}")

    def kill(self, how: int = signal.SIGKILL) -> None:
        self._process.send_signal(how)
        self._process.wait(30)

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/task").iterdir()))

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server() -> Iterator[int]:
    """A process group that lives during the test, as that of a server with workers does."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, process_group=0) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def start(port: int, tmp_path: Path, server: int) -> Iterator[Start]:
    """Start a worker; a group of 0 is a new one."""
    started: list[Worker] = []

    def start(service: str = "blog", group: int = server, folder: Path = tmp_path) -> Worker:
        started.append(Worker(service, port, folder, group))
        return started[-1]

    yield start
    for worker in started:
        worker.end()


def total(port: int) -> float | None:
    return value(port, "things_total", kind="test")


def test_one_listener_shows_the_metrics_of_three_workers(start: Start, port: int) -> None:
    workers = [start(), start(), start()]
    for number, worker in enumerate(workers, 1):
        worker(f"count {number}")
        worker(f"record {number * 4}")
        worker(f"handling {number}")
        worker(f"backlog {number * 10}")

    eventually(lambda: total(port), 6)
    eventually(lambda: value(port, "work_duration_seconds_count"), 3)
    eventually(lambda: value(port, "handling"), 6)
    eventually(lambda: value(port, "backlog_age_seconds"), 30)
    found = samples(port)
    assert found["work_duration_seconds_sum", frozenset()] == 24
    buckets = {dict(labels)["le"]: number for (name, labels), number in found.items() if name.endswith("_bucket")}
    assert buckets == {"1.0": 0, "10.0": 2, "+Inf": 3}
    assert sum("Metrics for Prometheus" in "\n".join(worker.log) for worker in workers) == 1


def test_worker_that_is_killed_keeps_its_totals_and_loses_its_gauges(start: Start, port: int) -> None:
    _listening, other, third = start(), start(), start()
    for worker, number in ((other, 5), (third, 1)):
        worker(f"count {number}")
        worker(f"record {number}")
        worker(f"handling {number}")
        worker(f"backlog {number}")
    eventually(lambda: (total(port), value(port, "backlog_age_seconds")), (6, 5))

    other.kill()
    eventually(lambda: value(port, "backlog_age_seconds"), 1)
    assert (total(port), value(port, "handling")) == (6, 1)
    assert value(port, "work_duration_seconds_sum") == 6

    start()("count 10")
    eventually(lambda: total(port), 16)


def test_another_worker_listens_when_the_one_that_did_is_killed(start: Start, port: int) -> None:
    listening, other, third = start(), start(), start()
    for number, worker in enumerate((listening, other, third), 1):
        worker(f"count {number}")
        worker(f"handling {number}")
    eventually(lambda: total(port), 6)

    listening.kill()
    eventually(lambda: (total(port), value(port, "handling")), (6, 5))
    eventually(lambda: total(port), 6)
    other.kill()
    eventually(lambda: (total(port), value(port, "handling")), (6, 3))


def test_another_worker_listens_when_the_one_that_did_ends(start: Start, port: int) -> None:
    listening, other = start(), start()
    other("count 1")
    listening("count 2")
    listening("close")  # with what it has counted since the last snapshot

    eventually(lambda: total(port), 3)


def test_what_was_counted_before_a_flush_outlives_the_worker(start: Start, port: int) -> None:
    start()
    other = start()
    for _ in range(3):
        other("count 2")
        other("flush")
    other.kill()
    assert total(port) == 6


def test_total_never_falls_while_workers_are_killed_and_started(start: Start, port: int) -> None:
    workers = [start(), start(), start()]
    shown = 0.0
    for number in range(6):
        worker = workers[number % 3]
        worker("count 1")
        eventually(lambda: total(port), number + 1)
        worker.kill()
        workers[number % 3] = start()
        now = None
        while now is None:
            now = total(port)
        assert now >= shown
        shown = now


def test_files_of_dead_workers_are_removed(start: Start, port: int, tmp_path: Path) -> None:
    start()
    for number in range(1, 6):
        worker = start()
        worker("count 1")
        eventually(lambda: total(port), number)
        worker.kill()
    (group,) = next(tmp_path.glob("totoms-*")).iterdir()
    eventually(lambda: len({path.name.partition(".")[0] for path in group.iterdir()} - {"leader", "ended"}), 1)
    assert total(port) == 5


def test_totals_outlive_a_moment_without_any_worker_of_the_same_server(start: Start, port: int) -> None:
    only = start()
    only("count 7")
    eventually(lambda: total(port), 7)
    only.kill()

    start()("count 1")
    eventually(lambda: total(port), 8)


def test_totals_start_from_zero_when_the_service_is_started_anew(start: Start, port: int) -> None:
    only = start(group=0)
    only("count 7")
    eventually(lambda: total(port), 7)
    only.kill()

    start(group=0)("count 1")
    eventually(lambda: total(port), 1)


def test_totals_stay_while_a_server_replaces_another(start: Start, port: int) -> None:
    old = start(group=0)
    old("count 7")
    new = start(group=0)
    new("count 1")
    eventually(lambda: total(port), 8)
    old.kill()
    eventually(lambda: total(port), 8)


def test_forked_child_does_not_keep_the_port_or_the_gauges(start: Start, port: int) -> None:
    listening, _other = start(), start()
    listening("count 1")
    listening("handling 1")
    child = int(listening("fork", "child").split()[1])
    try:
        eventually(lambda: total(port), 1)
        listening.kill()
        eventually(lambda: (total(port), value(port, "handling")), (1, None))
    finally:
        os.kill(child, signal.SIGKILL)


def test_folder_is_private_and_made_anew_when_somebody_deletes_it(start: Start, port: int, tmp_path: Path) -> None:
    listening, other = start(), start()
    other("count 2")
    eventually(lambda: total(port), 2)
    base = next(tmp_path.glob("totoms-*"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in (base, *base.iterdir())] == [0o700, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in base.glob("*/*")} == {0o600}

    # It fails while a worker writes.
    eventually(lambda: subprocess.run(["rm", "-r", str(base)], check=False, stderr=subprocess.DEVNULL).returncode, 0)
    listening("count 1")
    eventually(lambda: total(port), 3)


def test_worker_whose_files_are_deleted_is_not_counted_twice(start: Start, port: int, tmp_path: Path) -> None:
    _listening, other = start(), start()
    other("count 2")
    eventually(lambda: total(port), 2)
    for path in tmp_path.glob("totoms-*/*/*.lock"):
        path.unlink()
    other("count 1")
    other("flush")
    eventually(lambda: total(port), 3)
    assert total(port) == 3


@pytest.mark.parametrize("how", ["open", "link"])
def test_folder_that_others_can_write_to_is_not_used(start: Start, port: int, tmp_path: Path, how: str) -> None:
    base = tmp_path / f"totoms-{os.geteuid()}"
    if how == "open":
        base.mkdir()
        base.chmod(0o777)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        base.symlink_to(tmp_path / "elsewhere")

    worker = start()
    worker("count 1")
    eventually(lambda: total(port), 1)
    assert list(base.iterdir()) == []
    (line,) = [line for line in worker.log if '"ERROR"' in line]
    assert "cannot share its metrics with other workers" in line


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"families": [1]}',
        '{"families": [["a", "b"]]}',
        '{"families": [["things", "t", "counter", "", "sum", [["things_total", [["kind", "test"]], "x"]]]]}',
        '{"families": [["bad name", "t", "counter", "", "sum", []]]}',
        '{"families": [["things", "t", "nonsense", "", "sum", []]]}',
        '{"families": [[7, "t", "counter", "", "sum", []]]}',
        "\udcff",
    ],
)
def test_damaged_snapshot_is_left_out(start: Start, port: int, tmp_path: Path, content: str) -> None:
    listening = start()
    listening("count 1")
    eventually(lambda: total(port), 1)
    (group,) = next(tmp_path.glob("totoms-*")).iterdir()
    (group / "0123.json").write_bytes(content.encode(errors="surrogateescape"))
    (group / "0123.lock").touch()

    assert total(port) == 1
    assert not list(group.glob("0123.*"))


@pytest.mark.parametrize("content", ['{"folded": 7}', '{"folded": null, "families": 7}'])
def test_damaged_totals_are_replaced(start: Start, port: int, tmp_path: Path, content: str) -> None:
    listening = start()
    listening("count 1")
    eventually(lambda: total(port), 1)
    (group,) = next(tmp_path.glob("totoms-*")).iterdir()
    (group / "ended.json").write_text(content)
    (group / "0123.lock").touch()
    eventually(lambda: list(group.glob("0123.*")), [])
    assert total(port) == 1


def test_folder_in_place_of_a_file_does_not_stop_the_sharing(start: Start, port: int, tmp_path: Path) -> None:
    listening, other = start(), start()
    (group,) = next(tmp_path.glob("totoms-*")).iterdir()
    (group / "0123.json").mkdir()
    listening("count 1")
    other("count 2")
    eventually(lambda: total(port), 3)


def test_port_used_by_another_program_is_logged_once_and_taken_when_it_is_free(start: Start, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        workers = [start(), start()]
        for worker in workers:
            worker("count 1")
        lines = [line for worker in workers for line in worker.log if '"ERROR"' in line]
    assert len(lines) == 1
    assert f"cannot serve metrics for Prometheus at 127.0.0.1:{port}; it goes on" in lines[0]

    eventually(lambda: total(port), 2)


def test_other_service_with_the_same_port_is_a_stranger(start: Start, port: int) -> None:
    start("blog")("count 1")
    other = start("shop")
    other("count 10")
    assert any("cannot serve metrics" in line for line in other.log)
    eventually(lambda: total(port), 1)


def test_listener_serves_nothing_but_metrics(start: Start, port: int) -> None:
    start()
    assert scrape(port, "/").status_code == 404
    assert scrape(port).headers["server"] == "totoms"
    openmetrics = scrape(port, Accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


def test_web_page_whose_name_resolves_to_this_machine_reads_no_metrics(start: Start, port: int) -> None:
    start()
    for host in (f"rebound.example:{port}", "127.0.0.1.rebound.example", "localhost.rebound.example"):
        assert scrape(port, Host=host).status_code == 403
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "api.localhost", "prometheus-target:80"):
        assert scrape(port, Host=host).status_code == 200


def test_connections_that_send_nothing_do_not_keep_prometheus_out(start: Start, port: int) -> None:
    start()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        assert scrape(port).status_code == 200
        assert silent[0].recv(1) == b""
    finally:
        for connection in silent:
            connection.close()


def test_flood_of_requests_uses_no_more_threads_and_files_than_allowed(start: Start, port: int) -> None:
    worker = start()
    flood = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    try:
        for _ in range(300):
            flood.append(socket.create_connection(("127.0.0.1", port)))
            flood[-1].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert worker.threads() <= MAX_THREADS + 5
    finally:
        for connection in flood:
            connection.close()
    eventually(lambda: status(port), 200)
