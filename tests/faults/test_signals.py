"""A process that gets a signal in the middle of its work: its messages are redelivered, its requests are answered."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.faults.oracle import assert_duplicates_are_flagged, numbers, until, until_handled
from support.processes import DEADLINE, Process
from totoms import TotoMessage
from totoms.local.messages.push import push_token
from totoms.messages.message import encode_message

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
        victim = launch("faults/service.py", handled, "--tell", "--lease-seconds", LEASE, "--grace", 3600, *kind)
        url = f"http://127.0.0.1:{victim.port()}/numbers"
        with contextlib.suppress(httpx.ReadTimeout):  # a handler that blocks the loop may prevent every answer
            assert httpx.post(url, json={"number": number}, headers=bearer, timeout=2).status_code == 200
        victim.expect(f"begun {number}")
        victim.send(first)
        if kind is ENDLESS:
            victim.expect("is draining")
        assert end(victim, second) == -second
        began = time.monotonic()
        again = launch("faults/service.py", handled, "--lease-seconds", LEASE)
        until_handled(handled, {number}, 30)
        slowest = max(slowest, time.monotonic() - began)
        assert httpx.get(f"http://127.0.0.1:{again.port()}/health").status_code == 200  # from now on it hears signals
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
        options = ("--delivery", "push", "--max-concurrency", at_once, "--handler-seconds", 1, "--grace", grace)
        service = launch("faults/service.py", handled, "--tell", *options)
        port = await asyncio.to_thread(service.port)
        headers = {"authorization": f"Bearer {push_token(Path(local_root))}", "x-totoms-topic": "numbers"}
        sent: list[int] = []
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client:
            # Of a connection that is open already the service reads what was sent before the next answer comes.
            await asyncio.gather(*(client.get("/health") for _ in range(2 * at_once + 1)))

            async def push(number: int, client: httpx.AsyncClient = client, sent: list[int] = sent) -> None:
                async def trace(event: str, _: object) -> None:
                    if event == "http11.receive_response_headers.started":
                        sent.append(number)

                message = TotoMessage(type="number", id=str(number), cid="c", data={"published": time.time()})
                content = encode_message(message)
                answer = await client.post("/events", content=content, extensions={"trace": trace})
                statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    acknowledged.add(number)

            first = run * 2 * at_once
            pushes = [asyncio.create_task(push(number)) for number in range(first, first + at_once)]
            for number in range(first, first + at_once):
                await asyncio.to_thread(service.expect, f"begun {number}$")
            pushes += [asyncio.create_task(push(number)) for number in range(first + at_once, first + 2 * at_once)]
            async with asyncio.timeout(DEADLINE):
                while len(sent) < 2 * at_once:
                    await asyncio.sleep(0.01)
            assert (await client.get("/health")).status_code == 200
            began = time.monotonic()
            service.send(signal.SIGTERM)
            await asyncio.gather(*pushes)
        assert await asyncio.to_thread(service.wait) == 0
        slowest = max(slowest, time.monotonic() - began)
    assert set(statuses) == {200, 503}
    assert statuses[200] >= runs * at_once
    assert statuses.total() == 2 * runs * at_once
    assert set(numbers(handled)) == acknowledged
    assert assert_duplicates_are_flagged(handled) == 0
    assert slowest < grace + 2
    figure(
        f"SIGTERM with {at_once} pushes in hand and {at_once} waiting, {runs} runs",
        f"{statuses[200]} answered 200, {statuses[503]} answered 503, none left without; slowest exit {slowest:.2f} s",
    )


def test_hung_def_handlers_and_delegates_leave_others_alone_and_end_with_the_grace(
    launch: Any, bearer: dict[str, str], figure: Any
) -> None:
    grace, handlers, delegates = 2.0, 16, 60
    service = launch("services/blog.py", BLOG_GRACE=str(grace))
    url = f"http://127.0.0.1:{service.port()}/blog"
    for _ in range(handlers):
        assert httpx.post(f"{url}/posts", json={"type": "hangs"}, headers=bearer, timeout=DEADLINE).status_code == 200
    for _ in range(delegates):
        threading.Thread(target=_ask, args=(f"{url}/hang", bearer), daemon=True).start()
    until(lambda: service.output.count("handler hangs") == handlers, lambda: "not all handlers run at a time")
    until(lambda: service.output.count("hung request begun") == delegates, lambda: "not all delegates run at a time")
    slowest = 0.0
    for _ in range(25):
        began = time.monotonic()
        assert httpx.get(f"{url}/slow?seconds=0", headers=bearer, timeout=DEADLINE).status_code == 200
        slowest = max(slowest, time.monotonic() - began)
    began = time.monotonic()
    service.send(signal.SIGTERM)
    assert service.wait() == 0
    ended = time.monotonic() - began
    figure(
        f"{handlers} def handlers and {delegates} def delegates that block",
        f"25 requests answered, the slowest in {slowest:.2f} s; exit after {ended:.1f} s (grace {grace:g} s)",
    )
    assert slowest < 1.0
    assert ended < grace + 5


def _ask(url: str, headers: dict[str, str]) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(url, headers=headers, timeout=DEADLINE)
