"""Several consumers of the local bus: of one subscription and of two, after failures and after a process died."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from support.local.bus import BLOG, LEASE, MAIL, Clock, nothing_comes, publish, receive_exactly, receive_one, settled
from totoms.local.messages.bus import LocalMessageBus

BOTH = pytest.mark.parametrize("process", [False, True], ids=["other bus", "other process"])


@BOTH
async def test_backoff_is_honoured_for_every_consumer(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock, process: bool
) -> None:
    other = another(process=process)
    await other._subscribe(BLOG, create=True)
    await publish(bus, 1)
    (held,) = await receive_exactly(bus, 1)
    assert await nothing_comes(other)
    await bus._nack(held, 5.0)
    for each in (bus, other):
        assert await nothing_comes(each)
    clock.advance(4.9)
    for each in (bus, other):
        assert await nothing_comes(each)
    clock.advance(0.2)
    (again,) = await receive_exactly(other, 1)
    assert again.attempt == 2


async def test_waiting_consumer_gets_what_a_dead_process_held(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock
) -> None:
    dead = another(process=True)
    await dead._subscribe(BLOG, create=True)
    ids = await publish(dead, 1, 2)
    await receive_exactly(dead, 2)
    waiting = asyncio.ensure_future(bus._receive(BLOG, 2, 20))
    await settled(bus)
    assert not waiting.done()
    clock.advance(LEASE + 1)
    got = await waiting
    got += await receive_exactly(bus, 2 - len(got))
    assert sorted(one.message_id for one in got) == sorted(ids)
    assert {one.attempt for one in got} == {2}


async def test_acks_of_two_subscriptions_with_one_lost_lease(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock
) -> None:
    await bus._subscribe(MAIL, create=True)
    await publish(bus, 1)
    late, fine = await receive_one(bus), await receive_one(bus, MAIL)
    other = another(process=True)
    await other._subscribe(BLOG, create=True)
    clock.advance(LEASE + 1)
    await receive_exactly(other, 1)
    lost, kept = await asyncio.gather(bus._ack([late]), bus._ack([fine]))
    assert [type(each).__name__ for each in (*lost, *kept)] == ["LeaseLost", "NoneType"]


@BOTH
async def test_many_consumers_with_random_outcomes_lose_nothing(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], process: bool
) -> None:
    """Nacks, releases, cancellations and acks of two buses at once; then the sets are compared."""
    consumers = [bus, another(process=process)]
    await consumers[1]._subscribe(BLOG, create=True)
    dice = random.Random(2)
    total = 400
    acked: dict[str, int] = {}
    attempts: dict[str, set[int]] = {}
    published: set[str] = set()

    async def consume(consumer: LocalMessageBus) -> None:
        while len(acked) < total:
            waiting = asyncio.create_task(consumer._receive(BLOG, dice.randint(1, 8), 0.05))
            for _ in range(dice.randint(0, 30)):
                await asyncio.sleep(0)
            if dice.random() < 0.3:
                waiting.cancel()
            try:
                batch = await waiting
            except asyncio.CancelledError:
                continue
            for one in batch:
                choice = dice.random()
                if choice < 0.2:
                    await consumer._release([one])
                    continue
                assert one.attempt not in attempts.setdefault(one.message_id, set()), "an attempt was seen twice"
                attempts[one.message_id].add(one.attempt)
                if choice < 0.4:
                    await consumer._nack(one, 0)
                else:
                    assert await consumer._ack([one]) == [None]
                    acked[one.message_id] = acked.get(one.message_id, 0) + 1

    async def publish_all() -> None:
        for number in range(total // 4):
            published.update(await publish(consumers[number % 2], *range(4)))

    async with asyncio.timeout(60):
        await asyncio.gather(publish_all(), *map(consume, consumers))
    assert set(acked) == published
    assert set(acked.values()) == {1}
    assert all(seen == set(range(1, len(seen) + 1)) for seen in attempts.values())
