"""Processes killed, stopped and drained while thousands of messages flow through the local bus.

The oracle: the publisher notes a number once `publish_message` returned, the handler notes it before it says
SUCCESS. Then the two files are compared.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import Process

pytestmark = pytest.mark.faults

SUPPORT = Path(__file__).parents[1] / "support"
CONCURRENCY = 16
# What one consumer may hold: handlers at work, and as many whose acks are on their way.
IN_FLIGHT = 2 * CONCURRENCY


@pytest.fixture
def begin(local_root: str) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(script: str, *arguments: object) -> Process:
        processes.append(Process(SUPPORT / script, *map(str, arguments), root=local_root))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


def numbers(path: Path) -> list[int]:
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def until_quiet(handled: Path, wanted: set[int], deadline: float = 120.0) -> None:
    """Wait until every wanted number was handled. Reads a file that other processes write, hence by looking again."""
    ends = time.monotonic() + deadline
    while time.monotonic() < ends:
        if wanted <= set(numbers(handled)):
            return
        time.sleep(0.05)
    raise AssertionError(
        f"{len(wanted - set(numbers(handled)))} of {len(wanted)} acknowledged messages were not handled"
    )


def assert_duplicates_are_flagged(handled: Path) -> int:
    """Of the deliveries of one message, all but the first must say that they are not the first. Return how many."""
    attempts: dict[str, list[int]] = {}
    for line in handled.read_text().splitlines():
        _, attempt, message_id, _ = line.split()
        attempts.setdefault(message_id, []).append(int(attempt))
    for seen in attempts.values():
        assert len(set(seen)) == len(seen), "two deliveries of one message with the same attempt number"
    return sum(len(seen) - 1 for seen in attempts.values())


def test_processes_killed_at_random_lose_nothing(begin: Any, tmp_path: Path, figure: Any) -> None:
    total, consumer_kills, publisher_kills = 10_000, 50, 10
    published, handled = tmp_path / "published", tmp_path / "handled"
    dice = random.Random(20_001)
    # The subscription exists before the first message: a broker keeps no message without a subscription.
    consumer = begin("faults/consumer.py", handled, 2.0, 0.002, CONCURRENCY)
    consumer.port()
    publisher = begin("faults/publisher.py", published, 0, total)
    kills = ["consumer"] * consumer_kills + ["publisher"] * publisher_kills
    dice.shuffle(kills)
    for number, victim in enumerate(kills):
        threshold = (number + 1) * total // (len(kills) + 5)
        while len(numbers(handled)) < threshold and len(numbers(published)) < total:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.05))
        if victim == "consumer":
            consumer.kill()
            consumer = begin("faults/consumer.py", handled, 2.0, 0.002, CONCURRENCY)
            consumer.port()
        else:
            publisher.kill()
            publisher = begin("faults/publisher.py", published, 0, total)
    publisher.expect("published all", 120)
    acknowledged = set(numbers(published))
    assert len(acknowledged) == total
    until_quiet(handled, acknowledged)
    duplicates = assert_duplicates_are_flagged(handled)
    assert duplicates <= IN_FLIGHT * consumer_kills
    figure(
        f"{total} messages, consumer killed {consumer_kills}x, publisher {publisher_kills}x",
        f"0 lost, {duplicates} redeliveries, all flagged (bound {IN_FLIGHT * consumer_kills})",
    )


def test_consumer_stopped_past_its_lease_acks_nothing_twice(begin: Any, tmp_path: Path, figure: Any) -> None:
    total, stops = 1_500, 25
    published, handled = tmp_path / "published", tmp_path / "handled"
    first = begin("faults/consumer.py", handled, 0.5, 0.02, CONCURRENCY)
    first.port()
    second = begin("faults/consumer.py", handled, 0.5, 0.02, CONCURRENCY)
    second.port()
    publisher = begin("faults/publisher.py", published, 0, total, 4)
    for number in range(stops):
        victim = (first, second)[number % 2]
        victim.send(signal.SIGSTOP)
        time.sleep(0.8)  # past the lease: it is time itself that is the fault here
        victim.send(signal.SIGCONT)
        time.sleep(0.1)
    publisher.expect("published all", 120)
    until_quiet(handled, set(numbers(published)))
    duplicates = assert_duplicates_are_flagged(handled)
    for consumer in (first, second):
        consumer.send(signal.SIGTERM)
        assert consumer.wait() == 0
    refused = sum(process.output.count("lease of message") for process in (first, second))
    figure(
        f"consumer stopped past its lease {stops}x",
        f"0 double acks, {refused} stale leases refused, {duplicates} redeliveries",
    )


def test_sigterm_with_many_in_flight_loses_and_dead_letters_nothing(begin: Any, tmp_path: Path, figure: Any) -> None:
    total, runs, in_flight = 10_000, 50, 100
    published, handled = tmp_path / "published", tmp_path / "handled"
    consumer = begin("faults/consumer.py", handled, 10.0, 0.05, in_flight, 3)
    consumer.port()
    publisher = begin("faults/publisher.py", published, 0, total, 128)
    slowest = 0.0
    for run in range(runs):
        threshold = (run + 1) * 120
        while len(numbers(handled)) < threshold and len(numbers(handled)) < total:
            time.sleep(0.005)
        began = time.monotonic()
        consumer.send(signal.SIGTERM)
        assert consumer.wait() == 0
        slowest = max(slowest, time.monotonic() - began)
        consumer = begin("faults/consumer.py", handled, 10.0, 0.05, in_flight, 3)
        consumer.port()
    publisher.expect("published all", 120)
    until_quiet(handled, set(numbers(published)))
    counts = Counter(numbers(handled))
    assert slowest < 5 + 2, "grace and two seconds"
    repeated = sum(count - 1 for count in counts.values())
    assert repeated == 0, "a drained consumer leaves nothing half done"
    consumer.send(signal.SIGTERM)
    consumer.wait()
    figure(
        f"SIGTERM with {in_flight} in flight, {runs} runs",
        f"0 lost, 0 repeated, slowest exit {slowest:.2f} s (grace 5 s)",
    )


def latency_p99(handled: Path) -> float:
    latencies = sorted(float(line.split()[3]) for line in handled.read_text().splitlines())
    return latencies[len(latencies) * 99 // 100]


def dead_letters(root: str, expected: int, deadline: float = 120.0) -> list[int]:
    """Wait for `expected` dead letters and return the attempts of each."""
    database = sqlite3.connect(f"file:{root}/bus.sqlite3?mode=ro", uri=True)
    try:
        ends = time.monotonic() + deadline
        dead: list[int] = []
        while len(dead) < expected and time.monotonic() < ends:
            time.sleep(0.05)
            dead = [attempts for (attempts,) in database.execute("select attempts from dead_letters")]
        return dead
    finally:
        database.close()


def test_poison_is_dead_lettered_after_exactly_its_attempts_and_delays_no_other_message(
    tmp_path: Path, figure: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    attempts, rate = 3, 500
    clean = 0.0
    for percent, total in ((0, 10_000), (1, 10_000), (5, 10_000), (100, 10_000)):
        root = str(tmp_path_factory.mktemp("root"))
        published, handled = tmp_path / f"published-{percent}", tmp_path / f"handled-{percent}"
        every = 100 // percent if percent else 0
        consumer = Process(SUPPORT / "faults/consumer.py", str(handled), "10", "0", "64", str(attempts), root=root)
        publisher = None
        try:
            consumer.port()
            arguments = (str(published), "0", str(total), "64", str(every), str(rate))
            publisher = Process(SUPPORT / "faults/publisher.py", *arguments, root=root)
            publisher.expect("published all", 120)
            good = {number for number in numbers(published) if not every or number % every}
            until_quiet(handled, good)
            assert dead_letters(root, total - len(good)) == [attempts] * (total - len(good))
        finally:
            consumer.kill()
            if publisher is not None:
                publisher.kill()
        p99 = latency_p99(handled) if good else 0.0
        clean = clean or p99
        rest = f"p99 of the rest {p99 * 1000:.1f} ms, {p99 / clean:.2f}x the clean run" if good else "no others"
        figure(
            f"{percent} % poison among {total} at {rate}/s",
            f"{total - len(good)} dead after {attempts} attempts; {rest}",
        )


def test_eight_processes_write_one_bus_at_once(begin: Any, tmp_path: Path, figure: Any) -> None:
    each, processes = 1_000, 8
    handled = tmp_path / "handled"
    consumer = begin("faults/consumer.py", handled, 10.0, 0, 64)
    consumer.port()
    files = [tmp_path / f"published-{number}" for number in range(processes)]
    publishers = [
        begin("faults/publisher.py", file, number * each, (number + 1) * each, 16) for number, file in enumerate(files)
    ]
    for publisher in publishers:
        publisher.expect("published all", 120)
        assert "publish failed" not in publisher.output
        assert "locked" not in publisher.output
    wanted = {number for file in files for number in numbers(file)}
    assert len(wanted) == each * processes
    until_quiet(handled, wanted)
    assert "locked" not in consumer.output
    figure(
        f"{processes} processes write the local bus at once",
        f"{len(wanted)} published and handled, 0 'database is locked'",
    )
