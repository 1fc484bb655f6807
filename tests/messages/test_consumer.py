"""PULL: concurrency, leases, outages and drain, with a backend whose every answer the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.messages.by_name import Through
from support.messages.kit import DEADLINE, SUBSCRIPTION, Handler, MemoryBus, make_router, succeed
from totoms import NonRetryableError, ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.errors import BackendError
from totoms.logging.logger import TotoLogger
from totoms.messages.consumer import Consumer
from totoms.messages.router import MessageRouter

POST = TotoMessage(type="postCreated")


@asynccontextmanager
async def consuming(bus: MemoryBus, router: MessageRouter, *, max_concurrency: int = 4) -> AsyncIterator[Consumer]:
    consumer = Consumer(Through(bus, SUBSCRIPTION), router, max_concurrency=max_concurrency, logger=TotoLogger("blog"))
    consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop(0.0)


class Gate:
    """A handler's body that says it has begun and waits to be let go."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.cancelled = 0
        self._open = asyncio.Event()
        self._changed = asyncio.Condition()

    async def __call__(self, _message: TotoMessage) -> ProcessingResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        async with self._changed:
            self._changed.notify_all()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return ProcessingResponse(ProcessingStatus.SUCCESS)

    def open(self) -> None:
        self._open.set()

    async def until_running(self, number: int) -> None:
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: self.running >= number)


