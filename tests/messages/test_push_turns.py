"""PUSH: concurrency, what counts as an attempt, and a message that is pushed twice at the same time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import Request, Response

from support.messages.kit import SUBSCRIPTION, Handler, MemoryBus, make_router, succeed
from totoms import ProcessingResponse, ProcessingStatus, TotoMessage, Undecidable
from totoms.logging.logger import TotoLogger
from totoms.messages.message import encode_message
from totoms.messages.push.attempts import Failures, delivery_key
from totoms.messages.push.bodies import Budget
from totoms.messages.push.endpoint import PushEndpoint
from totoms.messages.push_request import PushRequest
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

DEADLINE = 120.0
BODY = encode_message(TotoMessage(type="postCreated", id="post-1", timestamp="now", cid="c"))


def request(name: str = "1", body: bytes = BODY) -> Request:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = {"authorization": "Bearer the-broker", "x-id": name}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/events",
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    return Request(scope, receive)


class Gate:
    """A handler that waits until it is opened, or says what the test says."""

    def __init__(self, status: ProcessingStatus = ProcessingStatus.SUCCESS) -> None:
        self.status = status
        self.open = asyncio.Event()
        self.begun = asyncio.Queue[TotoMessage]()
        self.handler = Handler(self.process)

    async def process(self, message: TotoMessage) -> ProcessingResponse:
        self.begun.put_nowait(message)
        await self.open.wait()
        return ProcessingResponse(self.status)

    async def wait(self, number: int = 1) -> None:
        async with asyncio.timeout(DEADLINE):
            for _ in range(number):
                await self.begun.get()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def endpoint(bus: MemoryBus, handler: Any, **options: Any) -> PushEndpoint:
    options = {"max_concurrency": 1, "url": None, "logger": TotoLogger("blog"), **options}
    return PushEndpoint(bus, make_router(handler), **options)


async def status(push: PushEndpoint, asked: Request) -> int:
    try:
        answered = await push.respond(asked)
    except Undecidable:
        return 503
    return answered.status_code if isinstance(answered, Response) else 200


# --- turns ---


async def test_verified_message_waits_for_its_turn(bus: MemoryBus) -> None:
    gate = Gate()
    push = endpoint(bus, gate.handler)
    asked = [asyncio.create_task(status(push, request(name))) for name in "123"]
    await gate.wait()
    assert not any(task.done() for task in asked)
    gate.open.set()
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*asked) == [200, 200, 200]


async def test_message_that_waited_too_long_is_answered_503_and_taken_when_it_comes_again(bus: MemoryBus) -> None:
    gate = Gate()
    push = endpoint(bus, gate.handler, slot_patience=0.0)
    first = asyncio.create_task(status(push, request("1")))
    await gate.wait()
    async with asyncio.timeout(DEADLINE):
        assert [await status(push, request(name)) for name in ("2", "3")] == [503, 503]
        gate.open.set()
        assert await first == 200
        assert [await status(push, request(name)) for name in ("2", "3")] == [200, 200]


@pytest.mark.parametrize(("patience", "wait"), [(15.0, 5.0), (30.0, 10.0), (180.0, 60.0), (600.0, 60.0)])
async def test_wait_is_a_third_of_the_brokers_patience_and_at_most_a_minute(
    bus: MemoryBus, patience: float, wait: float
) -> None:
    vars(bus).update(push_patience=patience)
    assert endpoint(bus, Handler(succeed))._slots._patience == wait


async def test_what_waits_is_bounded_in_bytes(bus: MemoryBus) -> None:
    gate = Gate()
    push = endpoint(bus, gate.handler)
    push._slots._waiting = Budget(20_000)
    first = asyncio.create_task(status(push, request("1")))
    await gate.wait()
    second = asyncio.create_task(status(push, request("2", BODY + b" " * 12_000)))
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        assert await status(push, request("3", BODY + b" " * 12_000)) == 503
        gate.open.set()
        assert await asyncio.gather(first, second) == [200, 200]
        assert await status(push, request("3", BODY + b" " * 12_000)) == 200
    assert push._slots._waiting.used == 0


def test_one_body_may_wait_however_large_it_is() -> None:
    budget = Budget(10)
    assert budget.take(50)
    assert not budget.take(1)
    budget.give(50)
    assert budget.take(10)


async def test_full_is_logged_seldom_with_how_many_were_turned_away(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    gate, clock = Gate(), Clock()
    push = endpoint(bus, gate.handler, slot_patience=0.0, clock=clock)
    first = asyncio.create_task(status(push, request("1")))
    await gate.wait()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            assert await status(push, request("2")) == 503
        clock.now += 10
        assert await status(push, request("2")) == 503
    lines = [record.getMessage() for record in caplog.records if "busy" in record.getMessage()]
    assert [line.split("Answered ")[1].split(" pushed")[0] for line in lines] == ["1", "20"]
    gate.open.set()
    await first


async def test_waiting_pushes_are_refused_when_the_service_stops(bus: MemoryBus) -> None:
    gate = Gate()
    push = endpoint(bus, gate.handler, slot_patience=1000.0)
    first = asyncio.create_task(status(push, request("1")))
    await gate.wait()
    waiting = [asyncio.create_task(status(push, request(name))) for name in "23"]
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        stopping = asyncio.create_task(push.stop(1000.0))
        assert await asyncio.gather(*waiting) == [503, 503]
        assert await status(push, request("4")) == 503
        gate.open.set()
        await stopping
        assert await first == 200
    assert len(gate.handler.seen) == 1


# --- the same message twice at a time ---


@pytest.mark.parametrize(("result", "code"), [(ProcessingStatus.SUCCESS, 200), (ProcessingStatus.FAILED, 500)])
async def test_second_request_for_a_message_that_is_being_handled_gets_the_same_answer_and_runs_nothing(
    bus: MemoryBus, result: ProcessingStatus, code: int
) -> None:
    gate = Gate(result)
    push = endpoint(bus, gate.handler, max_concurrency=4)
    asked = [asyncio.create_task(status(push, request("1"))) for _ in range(5)]
    await gate.wait()
    gate.open.set()
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*asked) == [code] * 5
    assert len(gate.handler.seen) == 1
    assert push._failures.of(delivery_key(Received(BODY, "1", 1, SUBSCRIPTION))) == (code == 500)


async def test_second_request_takes_no_turn(bus: MemoryBus) -> None:
    gate = Gate()
    push = endpoint(bus, gate.handler, max_concurrency=2, slot_patience=0.0)
    asked = [asyncio.create_task(status(push, request("1"))) for _ in range(5)]
    await gate.wait()
    other = asyncio.create_task(status(push, request("2")))
    await gate.wait()
    gate.open.set()
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*asked, other) == [200] * 6


async def test_second_request_waits_no_longer_than_the_broker(bus: MemoryBus) -> None:
    gate = Gate()
    vars(bus).update(push_patience=0.0)
    push = endpoint(bus, gate.handler)
    first = asyncio.create_task(status(push, request("1")))
    await gate.wait()
    assert await status(push, request("1")) == 503
    gate.open.set()
    assert await first == 200


async def test_other_message_with_the_same_id_is_handled_by_itself(bus: MemoryBus) -> None:
    gate = Gate()
    push = endpoint(bus, gate.handler, max_concurrency=2)
    asked = [asyncio.create_task(status(push, request("1", body))) for body in (BODY, BODY + b" ")]
    await gate.wait(2)
    gate.open.set()
    assert await asyncio.gather(*asked) == [200, 200]


async def test_second_request_is_answered_503_when_the_first_one_is_cancelled(bus: MemoryBus) -> None:
    gate = Gate()
    push = endpoint(bus, gate.handler)
    first = asyncio.create_task(status(push, request("1")))
    await gate.wait()
    second = asyncio.create_task(status(push, request("1")))
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(DEADLINE):
        assert await second == 503
        gate.open.set()
        assert await status(push, request("1")) == 200


async def test_message_that_was_handled_after_the_broker_had_stopped_waiting_is_not_run_again(bus: MemoryBus) -> None:
    gate, clock = Gate(), Clock()
    push = endpoint(bus, gate.handler, clock=clock)
    first = asyncio.create_task(status(push, request("1")))
    await gate.wait()
    clock.now += bus.push_patience
    gate.open.set()
    assert await first == 200
    assert await status(push, request("1")) == 200
    assert len(gate.handler.seen) == 1
    assert await status(push, request("1")) == 200
    assert len(gate.handler.seen) == 2, "skipped more than once"


# --- attempts ---


async def test_failures_are_counted_for_each_message(bus: MemoryBus) -> None:
    handler = Handler(lambda _message: ProcessingResponse(ProcessingStatus.FAILED))
    push = endpoint(bus, handler)
    for _ in range(2):
        assert [await status(push, request(name)) for name in ("1", "2")] == [500, 500]
    assert bus.dead == []
    assert [await status(push, request(name)) for name in ("1", "2")] == [200, 200]
    assert [reason.attempts for _, reason in bus.dead] == [3, 3]
    assert await status(push, request("1")) == 500, "a message that was replayed starts over"


async def test_success_forgets_failures(bus: MemoryBus) -> None:
    results = iter(["FAILED", "FAILED", "SUCCESS", "FAILED", "FAILED"])
    push = endpoint(bus, Handler(lambda _message: ProcessingResponse(ProcessingStatus[next(results)])))
    assert [await status(push, request("1")) for _ in range(5)] == [500, 500, 200, 500, 500]
    assert bus.dead == []


async def test_message_without_an_id_is_counted_by_its_bytes(bus: MemoryBus) -> None:
    async def accept(_request: PushRequest) -> list[Received]:
        return [Received(BODY, "", 1, SUBSCRIPTION)]

    vars(bus).update(_accept_push=accept)
    push = endpoint(bus, Handler(lambda _message: ProcessingResponse(ProcessingStatus.FAILED)))
    assert [await status(push, request()) for _ in range(3)] == [500, 500, 200]


def test_failures_are_bounded_and_those_longest_ago_are_forgotten_first() -> None:
    failures = Failures(most=3)
    keys = [delivery_key(Received(b"", "", 1, SUBSCRIPTION, delivery_id=str(number))) for number in range(4)]
    for key in (*keys[:3], keys[0], keys[3]):
        failures.add(key)
    assert [failures.of(key) for key in keys] == [2, 0, 1, 1]


def test_message_is_known_by_the_brokers_id_where_there_is_one() -> None:
    def key(**changes: Any) -> Any:
        values = {"body": b"x", "message_id": "m", "attempt": 1, "subscription": SUBSCRIPTION, **changes}
        return delivery_key(Received(**values))

    assert key(delivery_id="d") == key(delivery_id="d", message_id="another", body=b"y", attempt=7)
    assert key(delivery_id="d") != key(delivery_id="e")
    assert key() != key(body=b"y")
    assert key() != key(subscription=Subscription("other", "t", "posts"))
