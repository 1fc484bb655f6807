"""Leases of the local bus: retried, expired, extended, given back, and fenced against who came late."""

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


async def test_nacked_message_comes_again_with_the_next_attempt_and_the_same_id(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    (message_id,) = await kit.publish(bus, 1)
    for attempt in range(1, 6):
        (held,) = await kit.get(bus, subscription)
        assert (held.message_id, held.attempt) == (message_id, attempt)
        await bus._nack(held, 0.0)


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


@BOTH
async def test_expired_lease_goes_to_another_and_the_late_one_is_refused(kit: Any, own_writer: bool) -> None:
    bus, subscription = await kit.consumer()
    other, _ = await kit.consumer(own_writer=own_writer)
    assert await kit.nothing(other, subscription)  # it has looked, and found nothing
    waiting = asyncio.ensure_future(bus._receive(subscription, 1, 20))
    await asyncio.sleep(0)
    await kit.publish(bus, 1)
    (late,) = await waiting
    assert await kit.nothing(other, subscription)
    kit.advance(LEASE + 1)
    (owner,) = await kit.get(other, subscription)
    assert (owner.message_id, owner.attempt) == (late.message_id, 2)
    await refuses(bus, late)
    assert await other._extend([owner]) == [None]
    assert await other._ack([owner]) == [None]
    kit.advance(LEASE + 1)
    assert await kit.nothing(bus, subscription)
    assert await kit.nothing(other, subscription)


async def test_consumer_that_gets_its_own_expired_message_again_knows_the_old_handle(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    await kit.publish(bus, 1)
    (late,) = await kit.get(bus, subscription)
    kit.advance(LEASE + 1)
    (owner,) = await kit.get(bus, subscription)
    assert owner.attempt == 2
    await refuses(bus, late)
    await bus._release([late])  # nobody is told, and nothing happens
    assert await kit.nothing(bus, subscription)
    assert await bus._ack([owner]) == [None]


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


async def test_extended_lease_is_kept(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    other, _ = await kit.consumer(own_writer=True)
    await kit.publish(bus, 1, 2)
    one, two = await kit.get(bus, subscription, 2)
    for _ in range(5):
        kit.advance(LEASE * 0.7)
        assert await bus._extend([one, two]) == [None, None]
        assert await kit.nothing(other, subscription)
    assert await bus._ack([one]) == [None]
    kit.advance(LEASE + 1)
    assert (await kit.get(other, subscription))[0].message_id == two.message_id


@BOTH
async def test_released_message_is_to_be_had_at_once_and_nothing_was_counted(kit: Any, own_writer: bool) -> None:
    bus, subscription = await kit.consumer()
    other, _ = await kit.consumer(own_writer=own_writer)
    ids = await kit.publish(bus, 1, 2)
    held = await kit.get(bus, subscription, 2)
    assert await kit.nothing(other, subscription)
    await bus._release(held)
    got = await kit.get(other, subscription, 2)
    assert {(one.message_id, one.attempt) for one in got} == {(message_id, 1) for message_id in ids}
    await refuses(bus, held[0])


async def test_one_lost_lease_in_a_batch_concerns_itself_alone(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    other, _ = await kit.consumer(own_writer=True)
    await kit.publish(bus, 1)
    (late,) = await kit.get(bus, subscription)
    kit.advance(LEASE + 1)
    (owner,) = await kit.get(other, subscription)
    await kit.publish(bus, *range(10))
    mine = await kit.get(bus, subscription, 10)
    results = await bus._ack([*mine[:5], late, *mine[5:]])
    assert [type(result).__name__ for result in results] == ["NoneType"] * 5 + ["LeaseLost"] + ["NoneType"] * 5
    assert await other._ack([owner]) == [None]
    kit.advance(LEASE + 1)
    assert await kit.nothing(bus, subscription)


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


async def test_receive_that_nobody_fills_returns_nothing_when_time_is_up(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    assert await bus._receive(subscription, 1, 0.0) == []
    await kit.publish(bus, 1)
    assert len(await kit.get(bus, subscription)) == 1


async def test_stopped_consumer_returns_from_its_wait(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    waiting = asyncio.ensure_future(bus._receive(subscription, 1, 1000))
    await asyncio.sleep(0)
    await bus._stop_receiving(subscription)
    assert await waiting == []
    other, _ = await kit.consumer()
    await kit.publish(bus, 1)
    assert len(await kit.get(other, subscription)) == 1


async def test_closed_bus_returns_from_its_wait(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    waiting = asyncio.ensure_future(bus._receive(subscription, 1, 1000))
    await asyncio.sleep(0)
    await bus.close()
    assert await waiting == []


@BOTH
async def test_closing_gives_back_what_was_handed_over_and_not_taken(kit: Any, own_writer: bool) -> None:
    bus, subscription = await kit.consumer()
    other, _ = await kit.consumer(own_writer=own_writer)
    waiting = asyncio.ensure_future(bus._receive(subscription, 100, 20))
    await asyncio.sleep(0)
    publishing = [asyncio.ensure_future(kit.publish(other, number)) for number in range(50)]
    await asyncio.sleep(0)
    await bus.close()
    ids = {message_id for one in await asyncio.gather(*publishing) for message_id in one}
    taken = await waiting
    rest = await kit.get(other, subscription, 50 - len(taken))
    assert {one.message_id for one in (*taken, *rest)} == ids
    assert {one.attempt for one in (*taken, *rest)} == {1}


@pytest.mark.parametrize("stop", ["cancel", "time out"])
@BOTH
async def test_wait_that_ends_any_moment_strands_nothing(kit: Any, stop: str, own_writer: bool) -> None:
    """Time stands still, so what is leased and forgotten would never come back."""
    bus, subscription = await kit.consumer()
    publisher = kit.bus(own_writer=own_writer)
    dice = random.Random(1)
    total = 300
    got: dict[str, int] = {}
    published: list[str] = []

    async def publish() -> None:
        for number in range(total):
            published.extend(await kit.publish(publisher, number))

    publishing = asyncio.create_task(publish())
    async with asyncio.timeout(60):
        while len(got) < total:
            most = dice.randint(1, 5)
            if stop == "time out":
                batch = await bus._receive(subscription, most, dice.choice([0, 0, 0.0005, 0.002]))
            else:
                waiting = asyncio.create_task(bus._receive(subscription, most, 20))
                for _ in range(dice.randint(0, 12)):
                    await asyncio.sleep(0)
                if not publishing.done() or dice.random() < 0.9:
                    waiting.cancel()
                try:
                    batch = await waiting
                except asyncio.CancelledError:
                    continue
            assert len(batch) <= most
            for one in batch:
                assert one.message_id not in got, "received twice"
                got[one.message_id] = one.attempt
            await bus._ack(batch) if batch else None
    await publishing
    assert set(got) == set(published)
    assert set(got.values()) == {1}, "no attempt was counted for what nobody took"


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


@BOTH
async def test_ordering_key_is_kept_under_failures_and_two_consumers(kit: Any, own_writer: bool) -> None:
    consumers = [await kit.consumer(ordered=True), await kit.consumer(ordered=True, own_writer=own_writer)]
    dice = random.Random(3)
    keys, each = ("a", "b", "c"), 20
    done: dict[str, list[int]] = {key: [] for key in keys}
    busy: set[str] = set()

    async def consume(bus: LocalMessageBus, subscription: Any) -> None:
        while sum(map(len, done.values())) < each * len(keys):
            for one in await bus._receive(subscription, 4, 0.05):
                key = one.ordering_key
                assert key not in busy, "two messages of one key are handled at once"
                busy.add(key)
                await asyncio.sleep(0)
                choice = dice.random()
                busy.discard(key)
                if choice < 0.3:
                    await bus._nack(one, 0)
                elif choice < 0.4:
                    await bus._release([one])
                else:
                    number = int(one.body.split(b'"id":"')[1].split(b'"')[0])
                    done[key].append(number)
                    assert await bus._ack([one]) == [None]

    async def publish() -> None:
        for number in range(each):
            for key in keys:
                await kit.publish(consumers[number % 2][0], number, ordering_key=key)

    async with asyncio.timeout(60):
        await asyncio.gather(publish(), *(consume(*consumer) for consumer in consumers))
    assert done == {key: list(range(each)) for key in keys}


@BOTH
@pytest.mark.parametrize("how", ["ack", "dead letter"])
async def test_settled_head_of_a_key_lets_the_next_one_pass_to_who_waits(kit: Any, own_writer: bool, how: str) -> None:
    bus, subscription = await kit.consumer(ordered=True)
    other, _ = await kit.consumer(ordered=True, own_writer=own_writer)
    ids = await kit.publish(bus, 1, 2, ordering_key="k")
    (head,) = await kit.get(bus, subscription)
    assert head.message_id == ids[0]
    assert await kit.nothing(bus, subscription)
    waiting = asyncio.ensure_future(other._receive(subscription, 5, 20))
    for _ in range(3):
        await other._do(lambda connection: None)
    assert not waiting.done()
    if how == "ack":
        await bus._ack([head])
    else:
        await bus._dead_letter(head, DeadLetterReason("non_retryable"))
    assert [one.message_id for one in await waiting] == [ids[1]]


async def test_failed_head_of_a_key_holds_the_rest_until_it_is_due(kit: Any) -> None:
    bus, subscription = await kit.consumer(ordered=True)
    ids = await kit.publish(bus, 1, 2, ordering_key="k")
    (free,) = await kit.publish(bus, 3)
    got = await kit.get(bus, subscription, 2)
    assert {one.message_id for one in got} == {ids[0], free}
    head = next(one for one in got if one.ordering_key)
    await bus._nack(head, 10)
    assert await kit.nothing(bus, subscription)
    kit.advance(11)
    (again,) = await kit.get(bus, subscription)
    assert (again.message_id, again.attempt) == (ids[0], 2)
    await bus._ack([again])
    assert [one.message_id for one in await kit.get(bus, subscription)] == [ids[1]]


async def test_ordering_key_does_not_matter_where_the_subscription_is_not_ordered(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    await kit.publish(bus, 1, 2, 3, ordering_key="k")
    assert len(await kit.get(bus, subscription, 3)) == 3