def failing_at_first(bus: MemoryBus, operation: str, times: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make an operation of the bus raise the first `times` times; return a list that gets an entry for each."""
    whole: Any = getattr(bus, operation)
    failures: list[str] = []

    async def unsteady(*arguments: Any) -> Any:
        if len(failures) < times:
            failures.append(operation)
            raise RuntimeError("reset by peer")
        return await whole(*arguments)

    monkeypatch.setattr(bus, operation, unsteady)
    return failures


def settled(bus: MemoryBus, what: str) -> list[str]:
    return [message_id for happened, message_id in bus.log if happened == what]


async def test_handled_message_is_acked_once(bus: MemoryBus) -> None:
    async with consuming(bus, make_router(Handler(succeed))):
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: bool(settled(bus, "ack")))
    assert settled(bus, "ack") == [received.message_id]
    assert settled(bus, "nack") == []


async def test_failed_message_is_nacked_and_not_acked(bus: MemoryBus) -> None:
    async with consuming(bus, make_router(Handler(lambda _: ProcessingResponse(ProcessingStatus.FAILED)))):
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: bool(settled(bus, "nack")))
    assert settled(bus, "nack") == [received.message_id]
    assert settled(bus, "ack") == []


async def test_non_retryable_message_is_dead_lettered_and_the_worker_goes_on(bus: MemoryBus) -> None:
    def process(message: TotoMessage) -> ProcessingResponse:
        if message.id == "bad":
            raise NonRetryableError("never")
        return ProcessingResponse(ProcessingStatus.SUCCESS)

    async with consuming(bus, make_router(Handler(process))):
        await bus.put(TotoMessage(type="postCreated", id="bad"), SUBSCRIPTION)
        good = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: bool(bus.dead) and good.message_id in settled(bus, "ack"))
    assert [reason.reason for _, reason in bus.dead] == ["non_retryable"]


async def test_max_concurrency_is_reached_and_never_exceeded(bus: MemoryBus) -> None:
    gate = Gate()
    for _ in range(20):
        await bus.put(POST, SUBSCRIPTION)
    async with consuming(bus, make_router(Handler(gate)), max_concurrency=4):
        await gate.until_running(4)
        assert len(bus.leased) == 4, "nothing is prefetched beyond the free slots"
        gate.open()
        await bus.until(lambda: len(settled(bus, "ack")) == 20)
    assert gate.most == 4
    assert bus.most_asked <= 4


async def test_no_more_is_asked_for_while_large_messages_are_being_handled(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = TotoMessage(type="postCreated", data={"filling": "x" * 1000})
    monkeypatch.setattr("totoms.messages.consumer._MAX_BYTES", 2500)
    gate = Gate()

    async def one_at_a_time(number: int) -> None:
        await bus.put(message, SUBSCRIPTION)
        await gate.until_running(number)

    async with consuming(bus, make_router(Handler(gate)), max_concurrency=10):
        for number in (1, 2, 3):
            await one_at_a_time(number)
        for _ in range(5):
            await bus.put(message, SUBSCRIPTION)
        for _ in range(50):  # turns of the loop, in which a fourth could come
            await asyncio.sleep(0)
        assert (gate.running, len(bus.waiting)) == (3, 5)
        gate.open()
        await bus.until(lambda: len(settled(bus, "ack")) == 8)


async def test_lease_of_a_slow_handler_is_renewed_and_it_runs_once(bus: MemoryBus) -> None:
    bus.lease_seconds = 0.03
    gate = Gate()
    async with consuming(bus, make_router(Handler(gate))):
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: len(settled(bus, "extend")) >= 3)
        gate.open()
        await bus.until(lambda: bool(settled(bus, "ack")))
    assert settled(bus, "ack") == [received.message_id]


async def test_leases_are_renewed_at_the_same_pace_until_a_new_receiver_has_fetched_something(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.lease_seconds = 0.03
    gate, pauses, sleep = Gate(), [], asyncio.sleep

    async def sleeping(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr("totoms.messages.consumer.asyncio.sleep", sleeping)
    async with consuming(bus, make_router(Handler(gate))):
        await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: len(settled(bus, "extend")) >= 1)
        bus.lease_seconds = 0.0
        await bus.until(lambda: len(settled(bus, "extend")) >= 4)
        gate.open()
        await bus.until(lambda: bool(settled(bus, "ack")))
    assert min(pauses) == pytest.approx(0.01)


async def test_handler_whose_lease_is_lost_is_cancelled_and_not_settled(bus: MemoryBus) -> None:
    bus.lease_seconds = 0.03
    gate = Gate()
    async with consuming(bus, make_router(Handler(gate))) as consumer:
        received = await bus.put(POST, SUBSCRIPTION)
        await gate.until_running(1)
        bus.lost.add(received.message_id)
        async with asyncio.timeout(DEADLINE):
            while consumer.in_flight:
                await asyncio.sleep(0)
        assert gate.cancelled == 1
        assert settled(bus, "ack") + settled(bus, "nack") == []
        bus.lost.clear()
        gate.open()
        again = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [again.message_id])


async def test_late_ack_that_is_refused_does_not_stop_the_worker(bus: MemoryBus) -> None:
    async with consuming(bus, make_router(Handler(succeed))):
        late = await bus.put(POST, SUBSCRIPTION)
        bus.lost.add(late.message_id)
        await bus.until(lambda: late.message_id in settled(bus, "ack"))
        other = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: other.message_id in settled(bus, "ack"))


async def test_consumer_resumes_by_itself_when_the_broker_is_back(bus: MemoryBus) -> None:
    bus.away = True
    async with consuming(bus, make_router(Handler(succeed))):
        await bus.until(lambda: ("refused", "") in bus.log)
        bus.away = False
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [received.message_id])


async def test_broker_that_is_away_is_an_error_in_the_log_until_it_is_back(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bus.away = True
    async with consuming(bus, make_router(Handler(succeed))) as consumer:
        await bus.until(lambda: bus.log.count(("refused", "")) >= 2)
        assert consumer.receiving.failure == "Unavailable"
        bus.away = False
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [received.message_id])
        assert consumer.receiving.since is None
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if "eceive" in record.getMessage()]
    assert lines[0] == ("ERROR", "Cannot receive from blog-posts: the broker is away")
    assert [level for level, _ in lines] == ["ERROR", "INFO"]
    assert lines[1][1].startswith("Can receive from blog-posts again")


async def test_leases_that_cannot_be_renewed_are_an_error_in_the_log_until_they_can(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    failing_at_first(bus, "_extend", 3, monkeypatch)
    bus.lease_seconds = 0.03
    gate = Gate()
    async with consuming(bus, make_router(Handler(gate))):
        await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: bool(settled(bus, "extend")))
        gate.open()
    levels = [record.levelname for record in caplog.records if "extend leases of blog-posts" in record.getMessage()]
    assert levels == ["ERROR", "INFO"]


async def test_defect_in_the_backend_does_not_stop_the_worker(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = failing_at_first(bus, "_receive", 2, monkeypatch)
    async with consuming(bus, make_router(Handler(succeed))):
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [received.message_id])
    assert len(failures) == 2


async def test_what_cannot_be_settled_is_logged_with_the_resource_and_the_providers_code(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = asyncio.Event()

    async def refused(_received: Any, _delay: float) -> None:
        tried.set()
        error = BackendError("AWS refused what concerns the queue 'blog-posts': KmsDisabled.", resource="blog-posts")
        raise error from ValueError("the key is disabled")

    monkeypatch.setattr(bus, "_nack", refused)
    async with consuming(bus, make_router(Handler(lambda _: ProcessingResponse(ProcessingStatus.FAILED)))):
        await bus.put(POST, SUBSCRIPTION)
        async with asyncio.timeout(DEADLINE):
            await tried.wait()
    (line,) = [line for record in caplog.records if "Cannot settle" in (line := record.getMessage())]
    for part in (SUBSCRIPTION.name, "'blog-posts'", "KmsDisabled", "ValueError: the key is disabled"):
        assert part in line


async def test_ack_is_tried_again_while_the_broker_is_away(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at_first(bus, "_ack", 2, monkeypatch)
    async with consuming(bus, make_router(Handler(succeed))):
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [received.message_id])


async def test_consumer_receives_again_when_it_has_given_up_all_acks_that_it_held(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, failures = bus._ack, 0

    async def refused(batch: Any) -> Any:
        nonlocal failures
        if failures < 20:  # ten for each of two acks: no more are held with a concurrency of one
            failures += 1
            raise RuntimeError("connection refused")
        return await whole(batch)

    monkeypatch.setattr("random.uniform", lambda _least, _most: 0.0)
    monkeypatch.setattr(bus, "_ack", refused)
    async with consuming(bus, make_router(Handler(succeed)), max_concurrency=1):
        for _ in range(2):
            await bus.put(POST, SUBSCRIPTION)
        third = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: third.message_id in settled(bus, "ack"))


async def test_ack_is_tried_again_for_as_long_as_the_lease_lasts(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, failures = bus._ack, 0

    async def refused_at_once(batch: Any) -> Any:
        nonlocal failures
        if failures < 25:
            failures += 1
            raise RuntimeError("connection refused")
        return await whole(batch)

    monkeypatch.setattr("random.uniform", lambda _least, _most: 0.0)
    monkeypatch.setattr(bus, "_ack", refused_at_once)
    bus.lease_seconds = 3600.0
    async with consuming(bus, make_router(Handler(succeed))):
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [received.message_id])


async def test_stop_lets_running_handlers_finish_and_acks_them(bus: MemoryBus) -> None:
    gate = Gate()
    async with consuming(bus, make_router(Handler(gate))) as consumer:
        received = await bus.put(POST, SUBSCRIPTION)
        await gate.until_running(1)
        stopping = asyncio.create_task(consumer.stop(DEADLINE))
        gate.open()
        await stopping
    assert settled(bus, "ack") == [received.message_id]
    assert gate.cancelled == 0


async def test_stop_gives_back_what_no_handler_has_begun(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bus._receive
    stopping: list[asyncio.Task[None]] = []

    async def just_too_late(*args: Any) -> Any:
        batch = await whole(*args)
        if batch:
            stopping.append(asyncio.create_task(consumer.stop(DEADLINE)))
            await asyncio.sleep(0)
        return batch

    monkeypatch.setattr(bus, "_receive", just_too_late)
    handler = Handler(succeed)
    async with consuming(bus, make_router(handler)) as consumer:
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: bool(settled(bus, "release")))
        await stopping[0]
    assert settled(bus, "release") == [received.message_id]
    assert handler.seen == []


async def test_stop_cuts_off_handlers_after_the_grace_and_their_messages_come_again(bus: MemoryBus) -> None:
    gate = Gate()
    async with consuming(bus, make_router(Handler(gate))) as consumer:
        received = await bus.put(POST, SUBSCRIPTION)
        await gate.until_running(1)
        await consumer.stop(0.0)
    assert gate.cancelled == 1
    assert settled(bus, "nack") == [received.message_id]
    assert settled(bus, "ack") == []
