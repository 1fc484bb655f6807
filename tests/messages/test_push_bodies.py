"""PUSH: bodies that arrive slowly, or never end, do not delay other pushes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from support.messages.kit import SUBSCRIPTION, Handler, MemoryBus, make_router, succeed
from totoms import TotoMessage, Unauthorized, Undecidable
from totoms.logging.logger import TotoLogger
from totoms.messages.message import encode_message
from totoms.messages.push import bodies as limits
from totoms.messages.push.bodies import Intake
from totoms.messages.push.endpoint import PushEndpoint
from totoms.messages.push_request import PushRequest
from totoms.messages.receiver import Received

DEADLINE = 120.0
BODY = encode_message(TotoMessage(type="postCreated", id="post-1", timestamp="now", cid="c"))
KB = 1024


class Caller:
    """Sends a body piece by piece, as the test says."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked = 0

    def send(self, piece: bytes, *, more: bool = True) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def leave(self) -> None:
        self._pieces.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Any:
        self.asked += 1
        return await self._pieces.get()

    def request(self, **headers: str) -> Request:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/events",
            "query_string": b"",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "headers": raw,
        }
        return Request(scope, self.receive)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def turns() -> None:
    """Let everybody have their turn."""
    for _ in range(5):
        await asyncio.sleep(0)


def by_signature(bus: MemoryBus) -> None:
    """Have the bus find the proof in the body, as SNS's is."""

    async def accept(request: PushRequest) -> list[Received]:
        body = await request.read(verified=False)
        if not body.startswith(b"signed:"):
            raise Unauthorized("not signed")
        return [Received(body.removeprefix(b"signed:"), request.headers.get("x-id", "1"), 1, SUBSCRIPTION)]

    vars(bus).update(_accept_push=accept)


def endpoint(bus: MemoryBus, **options: Any) -> PushEndpoint:
    options = {"max_concurrency": 4, "url": None, "logger": TotoLogger("blog"), **options}
    return PushEndpoint(bus, make_router(Handler(succeed)), **options)


async def test_sender_without_credentials_is_refused_before_the_body_is_read(bus: MemoryBus) -> None:
    caller = Caller()
    with pytest.raises(Unauthorized):
        await endpoint(bus).respond(caller.request(authorization="Bearer a-user"))
    assert caller.asked == 0


async def test_half_sent_unverified_bodies_do_not_block_genuine_pushes(bus: MemoryBus) -> None:
    by_signature(bus)
    push = endpoint(bus)
    strangers = [Caller() for _ in range(160)]
    half = [asyncio.create_task(push.respond(one.request())) for one in strangers]
    for one in strangers:
        one.send(b"{")
    await turns()
    for number in range(25):
        genuine = Caller()
        genuine.send(b"signed:" + BODY, more=False)
        async with asyncio.timeout(DEADLINE):
            assert await push.respond(genuine.request(**{"x-id": str(number)})) == b'{"status":"success"}'
    assert not any(task.done() for task in half)
    async with asyncio.timeout(DEADLINE):
        await push.stop(1000.0)  # it does not wait for them
        answers = await asyncio.gather(*half, return_exceptions=True)
    assert {type(one) for one in answers} == {Undecidable}


async def test_body_that_is_not_verified_has_little_time(bus: MemoryBus) -> None:
    by_signature(bus)
    caller = Caller()
    caller.send(b"signed:")
    with pytest.raises(Undecidable, match="in time"):
        await endpoint(bus, body_patience=0.0).respond(caller.request())


@pytest.fixture
def intake() -> Intake:
    return Intake(2 * KB * KB, 1000.0, patience=1000.0, clock=Clock())


async def begin(intake: Intake, *, verified: bool) -> tuple[Caller, asyncio.Task[bytes]]:
    caller = Caller()
    task = asyncio.create_task(intake.read(caller.receive, verified=verified))
    await turns()
    return caller, task


