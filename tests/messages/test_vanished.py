"""A subscription that vanishes while its consumer runs: subscribed again, or left, and what is in hand meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from support.messages.by_name import Through
from support.messages.kit import DEADLINE, SUBSCRIPTION, Handler, MemoryBus, make_router, succeed
from totoms import ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.errors import AccessDenied, BackendError, NotFound
from totoms.logging.logger import TotoLogger
from totoms.messages.consumer import Consumer
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received, Receiver

POST = TotoMessage(type="postCreated")


class Vanishing(Through):
    """A receiver whose subscription can vanish: then each operation raises NotFound."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus, SUBSCRIPTION)
        self.stopped = False
        self._vanished = asyncio.Event()

    def vanish(self) -> None:
        self._vanished.set()

    def _check(self) -> None:
        if self._vanished.is_set():
            raise NotFound("The subscription was deleted.", resource="blog-posts")

    async def receive(self, max_messages: int, wait: float) -> list[Received]:
        receiving = asyncio.ensure_future(super().receive(max_messages, wait))
        vanishing = asyncio.ensure_future(self._vanished.wait())
        try:
            await asyncio.wait({receiving, vanishing}, return_when=asyncio.FIRST_COMPLETED)
            self._check()
            return await receiving
        finally:
            receiving.cancel()
            vanishing.cancel()

    async def ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        self._check()
        return await super().ack(batch)

    async def nack(self, received: Received, delay: float) -> None:
        self._check()
        await super().nack(received, delay)

    async def extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        self._check()
        return await super().extend(batch)

    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        self._check()
        return await super().dead_letter(received, reason)

    async def stop(self) -> None:
        self.stopped = True
        if not self._vanished.is_set():
            await super().stop()


