"""Requests that messages published at the same time share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from totoms.errors import BackendError, Closed, MessageTooLarge, Unavailable
from totoms.messages.batching import Batcher


class Broker:
    """Holds requests up until the test lets them go."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.answers: list[asyncio.Future[Any]] = []

    async def send(self, items: list[str]) -> list[BackendError | None]:
        self.requests.append(items)
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        result = await answer
        return [result] * len(items) if result is None or isinstance(result, BackendError) else result

    async def answer(self, number: int, result: Any = None) -> None:
        await quiet()
        self.answers[number].set_result(result)
        await quiet()


async def quiet() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def batcher(broker: Broker, **options: Any) -> Batcher[str]:
    return Batcher(broker.send, **{"max_items": 3, "max_bytes": 100, **options})


async def test_one_alone_is_sent_at_once_and_those_that_come_meanwhile_go_together() -> None:
    broker = Broker()
    batches = batcher(broker)
    first = batches.add("a", 1)
    await quiet()
    others = [batches.add(name, 1) for name in "bc"]
    await quiet()
    assert broker.requests == [["a"]]
    await broker.answer(0)
    assert await first is None
    assert broker.requests == [["a"], ["b", "c"]]
    await broker.answer(1)
    assert [await one for one in others] == [None, None]
    assert batches.idle


async def test_request_is_bounded_by_items_and_by_bytes() -> None:
    broker = Broker()
    batches = batcher(broker, flights=10)
    for name in "abcd":
        batches.add(name, 1)
    batches.add("large", 60)
    batches.add("larger", 90)
    await quiet()
    assert broker.requests == [["a", "b", "c"], ["d", "large"], ["larger"]]
    for number in range(3):
        await broker.answer(number)


async def test_more_requests_are_in_flight_only_when_full() -> None:
    broker = Broker()
    batches = batcher(broker, flights=1, full_flights=2)
    batches.add("a", 1)
    await quiet()
    for name in "bc":
        batches.add(name, 1)
    await quiet()
    assert len(broker.requests) == 1
    batches.add("d", 1)
    await quiet()
    assert broker.requests == [["a"], ["b", "c", "d"]]
    for number in range(2):
        await broker.answer(number)


async def test_each_has_its_own_result() -> None:
    broker, too_large = Broker(), MessageTooLarge("b is too large")
    batches = batcher(broker)
    both = [batches.add(name, 1) for name in "ab"]
    await broker.answer(0, [None, too_large])
    assert [await one for one in both] == [None, too_large]


@pytest.mark.parametrize(
    ("raised", "kind", "told"),
    [(Closed("closed"), Closed, "closed"), (ValueError("a bug"), Unavailable, "not have been published: ValueError")],
)
async def test_what_the_request_raises_is_the_result_of_all(
    raised: Exception, kind: type[BackendError], told: str
) -> None:
    async def fail(_items: list[str]) -> list[BackendError | None]:
        raise raised

    batches = Batcher(fail, max_items=3, max_bytes=100)
    for one in [batches.add(name, 1) for name in "ab"]:
        result = await one
        assert isinstance(result, kind)
        assert told in result.message


async def test_what_waits_too_long_while_nothing_gets_through_is_unavailable() -> None:
    broker = Broker()
    batches = batcher(broker, patience=30.0)
    batches.add("a", 1)
    await quiet()
    waiting = batches.add("b", 1)
    batches._waiting[0].since -= 30.1  # that long ago
    await broker.answer(0, Unavailable("away"))
    result = await waiting
    assert isinstance(result, Unavailable)
    assert broker.requests == [["a"]]


async def test_flush_waits_for_what_waits_and_for_what_is_in_flight() -> None:
    broker = Broker()
    batches = batcher(broker)
    batches.add("a", 1)
    await quiet()
    batches.add("b", 1)
    flushing = asyncio.create_task(batches.flush())
    await broker.answer(0)
    assert not flushing.done()
    await broker.answer(1)
    await flushing
    assert batches.idle


async def test_close_ends_what_is_in_flight_and_what_waits() -> None:
    broker = Broker()
    batches = batcher(broker)
    flying = batches.add("a", 1)
    await quiet()
    waiting = batches.add("b", 1)
    await batches.close()
    for one in (flying, waiting):
        assert isinstance(await one, Closed)


async def test_cancelled_publisher_does_not_recall_its_message() -> None:
    broker = Broker()
    batches = batcher(broker)
    cancelled, other = batches.add("a", 1), batches.add("b", 1)
    cancelled.cancel()
    await broker.answer(0)
    assert await other is None
    assert broker.requests == [["a", "b"]]
