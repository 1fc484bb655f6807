"""A hundred times what a service can handle, for a minute: it refuses or leaves waiting, and does not grow."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.faults.oracle import assert_duplicates_are_flagged, numbers
from totoms import TotoMessage
from totoms.local.messages.push import push_token
from totoms.messages.message import encode_message

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("TOTOMS_OVERLOAD_SECONDS", "60"))
AT_ONCE = 4
HANDLER_SECONDS = 1.0
CAPACITY = AT_ONCE / HANDLER_SECONDS
"""Messages per second that the service can handle."""
OVERLOAD = 100
MOST_GROWTH = 100 * 1024 * 1024
SLOW_CALLERS = 200


class Observer:
    """Asks the service for what it sees of itself, while it is overloaded."""

    def __init__(self, port: int, bearer: dict[str, str]) -> None:
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=bearer, timeout=10)
        self.answers: list[dict[str, Any]] = []
        self.slowest = 0.0

    async def look(self, **params: str) -> dict[str, Any]:
        began = time.monotonic()
        answer = await self.client.get("/figures", params=params)
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert answer.status_code == 200
        self.answers.append(answer.json())
        return self.answers[-1]

    async def watch(self, until: float) -> None:
        while time.monotonic() < until:
            await self.look()
            await asyncio.sleep(0.5)

    def growth(self) -> int:
        sizes = [answer["resident_bytes"] for answer in self.answers]
        return int(max(sizes) - sizes[0])

    def check(self) -> str:
        """Assert what holds under any load; return it for the table."""
        last = self.answers[-1]
        assert last["most_at_work"] == AT_ONCE, "the limit is kept, and reached"
        assert self.growth() < MOST_GROWTH
        assert last["longest_stall"] < 0.1
        return (
            f"grew {self.growth() / 2**20:.0f} MB, {last['most_at_work']} in flight (limit {AT_ONCE}), "
            f"longest stall {last['longest_stall'] * 1000:.0f} ms, own answers within {self.slowest:.2f} s"
        )


async def callers(url: str, bearer: dict[str, str], until: float) -> Counter[int]:
    """Far more requests than are answered at once, each held by a slow delegate."""
    statuses: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=SLOW_CALLERS, max_keepalive_connections=SLOW_CALLERS)
    async with httpx.AsyncClient(base_url=url, headers=bearer, timeout=30, limits=limits) as client:

        async def caller() -> None:
            while time.monotonic() < until:
                statuses[(await client.get("/slow", params={"seconds": "1"})).status_code] += 1

        await asyncio.gather(*(caller() for _ in range(SLOW_CALLERS)))
    return statuses


async def test_consumer_and_callers_overloaded_a_hundredfold(
    launch: Any, bearer: dict[str, str], tmp_path: Path, figure: Any
) -> None:
    published, handled = tmp_path / "published", tmp_path / "handled"
    options = ("--max-concurrency", AT_ONCE, "--handler-seconds", HANDLER_SECONDS)
    service = launch("faults/service.py", handled, *options)
    observer = Observer(await asyncio.to_thread(service.port), bearer)
    async with observer.client:
        await observer.look(reset="1")
        flood = launch("faults/flood.py", published, CAPACITY * OVERLOAD)
        ends = time.monotonic() + SECONDS
        statuses, _ = await asyncio.gather(callers(str(observer.client.base_url), bearer, ends), observer.watch(ends))
        flood.kill()
        await observer.look()
    offered = len(numbers(published))
    assert offered > 0.8 * SECONDS * CAPACITY * OVERLOAD
    assert set(statuses) == {200}
    told = observer.check()
    service.send(signal.SIGTERM)
    assert await asyncio.to_thread(service.wait) == 0
    done = len(set(numbers(handled)))
    assert done > 0.7 * SECONDS * CAPACITY, "it goes on at its own pace"
    assert assert_duplicates_are_flagged(handled) == 0
    figure(
        f"{OVERLOAD}x overload for {SECONDS:g} s: bus and {SLOW_CALLERS} HTTP callers",
        f"{offered} offered, {done} handled, {statuses[200]} requests answered; {told}",
    )


async def test_push_overloaded_a_hundredfold_answers_503(
    launch: Any, bearer: dict[str, str], local_root: str, tmp_path: Path, figure: Any
) -> None:
    handled = tmp_path / "handled"
    options = ("--max-concurrency", AT_ONCE, "--handler-seconds", HANDLER_SECONDS, "--delivery", "push")
    service = launch("faults/service.py", handled, *options)
    observer = Observer(await asyncio.to_thread(service.port), bearer)
    statuses: Counter[int] = Counter()
    acknowledged: set[int] = set()
    ends = time.monotonic() + SECONDS
    offered = itertools.count()
    headers = {"authorization": f"Bearer {push_token(Path(local_root))}", "x-totoms-topic": "numbers"}
    at_a_time = AT_ONCE * OVERLOAD
    limits = httpx.Limits(max_connections=at_a_time, max_keepalive_connections=at_a_time)

    async def broker(client: httpx.AsyncClient) -> None:
        while time.monotonic() < ends:
            number = next(offered)
            message = TotoMessage(type="number", id=str(number), cid="c", data={"published": time.time()})
            answer = await client.post("/events", content=encode_message(message))
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                acknowledged.add(number)
            else:
                assert int(answer.headers["retry-after"]) >= 1

    async with (
        observer.client,
        httpx.AsyncClient(base_url=observer.client.base_url, headers=headers, timeout=30, limits=limits) as client,
    ):
        await observer.look(reset="1")
        await asyncio.gather(observer.watch(ends), *(broker(client) for _ in range(at_a_time)))
        await observer.look()
    assert set(statuses) == {200, 503}
    assert statuses[200] > 0.7 * SECONDS * CAPACITY, "it goes on at its own pace"
    assert acknowledged == set(numbers(handled))
    told = observer.check()
    figure(
        f"{OVERLOAD}x overload for {SECONDS:g} s: push",
        f"{at_a_time} pushed at a time, {statuses.total()} in all, "
        f"{statuses[200]} handled, {statuses[503]} answered 503, 0 lost; {told}",
    )
