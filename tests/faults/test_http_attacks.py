"""Attacks on the HTTP server, ten times as many or as large as usual, during good requests and pushes."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.faults.attacks import Attacked, Attacker, Seen, connection, crowd
from totoms import ServerConfiguration

pytestmark = pytest.mark.faults

HOST = b"host: localhost\r\n"
DESCRIPTORS = 120
"""What the service may open: as few as 900 slow callers would use up in no time."""
BACK_AFTER = 30.0
"""Seconds after which a stranger that was cut off comes back."""
ANSWER_TIMEOUT = ServerConfiguration().answer_timeout
COUNTED = '200 {"size":1000000}'
STARTS = {
    "401": b"POST /numbers HTTP/1.1\r\n",
    "404": b"POST /nowhere HTTP/1.1\r\n",
    "405": b"PUT /numbers HTTP/1.1\r\n",
    "200": b"POST /health HTTP/1.1\r\n",
}


@pytest.fixture
async def attacked(launch: Any, bearer: dict[str, str], local_root: str, tmp_path: Path) -> Attacked:
    process = launch("faults/service.py", tmp_path / "handled", "--grace", 5)
    service = await asyncio.to_thread(Attacked, process, bearer, local_root)
    await service.warm_up()
    return service


@pytest.fixture
async def cramped(launch: Any, bearer: dict[str, str], local_root: str, tmp_path: Path) -> Attacked:
    """A service that may open few descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    try:
        process = launch("faults/service.py", tmp_path / "handled", "--grace", 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    service = await asyncio.to_thread(Attacked, process, bearer, local_root)
    await service.warm_up()
    return service


def endless(port: int, start: bytes, piece: bytes, *, pause: float = 0.0, times: int = 10**9) -> Attacker:
    """Return an attacker that sends `start`, then `piece` again and again. When it is cut off it comes back."""

    async def attack(which: int) -> None:
        while True:
            try:
                async with connection(port) as (reader, writer):
                    writer.write(start)
                    for _ in range(times):
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(pause)
                    await reader.read(1000)
            except OSError:
                pass
            await asyncio.sleep(BACK_AFTER)

    return attack


async def run(
    service: Attacked, number: int, attacker: Attacker, figure: Callable[[str, str], None], name: str
) -> None:
    async with crowd(number, attacker):
        seen = await service.serve_the_others()
    figure(name, seen.check())
    await service.back_to_the_start()


@pytest.mark.parametrize("answer", STARTS)
async def test_bodies_that_trickle_after_the_answer(answer: str, cramped: Attacked, figure: Any) -> None:
    start = STARTS[answer] + HOST + b"content-length: 100000\r\n\r\n"
    attacker = endless(cramped.port, start, b"x", pause=8)
    await run(
        cramped, 900, attacker, figure, f"900 bodies, a byte every 8 s, after {answer}; {DESCRIPTORS} descriptors"
    )


async def test_heads_that_trickle(cramped: Attacked, figure: Any) -> None:
    attacker = endless(cramped.port, b"GET / HTTP/1.1\r\n", b"a: b\r\n", pause=8)
    await run(cramped, 900, attacker, figure, f"900 heads, a line every 8 s; {DESCRIPTORS} descriptors")


@pytest.mark.parametrize(
    ("name", "start", "piece"),
    [
        ("bodies without end", b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        ("40 GB past the limit", b"content-length: 42000000000\r\n\r\n", b"x" * 65536),
        ("one-byte chunks", b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
        ("trailers without end", b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 10_000),
        ("an endless trailer", b"transfer-encoding: chunked\r\n\r\n0\r\na: ", b"x" * 65536),
        ("an endless chunk extension", b"transfer-encoding: chunked\r\n\r\n1;a=", b"x" * 65536),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("path", ["/numbers", "/events"])
async def test_bodies_that_never_end(
    name: str, start: bytes, piece: bytes, path: str, attacked: Attacked, figure: Any
) -> None:
    head = b"POST " + path.encode() + b" HTTP/1.1\r\n" + HOST
    await run(attacked, 10, endless(attacked.port, head + start, piece), figure, f"{name} to {path}, 10 callers")


async def test_large_heads(attacked: Attacked, figure: Any) -> None:
    request_ = b"GET / HTTP/1.1\r\n" + HOST + b"x: " + b"x" * 700_000 + b"\r\n\r\n"
    await run(attacked, 10, endless(attacked.port, request_, b"", times=1), figure, "heads of 700 kB, 10 callers")


async def test_upgrades_that_are_not_taken(attacked: Attacked, figure: Any) -> None:
    """One answer to each, however many requests its body holds."""
    answers: list[int] = []
    body = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 10
    request_ = b"POST /numbers HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: h2c\r\n"
    request_ += b"content-length: %d\r\n\r\n" % len(body) + body
    last = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"

    async def attack(_which: int) -> None:
        async with connection(attacked.port) as (reader, writer):
            writer.write(request_ * 10 + last)
            answers.append((await reader.read()).count(b"HTTP/1.1 "))

    async with crowd(100, attack, head_start=0):
        seen = await attacked.serve_the_others()
        async with asyncio.timeout(60):
            while len(answers) < 100:
                await asyncio.sleep(0.05)
    assert answers == [11] * 100
    figure("1,000 upgrades that are not taken, with ten requests in each body", seen.check())
    await attacked.back_to_the_start()


async def test_long_pipelines(attacked: Attacked, bearer: dict[str, str], figure: Any) -> None:
    """One answer to each request, also when 20,000 come at once."""
    token = bearer["authorization"].encode()
    count = 20_000
    one = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nauthorization: " + token + b"\r\n\r\n"
    last = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    found: list[int] = []

    async def attack(_which: int) -> None:
        received = bytearray()
        async with connection(attacked.port) as (reader, writer):
            writer.write(one * count + last)
            while piece := await reader.read(1 << 20):
                received += piece
        found.append(received.count(b'{"status":"ready"}'))

    async with crowd(1, attack, head_start=0.2):
        seen = await attacked.serve_the_others()
        async with asyncio.timeout(120):
            while not found:
                await asyncio.sleep(0.05)
    assert found == [count + 1]
    figure(f"a pipeline of {count} requests", seen.check())


async def keep(service: Attacked, launch: Any, **callers: int) -> tuple[Seen, list[tuple[str, float, str]]]:
    """Have callers keep their connections, in processes of their own; return what good callers saw, and how each ended.

    Args:
        service: The service.
        launch: Starts a process.
        callers: How many there are of each kind of ``callers.py``.
    """
    token = service.bearer["authorization"]
    processes = [launch("faults/callers.py", kind, number, service.port, token) for kind, number in callers.items()]
    for process in processes:
        await asyncio.to_thread(process.expect, "^begun$")
    seen = await service.serve_the_others_beside(processes)
    ended: list[tuple[str, float, str]] = []
    for process in processes:
        assert await asyncio.to_thread(process.wait) == 0, process.output
        for line in process.lines:
            if line.startswith("ended "):
                _, kind, seconds, what = line.split(" ", 3)
                ended.append((kind, float(seconds), what))
    assert Counter(kind for kind, _, _ in ended) == callers
    return seen, ended


async def test_slow_readers(attacked: Attacked, launch: Any, figure: Any) -> None:
    """Those who do not take their answers are ended by the deadline, and hold no more than a buffer until then."""
    seen, ended = await keep(attacked, launch, deaf=50, slow=50)
    assert {what.partition(":")[0] for _, _, what in ended} <= {"reset", "ConnectionResetError"}, ended
    first, last = min(seconds for _, seconds, _ in ended), max(seconds for _, seconds, _ in ended)
    assert first > ANSWER_TIMEOUT - 1
    assert last < ANSWER_TIMEOUT * 1.5
    figure(
        "100 callers who take nothing, or 3 bytes a second, of 50 MB",
        f"ended after {first:.0f} to {last:.0f} s; {seen.check()}",
    )
    await attacked.back_to_the_start()


async def test_connections_that_are_quiet_for_a_minute_for_a_good_reason(
    attacked: Attacked, launch: Any, figure: Any
) -> None:
    """WebSockets have no deadline of HTTP's, and a body has none while it is we who do not read it."""
    seen, ended = await keep(attacked, launch, idle=100, busy=10, paused=25, late=25)
    by_kind = {kind: {what for one, _, what in ended if one == kind} for kind, _, _ in ended}
    echoed = [int(what.removesuffix(" echoed")) for what in by_kind.pop("busy")]
    assert by_kind == {"idle": {"1 echoed"}, "paused": {COUNTED}, "late": {COUNTED}}
    assert min(seconds for kind, seconds, _ in ended if kind != "late") >= 60
    told = seen.check()
    figure("100 WebSockets idle for 60 s", f"100 stayed; {told}")
    figure("10 WebSockets busy for 60 s", f"10 stayed, {min(echoed)} to {max(echoed)} messages echoed to each")
    figure("25 bodies of 1 MB read after 60 s", "25 read whole")
    figure("25 bodies of 1 MB, half of it 50 s late", "25 read whole")
    await attacked.back_to_the_start()
