"""Several consumers of the local bus: of one subscription and of two, after failures and after a process died."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from totoms.envelope import DeadLetterReason
from totoms.errors import LeaseLost
from totoms.local.bus import LocalMessageBus

LEASE = LocalMessageBus.lease_seconds
BOTH = pytest.mark.parametrize("own_writer", [False, True], ids=["shared writer", "own writer"])


@BOTH
async def test_backoff_is_honoured_for_every_consumer(kit: Any, own_writer: bool) -> None:
    bus, subscription = await kit.consumer()
    other, _ = await kit.consumer(own_writer=own_writer)
    await kit.publish(bus, 1)
    (held,) = await kit.get(bus, subscription)
    assert await kit.nothing(other, subscription)
    await bus._nack(held, 5.0)
    for each in (bus, other):
        assert await kit.nothing(each, subscription)
    kit.advance(4.9)
    for each in (bus, other):
        assert await kit.nothing(each, subscription)
    kit.advance(0.2)
    (again,) = await kit.get(other, subscription)
    assert again.attempt == 2


async def refuses(bus: LocalMessageBus, late: Any) -> None:
    assert [type(lost) for lost in await bus._ack([late])] == [LeaseLost]
    assert [type(lost) for lost in await bus._extend([late])] == [LeaseLost]
    with pytest.raises(LeaseLost):
        await bus._nack(late, 0)
    with pytest.raises(LeaseLost):
        await bus._dead_letter(late, DeadLetterReason("non_retryable"))
    assert await bus._list_dead_letters(late.subscription.name, 10) == []


async def test_waiting_consumer_gets_what_a_dead_process_held(kit: Any) -> None:
    dead, subscription = await kit.consumer(own_writer=True)
    bus, _ = await kit.consumer()
    ids = await kit.publish(dead, 1, 2)
    await kit.get(dead, subscription, 2)
    waiting = asyncio.ensure_future(bus._receive(subscription, 2, 20))
    await asyncio.sleep(0)
    await bus._do(lambda connection: None)
    assert not waiting.done()
    kit.advance(LEASE + 1)
    got = await waiting
    got += await kit.get(bus, subscription, 2 - len(got))
    assert sorted(one.message_id for one in got) == sorted(ids)
    assert {one.attempt for one in got} == {2}


async def test_acks_of_two_subscriptions_with_one_lost_lease(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    second = kit.subscription("second")
    await bus._subscribe(second, create=True)
    await kit.publish(bus, 1)
    (late,), (fine,) = await kit.get(bus, subscription), await kit.get(bus, second)
    other, _ = await kit.consumer(own_writer=True)
    kit.advance(LEASE + 1)
    await kit.get(other, subscription)
    lost, kept = await asyncio.gather(bus._ack([late]), bus._ack([fine]))
    assert [type(each).__name__ for each in (*lost, *kept)] == ["LeaseLost", "NoneType"]


@BOTH
async def test_many_consumers_with_random_outcomes_lose_nothing(kit: Any, own_writer: bool) -> None:
    """Nacks, releases, cancellations and acks of two buses at once; then the sets are compared."""
    consumers = [await kit.consumer(), await kit.consumer(own_writer=own_writer)]
    dice = random.Random(2)
    total = 400
    acked: dict[str, int] = {}
    attempts: dict[str, set[int]] = {}
    published: set[str] = set()

    async def consume(bus: LocalMessageBus, subscription: Any) -> None:
        while len(acked) < total:
            waiting = asyncio.create_task(bus._receive(subscription, dice.randint(1, 8), 0.05))
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
                    await bus._release([one])
                    continue
                assert one.attempt not in attempts.setdefault(one.message_id, set()), "an attempt was seen twice"
                attempts[one.message_id].add(one.attempt)
                if choice < 0.4:
                    await bus._nack(one, 0)
                else:
                    assert await bus._ack([one]) == [None]
                    acked[one.message_id] = acked.get(one.message_id, 0) + 1

    async def publish() -> None:
        for number in range(total // 4):
            published.update(await kit.publish(consumers[number % 2][0], *range(4)))

    async with asyncio.timeout(60):
        await asyncio.gather(publish(), *(consume(*consumer) for consumer in consumers))
    assert set(acked) == published
    assert set(acked.values()) == {1}
    assert all(seen == set(range(1, len(seen) + 1)) for seen in attempts.values())
