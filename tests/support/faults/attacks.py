"""What strangers do to a service, and what those notice who have business with it.

::

    service = Attacked(launch("faults/service.py", ...), bearer, local_root)
    await service.warm_up()
    async with crowd(900, attacker):
        seen = await service.serve_the_others()
    seen.check()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from support.processes import Process
from totoms import TotoMessage
from totoms.local.messages.push import push_token
from totoms.messages.message import encode_message

GOOD = 25
MOST_GROWTH = 20 * 1024 * 1024
ROUNDS = 3
_MOST_SECONDS = 150.0
_PAUSE = 2.0
"""Seconds between rounds while attackers run that take a minute."""

Attacker = Callable[[int], Awaitable[None]]


@contextlib.asynccontextmanager
async def crowd(number: int, attacker: Attacker, *, head_start: float = 2.0) -> AsyncIterator[None]:
    """Run `number` attackers, each with a number of its own, while the block runs.

    Args:
        number: How many.
        attacker: What one does. Its connection may be closed at any time.
        head_start: Seconds that they have before the block begins.
    """

    async def attack(which: int) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await attacker(which)

    tasks = [asyncio.create_task(attack(which)) for which in range(number)]
    await asyncio.sleep(head_start)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection, and reset it in the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()


@dataclass
class Seen:
    """What good callers saw, and what the attack cost the service."""

    slowest: float
    idle: float
    statuses: list[int]
    grown: int

    def check(self) -> str:
        """Assert what FAULTS.md promises; return it for the table."""
        rounds = len(self.statuses) // (2 * GOOD)
        assert rounds >= ROUNDS
        assert self.statuses == [200] * (2 * GOOD * rounds)
        assert self.slowest < max(1.0, 10 * self.idle), f"{self.slowest:.2f} s, idle {self.idle:.2f} s"
        assert self.grown < MOST_GROWTH, f"{self.grown / 2**20:.1f} MB"
        return (
            f"{rounds} x {GOOD} requests and {GOOD} pushes answered, slowest {self.slowest:.2f} s "
            f"(idle {self.idle:.2f} s), RSS {self.grown / 2**20:+.1f} MB"
        )


class Attacked:
    """A running ``service.py``.

    Args:
        process: The service.
        bearer: The header of a good caller.
        root: The folder of the local backend.
    """

    def __init__(self, process: Process, bearer: dict[str, str], root: str) -> None:
        self.process = process
        self.bearer = bearer
        self.root = Path(root)
        self.port = process.port()
        self.idle = 0.0
        self._memory = self._descriptors = 0
        self._next = 0

    async def warm_up(self) -> None:
        """Measure response times, memory and descriptors without an attack."""
        await self._round()  # the first time is the slowest
        self.idle = max([(await self._round())[0] for _ in range(ROUNDS)])
        self._memory, self._descriptors = self.resident(), self.descriptors()

    async def serve_the_others(self) -> Seen:
        """Send good requests and genuine pushes, on connections of their own."""
        rounds = [await self._round() for _ in range(ROUNDS)]
        statuses = [status for _, found in rounds for status in found]
        return Seen(max(slowest for slowest, _ in rounds), self.idle, statuses, self.resident() - self._memory)

    async def serve_the_others_beside(self, attackers: Sequence[Process]) -> Seen:
        """Send good requests and genuine pushes until processes of attackers end; return the worst that was seen."""
        seen = await self.serve_the_others()
        async with asyncio.timeout(_MOST_SECONDS):
            while not all(one.ended for one in attackers):
                await asyncio.sleep(_PAUSE)
                later = await self.serve_the_others()
                slowest, grown = max(seen.slowest, later.slowest), max(seen.grown, later.grown)
                seen = Seen(slowest, self.idle, seen.statuses + later.statuses, grown)
        return seen

    async def back_to_the_start(self, seconds: float = 60) -> None:
        """Wait until as many descriptors are open as before."""
        async with asyncio.timeout(seconds):
            while self.descriptors() > self._descriptors:
                await asyncio.sleep(0.1)

    def resident(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def _round(self) -> tuple[float, list[int]]:
        """Return the longest time that an answer took, and the statuses."""
        pushed = {"authorization": f"Bearer {push_token(self.root)}", "x-totoms-topic": "numbers"}
        first, self._next = self._next, self._next + GOOD

        async def timed(client: httpx.AsyncClient, number: int) -> tuple[float, int]:
            begun = time.monotonic()
            if number % 2:
                answer = await client.get("/figures", headers=self.bearer)
            else:
                message = TotoMessage(type="number", id=str(first + number // 2), cid="c", data={"published": 0})
                answer = await client.post("/events", content=encode_message(message), headers=pushed)
            return time.monotonic() - begun, answer.status_code

        limits = httpx.Limits(max_connections=2 * GOOD)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60, limits=limits) as client:
            seen = await asyncio.gather(*(timed(client, number) for number in range(2 * GOOD)))
        return max(seconds for seconds, _ in seen), [status for _, status in seen]
