"""Callers and a pushing broker behind a network that drops, resets, delays and half-opens."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.faults.oracle import assert_duplicates_are_flagged, numbers, until_handled
from support.faults.proxy import FaultProxy
from support.processes import Process
from totoms import TotoMessage
from totoms.local.messages.push import push_token
from totoms.messages.message import encode_message

pytestmark = pytest.mark.faults

DEADLINE = 2.0
"""What a caller waits for an answer, in seconds: less than a response is delayed."""
ODDS = {"drop": 0.10, "reset": 0.05, "half_open": 0.01, "delay": 0.01}
STALL = 0.1


class Callers:
    """Many callers who repeat a request until it is answered well, each within its deadline."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._headers = headers
        self.acknowledged: set[int] = set()
        self.failures = 0
        self.slowest = 0.0

    async def send(self, wanted: range, callers: int, request: Callable[[int, int], dict[str, Any]]) -> None:
        """Have each of `wanted` acknowledged; `request` gives what to send for a number at an attempt."""
        queue = iter(wanted)
        await asyncio.gather(*(self._caller(queue, request) for _ in range(callers)))

    async def _caller(self, queue: Any, request: Callable[[int, int], dict[str, Any]]) -> None:
        async with httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=DEADLINE) as client:
            for number in queue:
                for attempt in itertools.count(1):
                    began = time.monotonic()
                    try:
                        async with asyncio.timeout(DEADLINE):
                            answer = await client.post(**request(number, attempt))
                        if answer.status_code == 200:
                            break
                    except (httpx.HTTPError, TimeoutError):
                        pass
                    finally:
                        self.slowest = max(self.slowest, time.monotonic() - began)
                    self.failures += 1
                    await asyncio.sleep(0.02)
                self.acknowledged.add(number)


async def figures(service: Process, bearer: dict[str, str], **params: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port()}", headers=bearer) as client:
        found: dict[str, Any] = (await client.get("/figures", params=params)).json()
        return found


async def outage(proxy: FaultProxy, seconds: float) -> None:
    """Away for a while: it is time itself that is the fault."""
    await proxy.kill()
    await asyncio.sleep(seconds)
    await proxy.restore()


async def test_http_callers_behind_a_faulty_network_lose_nothing_that_was_acknowledged(
    launch: Any, bearer: dict[str, str], tmp_path: Path, figure: Any
) -> None:
    total = 2_000
    handled = tmp_path / "handled"
    service = launch("faults/service.py", handled)
    port = await asyncio.to_thread(service.port)
    async with FaultProxy(port, seed=1) as proxy:
        callers = Callers(proxy.port, bearer)
        await callers.send(range(20), 4, lambda number, _: {"url": "/numbers", "json": {"number": number}})  # warm
        await figures(service, bearer, reset="1")
        proxy.odds = ODDS
        sending = asyncio.create_task(
            callers.send(range(20, total), 32, lambda number, _: {"url": "/numbers", "json": {"number": number}})
        )
        while len(callers.acknowledged) < total // 2:
            await asyncio.sleep(0.02)
        await outage(proxy, 2.0)
        async with asyncio.timeout(120):
            await sending
    assert callers.acknowledged == set(range(total))
    await asyncio.to_thread(until_handled, handled, callers.acknowledged)
    duplicates = assert_duplicates_are_flagged(handled)
    repeated = len(numbers(handled)) - total - duplicates
    found = await figures(service, bearer)
    assert found["longest_stall"] < STALL
    assert callers.slowest < DEADLINE + 1
    assert min(proxy.counts[name] for name in ODDS) > 0
    assert "Traceback" not in service.output
    spoilt = ", ".join(f"{proxy.counts[name]} {name}" for name in ODDS)
    figure(
        "HTTP through a proxy that spoils answers, away for 2 s",
        f"{spoilt} of {proxy.counts['responses']}: {total} acknowledged, 0 lost, {repeated} asked for twice; "
        f"slowest caller {callers.slowest:.1f} s, longest loop stall {found['longest_stall'] * 1000:.0f} ms",
    )


async def test_pushing_broker_behind_a_faulty_network_loses_nothing(
    launch: Any, local_root: str, tmp_path: Path, figure: Any
) -> None:
    total = 1_000
    handled = tmp_path / "handled"
    service = launch("faults/service.py", handled, "--delivery", "push", "--max-concurrency", 8)
    port = await asyncio.to_thread(service.port)
    bearer = {"authorization": f"Bearer {push_token(Path(local_root))}", "x-totoms-topic": "numbers"}

    def push(number: int, attempt: int) -> dict[str, Any]:
        message = TotoMessage(type="number", id=str(number), cid="c", data={"published": time.time()})
        headers = {"x-totoms-message-id": f"m-{number}", "x-totoms-attempt": str(attempt)}
        return {"url": "/events", "content": encode_message(message), "headers": headers}

    async with FaultProxy(port, seed=2) as proxy:
        proxy.odds = ODDS
        callers = Callers(proxy.port, bearer)
        async with asyncio.timeout(120):
            await callers.send(range(total), 16, push)
    assert callers.acknowledged == set(range(total))
    assert callers.acknowledged == set(numbers(handled))  # by the time of a 200 the handler has said SUCCESS
    again = len(numbers(handled)) - total
    # They are not flagged: what counts as an attempt when pushed is what the handler failed.
    assert again <= callers.failures
    assert callers.slowest < DEADLINE + 1
    assert "Traceback" not in service.output
    figure(
        f"push through such a proxy, {total} messages",
        f"0 lost, {again} handled again of {callers.failures} whose answers did not come; "
        f"slowest request {callers.slowest:.1f} s",
    )
