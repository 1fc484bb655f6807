"""Eight processes on the local bus, and a reader that stays: the log is bounded, and the file shrinks afterwards."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.faults.oracle import numbers, until, until_handled

pytestmark = pytest.mark.faults

MOST_LOG = 64 * 1024 * 1024
SECONDS = 75
PROCESSES = 4
BACKLOG = 300_000


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_log_is_bounded_while_eight_processes_write(launch: Any, local_root: str, tmp_path: Path, figure: Any) -> None:
    handled, published = tmp_path / "handled", [tmp_path / f"published-{number}" for number in range(PROCESSES)]
    consumers = [launch("faults/consumer.py", handled, 10.0) for _ in range(PROCESSES)]
    for consumer in consumers:
        consumer.port()
    for number, file in enumerate(published):
        launch("faults/publisher.py", file, number * 10_000_000, (number + 1) * 10_000_000, 32)
    log, most, ends = Path(local_root) / "bus.sqlite3-wal", 0, time.monotonic() + SECONDS
    while time.monotonic() < ends:  # it is time itself that is the fault here
        most = max(most, size_of(log))
        time.sleep(0.05)
    figure(f"{2 * PROCESSES} processes on the local bus for {SECONDS} s", f"log at most {most >> 20} MiB")
    assert most <= MOST_LOG
    for consumer in consumers:
        assert "database is locked" not in consumer.output


def test_log_is_cut_once_a_reader_with_an_open_transaction_has_gone(
    launch: Any, local_root: str, tmp_path: Path, figure: Any
) -> None:
    handled, published = tmp_path / "handled", tmp_path / "published"
    launch("faults/consumer.py", handled, 10.0).port()
    publisher = launch("faults/publisher.py", published, 0, 10_000_000, 64)
    log = Path(local_root) / "bus.sqlite3-wal"
    with closing(sqlite3.connect(Path(local_root) / "bus.sqlite3", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM deliveries").fetchone()
        until(lambda: size_of(log) > 2 * MOST_LOG, lambda: f"the log has {size_of(log)} bytes", 300)
        grown = size_of(log)
    until(lambda: size_of(log) <= MOST_LOG, lambda: f"the log has {size_of(log)} bytes", 30)
    publisher.kill()
    until_handled(handled, set(numbers(published)))
    figure(
        "a reader with an open transaction", f"log {grown >> 20} MiB, and {size_of(log) >> 20} MiB after it has gone"
    )


def test_file_shrinks_after_a_backlog(launch: Any, local_root: str, tmp_path: Path, figure: Any) -> None:
    handled, published = tmp_path / "handled", tmp_path / "published"
    first = launch("faults/consumer.py", handled, 10.0)
    first.port()  # so that there is a subscription
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    launch("faults/publisher.py", published, 0, BACKLOG, 512).expect("published all", 600)
    file = Path(local_root) / "bus.sqlite3"
    grown = size_of(file)
    launch("faults/consumer.py", handled, 60.0, 0.0, 256)
    until(lambda: len(numbers(handled)) >= BACKLOG, lambda: f"{len(numbers(handled))} handled", 600)
    until(lambda: size_of(file) <= 16 * 1024 * 1024, lambda: f"the file has {size_of(file)} bytes", 120)
    figure(f"a backlog of {BACKLOG} messages, handled", f"file {grown >> 20} MiB, then {size_of(file) >> 20} MiB")