class Gate:
    """A handler that waits until a test opens it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.cut = 0
        self.open = asyncio.Event()
        self.begun = asyncio.Event()
        self.status = ProcessingStatus.SUCCESS

    async def __call__(self, message: TotoMessage) -> ProcessingResponse:
        self.seen.append(message.id)
        self.begun.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cut += 1
            raise
        return ProcessingResponse(self.status)


@asynccontextmanager
async def consuming(
    receiver: Receiver, handler: Handler, resubscribe: Callable[[NotFound], Awaitable[Receiver]] | None, most: int = 2
) -> AsyncIterator[Consumer]:
    router = make_router(handler)
    logger = TotoLogger("blog")
    consumer = Consumer(receiver, router, max_concurrency=most, logger=logger, resubscribe=resubscribe)
    consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop(0.0)


class Broker:
    """Creates the subscription again, as often as it is asked to."""

    def __init__(self, bus: MemoryBus, *failures: BackendError) -> None:
        self._bus = bus
        self._failures = list(failures)
        self.first = Vanishing(bus)
        self.made: list[Vanishing] = []
        self.again = asyncio.Event()

    async def __call__(self, _error: NotFound) -> Receiver:
        if self._failures:
            raise self._failures.pop(0)
        self.made.append(Vanishing(self._bus))
        self.again.set()
        return self.made[-1]


def settled(bus: MemoryBus, what: str) -> list[str]:
    return [message_id for happened, message_id in bus.log if happened == what]


async def test_consumer_receives_from_the_subscription_that_was_created_again(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    broker = Broker(bus, AccessDenied("Nobody may create it.", resource="blog-posts"))
    async with consuming(broker.first, Handler(succeed), broker) as consumer:
        broker.first.vanish()
        async with asyncio.timeout(DEADLINE):
            await broker.again.wait()
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [received.message_id])
        assert broker.first.stopped
        assert len(broker.made) == 1
        assert consumer.receiving.since is None
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith("Cannot receive")] == [
        "Cannot receive from blog-posts: Nobody may create it."
    ]
    assert any(line.startswith("Can receive from blog-posts again") for line in lines)


async def test_consumer_without_a_way_to_subscribe_again_waits_for_the_subscription(bus: MemoryBus) -> None:
    broker = Broker(bus)
    async with consuming(broker.first, Handler(succeed), None) as consumer:
        broker.first.vanish()
        async with asyncio.timeout(DEADLINE):
            while consumer.receiving.failures < 2:
                await asyncio.sleep(0)
        broker.first._vanished.clear()
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [received.message_id])


async def test_handler_of_a_vanished_subscription_ends_and_its_message_is_not_acked(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus.lease_seconds = 0.03
    gate, broker = Gate(), Broker(bus)
    async with consuming(broker.first, Handler(gate), broker):
        await bus.put(TotoMessage(type="postCreated", id="old"), SUBSCRIPTION)
        async with asyncio.timeout(DEADLINE):
            await gate.begun.wait()
            broker.first.vanish()
            await broker.again.wait()
        new = await bus.put(TotoMessage(type="postCreated", id="new"), SUBSCRIPTION)
        extended = len(settled(bus, "extend"))
        await bus.until(lambda: len(settled(bus, "extend")) > extended + 1)  # leases of the new one only
        gate.open.set()
        await bus.until(lambda: bool(settled(bus, "ack")))
    assert gate.seen == ["old", "new"]
    assert gate.cut == 0
    assert settled(bus, "ack") == [new.message_id]
    assert "lease of message" not in caplog.text


async def test_message_that_fails_when_its_subscription_has_vanished_is_logged(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    gate, broker = Gate(), Broker(bus)
    gate.status = ProcessingStatus.FAILED
    async with consuming(broker.first, Handler(gate), broker) as consumer:
        old = await bus.put(POST, SUBSCRIPTION)
        async with asyncio.timeout(DEADLINE):
            await gate.begun.wait()
            broker.first.vanish()
            await broker.again.wait()
            gate.open.set()
            while consumer.in_flight:
                await asyncio.sleep(0)
    assert settled(bus, "nack") == []
    assert f"Cannot settle message {old.message_id} of blog-posts: The subscription was deleted." in caplog.messages


async def test_max_concurrency_counts_handlers_of_the_vanished_subscription_too(bus: MemoryBus) -> None:
    gate, broker = Gate(), Broker(bus)
    async with consuming(broker.first, Handler(gate), broker, most=2):
        await bus.put(POST, SUBSCRIPTION)
        async with asyncio.timeout(DEADLINE):
            await gate.begun.wait()
            broker.first.vanish()
            await broker.again.wait()
        for _ in range(3):
            await bus.put(POST, SUBSCRIPTION)
        async with asyncio.timeout(DEADLINE):
            while len(gate.seen) < 2:
                await asyncio.sleep(0)
        for _ in range(50):  # turns of the loop, in which a third could come
            await asyncio.sleep(0)
        assert len(gate.seen) == 2
        gate.open.set()
        await bus.until(lambda: len(settled(bus, "ack")) == 3)


async def test_subscription_that_vanishes_again_at_once_is_not_created_without_a_pause(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def longest(_least: float, most: float) -> float:
        pauses.append(most)
        return 0.0

    monkeypatch.setattr("random.uniform", longest)
    broker = Broker(bus)
    broker.first.vanish()

    async def vanishing(error: NotFound) -> Receiver:
        made = await broker(error)
        if len(broker.made) < 8:
            broker.made[-1].vanish()
        return made

    async with consuming(broker.first, Handler(succeed), vanishing):
        async with asyncio.timeout(DEADLINE):
            while len(broker.made) < 8:
                await asyncio.sleep(0)
        received = await bus.put(POST, SUBSCRIPTION)
        await bus.until(lambda: settled(bus, "ack") == [received.message_id])
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


async def test_handler_that_outlasts_a_stop_has_its_message_nacked_where_it_came_from(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    gate, broker = Gate(), Broker(bus)
    async with consuming(broker.first, Handler(gate), broker):
        await bus.put(POST, SUBSCRIPTION)
        async with asyncio.timeout(DEADLINE):
            await gate.begun.wait()
            broker.first.vanish()
            await broker.again.wait()
    assert gate.cut == 1
    assert settled(bus, "nack") == []
    assert "While stopping blog-posts: The subscription was deleted." in caplog.messages
