"""Attacks on the push endpoint: half-sent bodies, during good requests and genuine pushes, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.processes import Process
from totoms import TotoMessage
from totoms.local.messages.push import push_token
from totoms.messages.message import encode_message

pytestmark = pytest.mark.faults

GOOD = 25
GRACE = 5.0
PAUSE = 50.0
"""Seconds between two bytes of a stranger."""


class Stranger:
    """Says that 100,000 bytes follow, and sends one now and then."""

    async def come(self, port: int) -> None:
        _, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{")
        await self._writer.drain()
        self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                await asyncio.sleep(PAUSE)
                self._writer.write(b" ")
                await self._writer.drain()

    async def leave(self) -> None:
        self._sending.cancel()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def strangers(number: int, port: int) -> AsyncIterator[None]:
    come = [Stranger() for _ in range(number)]
    await asyncio.gather(*(one.come(port) for one in come))
    try:
        yield
    finally:
        await asyncio.gather(*(one.leave() for one in come))


async def work(port: int, bearer: dict[str, str], root: str, first: int) -> tuple[float, list[int]]:
    """Send good requests and genuine pushes, all at once; return the longest time and the statuses."""
    pushed = {"authorization": f"Bearer {push_token(Path(root))}", "x-totoms-topic": "numbers"}

    async def timed(client: httpx.AsyncClient, number: int) -> tuple[float, int]:
        begun = time.monotonic()
        if number % 2:
            answer = await client.get("/figures", headers=bearer)
        else:
            message = TotoMessage(type="number", id=str(first + number), cid="c", data={"published": time.time()})
            answer = await client.post("/events", content=encode_message(message), headers=pushed)
        return time.monotonic() - begun, answer.status_code

    limits = httpx.Limits(max_connections=2 * GOOD)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as client:
        seen = await asyncio.gather(*(timed(client, number) for number in range(2 * GOOD)))
    return max(seconds for seconds, _ in seen), [status for _, status in seen]


def resident(process: Process) -> int:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(process: Process) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


@pytest.mark.parametrize("read_first", [False, True], ids=["proof in the headers", "proof in the body"])
@pytest.mark.parametrize("number", [16, 160])
async def test_half_sent_bodies_do_not_block_other_pushes(
    launch: Any, bearer: dict[str, str], local_root: str, tmp_path: Path, figure: Any, number: int, read_first: bool
) -> None:
    options = ["--grace", GRACE, *(["--read-first"] if read_first else [])]
    service = launch("faults/service.py", tmp_path / "handled", *options)
    port = await asyncio.to_thread(service.port)
    await work(port, bearer, local_root, 10_000)  # the first time is the slowest
    idle = max([(await work(port, bearer, local_root, 20_000 + 100 * turn))[0] for turn in range(3)])
    memory, open_before = resident(service), descriptors(service)
    async with strangers(number, port):
        slowest, statuses = await work(port, bearer, local_root, 0)
        grown = resident(service) - memory
    assert statuses == [200] * (2 * GOOD)
    assert slowest < max(1.0, 10 * idle)
    assert grown < 20 * 1024 * 1024
    async with asyncio.timeout(30):
        while descriptors(service) > open_before:
            await asyncio.sleep(0.1)
    async with strangers(number, port):
        begun = time.monotonic()
        service.send(signal.SIGTERM)
        assert await asyncio.to_thread(service.wait) == 0
        ended = time.monotonic() - begun
    assert ended < GRACE + 2
    figure(
        f"{number} half-sent bodies, {'proof in the body' if read_first else 'proof in the headers'}",
        f"{GOOD} of {GOOD} pushes, {GOOD} of {GOOD} requests, slowest {slowest:.2f} s (idle {idle:.2f} s), RSS "
        f"{grown / 2**20:+.1f} MB, SIGTERM {ended:.1f} s",
    )
