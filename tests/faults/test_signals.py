"""A process that is told to end in the middle of its work: what it had comes again, what was asked is answered."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from oracle import assert_duplicates_are_flagged, numbers, until_handled
from processes import DEADLINE, Process
from totoms import TotoMessage
from totoms.local.pushes import push_token
from totoms.messages import encode_message

pytestmark = pytest.mark.faults

LEASE = 1.0
ENDLESS = ("--handler-seconds", 3600)
BLOCKING = ("--block-seconds", 3600)


def end(process: Process, second: int) -> int:
    """Send the second signal until the process has ended: the kernel merges two that come before the first was seen."""
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        process.send(second)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.2)
    raise AssertionError("the second signal did not end the process")


def test_second_signal_ends_the_process_and_its_messages_come_again(
    launch: Any, bearer: dict[str, str], tmp_path: Path, figure: Any
) -> None:
    handled = tmp_path / "handled"
    cases = [
        (signal.SIGTERM, signal.SIGTERM, ENDLESS),
        (signal.SIGTERM, signal.SIGINT, ENDLESS),
        (signal.SIGINT, signal.SIGTERM, ENDLESS),
        (signal.SIGINT, signal.SIGINT, ENDLESS),
        (signal.SIGTERM, signal.SIGTERM, BLOCKING),
        (signal.SIGINT, signal.SIGINT, BLOCKING),
    ]
    slowest = 0.0
    for number, (first, second, kind) in enumerate(cases):
        victim = launch("fault_service.py", handled, "--tell", "--lease-seconds", LEASE, "--grace", 3600, *kind)
        url = f"http://127.0.0.1:{victim.port()}/numbers"
        with contextlib.suppress(httpx.ReadTimeout):  # whose handler blocks the loop may answer nobody any more
            assert httpx.post(url, json={"number": number}, headers=bearer, timeout=2).status_code == 200
        victim.expect(f"begun {number}")
        victim.send(first)
        if kind is ENDLESS:
            victim.expect("is draining")
        assert end(victim, second) == -second
        began = time.monotonic()
        again = launch("fault_service.py", handled, "--lease-seconds", LEASE)
        until_handled(handled, {number}, 30)
        slowest = max(slowest, time.monotonic() - began)
        again.send(signal.SIGTERM)
        assert again.wait() == 0
    attempts = [int(line.split()[1]) for line in handled.read_text().splitlines()]
    # While the loop is blocked its leases run out as well, each time one attempt.
    assert attempts[:4] == [2] * 4
    assert min(attempts[4:]) >= 2
    figure(
        "second SIGTERM or SIGINT, handler endless or blocking",
        f"{len(cases)} of {len(cases)} ended, each message came again within {slowest:.1f} s (lease {LEASE:g} s)",
    )


async def test_push_requests_in_hand_are_answered_while_the_service_drains(
    launch: Any, local_root: str, tmp_path: Path, figure: Any
) -> None:
    runs, at_once, grace = 10, 8, 5
    handled = tmp_path / "handled"
    statuses: Counter[int] = Counter()
    acknowledged: set[int] = set()
    slowest = 0.0
    for run in range(runs):
        options = ("--delivery", "push", "--max-concurrency", at_once, "--handler-seconds", 0.4, "--grace", grace)
        service = launch("fault_service.py", handled, "--tell", *options)
        port = await asyncio.to_thread(service.port)
        headers = {"authorization": f"Bearer {push_token(Path(local_root))}", "x-totoms-topic": "numbers"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client:

            async def push(number: int, client: httpx.AsyncClient = client) -> None:
                message = TotoMessage(type="number", id=str(number), cid="c", data={"published": time.time()})
                answer = await client.post("/events", content=encode_message(message))
                statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    acknowledged.add(number)

            first = run * 2 * at_once
            pushes = [asyncio.create_task(push(number)) for number in range(first, first + at_once)]
            for number in range(first, first + at_once):
                await asyncio.to_thread(service.expect, f"begun {number}$")
            pushes += [asyncio.create_task(push(number)) for number in range(first + at_once, first + 2 * at_once)]
            while statuses[503] < (run + 1) * at_once:  # the endpoint is full
                await asyncio.sleep(0)
            began = time.monotonic()
            service.send(signal.SIGTERM)
            await asyncio.gather(*pushes)
        assert await asyncio.to_thread(service.wait) == 0
        slowest = max(slowest, time.monotonic() - began)
    assert statuses == {200: runs * at_once, 503: runs * at_once}
    assert set(numbers(handled)) == acknowledged
    assert assert_duplicates_are_flagged(handled) == 0
    assert slowest < grace + 2
    figure(
        f"SIGTERM with {at_once} pushes in hand and {at_once} refused, {runs} runs",
        f"{statuses[200]} answered 200, {statuses[503]} answered 503, none left without; slowest exit {slowest:.2f} s",
    )