@pytest.mark.parametrize("verified", [True, False])
async def test_body_comes_together_from_its_pieces(intake: Intake, verified: bool) -> None:
    caller, task = await begin(intake, verified=verified)
    for piece in (b"a", b"", b"b"):
        caller.send(piece)
    caller.send(b"c", more=False)
    assert await task == b"abc"
    assert (intake.waiting.used, intake._unverified_bytes) == (0, 0)


@pytest.mark.parametrize("verified", [True, False])
async def test_body_over_the_backends_limit_is_refused_while_it_comes(intake: Intake, verified: bool) -> None:
    caller, task = await begin(intake, verified=verified)
    caller.send(b"x" * (2 * KB * KB))
    caller.send(b"x")
    with pytest.raises(HTTPException) as caught:
        await task
    assert caught.value.status_code == 413


async def test_slowest_is_dropped_first_when_memory_is_short(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNVERIFIED_BYTES", 100 * KB)
    clock: Any = intake._clock
    slow, slow_task = await begin(intake, verified=False)
    slow.send(b"s" * 30 * KB)
    clock.now += 5
    fast, fast_task = await begin(intake, verified=False)
    fast.send(b"f" * 30 * KB)
    await turns()
    clock.now += 1
    last, last_task = await begin(intake, verified=False)
    last.send(b"l" * 60 * KB)
    with pytest.raises(Undecidable, match="slowest"):
        await slow_task
    fast.send(b"f", more=False)
    last.send(b"l", more=False)
    assert (len(await fast_task), len(await last_task)) == (30 * KB + 1, 60 * KB + 1)
    assert intake._unverified_bytes == 0


async def test_body_over_its_share_is_dropped_before_a_slower_one(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNVERIFIED_BYTES", 300 * KB)
    clock: Any = intake._clock
    slow, slow_task = await begin(intake, verified=False)
    slow.send(b"s" * 100 * KB)
    clock.now += 9
    large, large_task = await begin(intake, verified=False)
    large.send(b"x" * 260 * KB)
    with pytest.raises(Undecidable):
        await large_task
    slow.send(b"", more=False)
    assert len(await slow_task) == 100 * KB


async def test_large_message_is_read_while_there_is_room(intake: Intake) -> None:
    caller, task = await begin(intake, verified=False)
    caller.send(b"x" * 1500 * KB, more=False)
    assert len(await task) == 1500 * KB


async def test_number_of_bodies_is_bounded_although_nothing_comes(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNVERIFIED_BYTES", 10 * 16 * KB)
    begun = [await begin(intake, verified=False) for _ in range(30)]
    for caller, _ in begun:
        caller.send(b"x")
    await turns()
    assert sum(task.done() for _, task in begun) == 20
    intake.stop()
    answers = await asyncio.gather(*(task for _, task in begun), return_exceptions=True)
    assert {type(one) for one in answers} == {Undecidable}


async def test_verified_bodies_share_the_memory_of_those_that_wait(intake: Intake) -> None:
    assert intake.waiting.take(limits.WAITING_BYTES - 10)
    caller, task = await begin(intake, verified=True)
    caller.send(b"x" * 10)
    await turns()
    caller.send(b"x")
    with pytest.raises(Undecidable):
        await task
    assert intake.waiting.used == limits.WAITING_BYTES - 10


@pytest.mark.parametrize("verified", [True, False])
async def test_caller_who_leaves_ends_the_reading(intake: Intake, verified: bool) -> None:
    caller, task = await begin(intake, verified=verified)
    caller.leave()
    with pytest.raises(ClientDisconnect):
        await task


@pytest.mark.parametrize("verified", [True, False])
async def test_bodies_that_are_being_read_are_dropped_when_the_service_stops(intake: Intake, verified: bool) -> None:
    _caller, task = await begin(intake, verified=verified)
    intake.stop()
    with pytest.raises(Undecidable, match="shutting down"):
        await task
