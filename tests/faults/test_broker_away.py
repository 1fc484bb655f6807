"""A real broker, NATS, killed and started anew, and behind a faulty network: publisher and consumer as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from support.emulators import require
from support.faults.oracle import assert_duplicates_are_flagged, numbers, until_handled, whole_lines
from support.faults.proxy import FaultProxy
from support.processes import Process
from totoms_nats.testing.server import PROGRAM, NatsServer

pytestmark = pytest.mark.faults

BACK_WITHIN = 5.0
KEY = "a-signing-key-for-the-fault-tests-0123456789"
TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsServer]:
    require(PROGRAM, remedy="apt-get install nats-server")
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsServer(folder) as running:
        asyncio.run(_prepare(running.url))
        yield running


async def _prepare(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="numbers", subjects=["numbers"])
    secrets = await client.jetstream().create_key_value(bucket="secrets")
    await secrets.put("jwt-signing-key", KEY.encode())
    await secrets.put("numbers_topic", b"numbers")
    await client.close()


def environment(port: int) -> dict[str, str]:
    return {"HYPERSCALER": "nats", "NATS_URL": f"nats://127.0.0.1:{port}", "NATS_LEASE_SECONDS": "2"}


def cpu_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def redeliveries(handled: Path) -> int:
    lines = whole_lines(handled)
    return len(lines) - len({line.split()[2] for line in lines})


def until_more(handled: Path, than: int, deadline: float) -> float:
    """Wait until more was handled; return how long that took. Looks at a file that another process writes."""
    began = time.monotonic()
    while len(numbers(handled)) <= than:
        assert time.monotonic() < began + deadline, "nothing was handled any more"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("seconds", [5, 60])
def test_broker_killed_comes_back_and_so_do_its_clients(
    launch: Any, broker: NatsServer, tmp_path: Path, figure: Any, seconds: int
) -> None:
    total, rate = 2_000, 200
    published, handled = tmp_path / "published", tmp_path / "handled"
    env = environment(broker.port)
    consumer = launch("faults/consumer.py", handled, 2, 0.002, 16, **env)
    consumer.port()
    publisher = launch("faults/publisher.py", published, 0, total, 16, 0, rate, **env)
    until_more(handled, total // 3, 60)
    broker.stop(signal.SIGKILL)
    before = [cpu_seconds(process) for process in (consumer, publisher)]
    time.sleep(seconds)  # an outage of this length is the fault
    busy = max(cpu_seconds(one) - then for one, then in zip((consumer, publisher), before, strict=True))
    seen = len(numbers(handled))
    broker.start()
    back = until_more(handled, seen, 30)
    publisher.expect("published all", 120)
    until_handled(handled, set(range(total)))
    assert back < BACK_WITHIN
    assert busy < 0.2 * seconds, "it waits, and is not busy with trying"
    assert "Traceback" not in consumer.output + publisher.output
    # Not all are flagged: a NATS that is killed forgets the deliveries of its last moments.
    figure(
        f"NATS killed for {seconds} s",
        f"{total} published, 0 lost, {redeliveries(handled)} redeliveries; back {back:.1f} s after "
        f"its return; {busy / seconds:.0%} of a processor meanwhile",
    )


async def test_publisher_and_consumer_behind_a_faulty_network_lose_nothing(
    launch: Any, broker: NatsServer, tmp_path: Path, figure: Any
) -> None:
    total = 1_000
    published, handled = tmp_path / "published", tmp_path / "handled"
    async with FaultProxy(broker.port, seed=3) as proxy:
        env = environment(proxy.port)
        consumer = launch("faults/consumer.py", handled, 2, 0.002, 16, **env)
        await asyncio.to_thread(consumer.port)
        publisher = launch("faults/publisher.py", published, 0, total, 16, 0, 100, **env)
        await asyncio.to_thread(publisher.expect, "^publishing$")
        await asyncio.to_thread(until_more, handled, 50, 60)
        proxy.odds = {"drop": 0.10, "reset": 0.02, "half_open": 0.002, "delay": 0.01}
        await asyncio.to_thread(publisher.expect, "published all", 240)
        proxy.odds = {}
        await asyncio.to_thread(until_handled, handled, set(range(total)))
    spoilt = ", ".join(f"{proxy.counts[name]} {name}" for name in ("drop", "reset", "half_open", "delay"))
    figure(
        "NATS through a proxy that spoils its answers",
        f"{spoilt} of {proxy.counts['responses']}: {total} published, 0 lost, "
        f"{assert_duplicates_are_flagged(handled)} redeliveries",
    )
