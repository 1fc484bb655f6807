"""Leases of the local bus: they expire, are renewed and given back, and a consumer that lost one can settle nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from support.local.bus import (
    BLOG,
    LEASE,
    Clock,
    crash_image,
    make_bus,
    nothing_comes,
    number_of,
    open_bus,
    publish,
    receive,
    receive_one,
    rows_of,
    settled,
)
from totoms.errors import LeaseLost
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received

REASON = DeadLetterReason("non_retryable", "Bad", "it is bad", 1)


async def test_leased_message_is_not_delivered_to_another(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus]
) -> None:
    await publish(bus, 1)
    await receive_one(bus)
    for other in (another(), another(process=True)):
        await other._subscribe(BLOG, create=True)
        assert await nothing_comes(other)


async def test_expired_lease_makes_the_message_available_with_the_next_attempt_and_the_same_id(
    bus: LocalMessageBus, clock: Clock
) -> None:
    (message_id,) = await publish(bus, 1)
    for attempt in range(1, 5):
        received = await receive_one(bus)
        assert (received.attempt, received.message_id) == (attempt, message_id)
        clock.advance(LEASE - 1)
        assert await nothing_comes(bus)
        clock.advance(2)


@pytest.mark.parametrize("process", [False, True], ids=["other bus", "other process"])
async def test_consumer_that_lost_its_lease_to_another_settles_nothing(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock, process: bool
) -> None:
    await publish(bus, 1)
    stale = await receive_one(bus)
    other = another(process=process)
    await other._subscribe(BLOG, create=True)
    clock.advance(LEASE + 1)
    current = await receive_one(other)
    await assert_all_is_refused(bus, stale)
    assert await other._extend([current]) == [None]
    assert await other._ack([current]) == [None]


async def test_consumer_that_got_its_own_message_again_settles_nothing_with_the_old_lease(
    bus: LocalMessageBus, clock: Clock
) -> None:
    await publish(bus, 1)
    stale = await receive_one(bus)
    clock.advance(LEASE + 1)
    current = await receive_one(bus)
    await assert_all_is_refused(bus, stale)
    assert await bus._ack([current]) == [None]


async def assert_all_is_refused(bus: LocalMessageBus, stale: Received) -> None:
    (extended,) = await bus._extend([stale])
    assert isinstance(extended, LeaseLost)
    (acked,) = await bus._ack([stale])
    assert isinstance(acked, LeaseLost)
    with pytest.raises(LeaseLost):
        await bus._nack(stale, 0.0)
    with pytest.raises(LeaseLost):
        await bus._dead_letter(stale, REASON)
    await bus._release([stale])
    assert await bus.list_dead_letters(BLOG.name) == []


async def test_stale_settlement_in_the_commit_that_leases_anew_is_refused(bus: LocalMessageBus, clock: Clock) -> None:
    await publish(bus, 1)
    stale = await receive_one(bus)
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    # Both reach the writer in one go: the lease runs out, and the handler that is too late gives up its message.
    clock.now += LEASE + 1
    outcomes = await asyncio.gather(bus._nack(stale, 60.0), return_exceptions=True)
    if outcomes == [None]:  # the nack was first: then no consumer gets the message early
        await settled(bus)
        assert not waiting.done()
        clock.advance(61.0)
    (current,) = await waiting
    assert await bus._ack([current]) == [None]


async def test_lease_lost_by_one_of_a_batch_leaves_the_others_acked(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock, local_root: str
) -> None:
    await publish(bus, *range(10))
    batch = await receive(bus)
    while len(batch) < 10:
        batch += await receive(bus, most=10 - len(batch))
    other = another(process=True)
    await other._subscribe(BLOG, create=True)
    clock.advance(LEASE - 1)
    assert await bus._extend([one for one in batch if number_of(one) != 4]) == [None] * 9
    clock.advance(2)
    lost = await receive(other)
    assert [number_of(one) for one in lost] == [4]
    results = await bus._ack(batch)
    assert [number_of(one) for one, result in zip(batch, results, strict=True) if result is not None] == [4]
    assert [type(result) for result in results if result is not None] == [LeaseLost]
    assert rows_of(local_root, "SELECT count(*) FROM deliveries") == [(1,)]


async def test_late_ack_is_accepted_while_no_other_consumer_has_the_message(
    bus: LocalMessageBus, clock: Clock, local_root: str
) -> None:
    await publish(bus, 1)
    received = await receive_one(bus)
    clock.advance(LEASE + 1)
    await bus._ack([received])
    assert rows_of(local_root, "SELECT * FROM deliveries") == []


async def test_extended_lease_lasts_from_now(bus: LocalMessageBus, clock: Clock) -> None:
    await publish(bus, 1)
    received = await receive_one(bus)
    for _ in range(5):
        clock.advance(LEASE - 1)
        assert await bus._extend([received]) == [None]
    clock.advance(LEASE - 1)
    assert await nothing_comes(bus)
    clock.advance(2)
    assert (await receive_one(bus)).attempt == 2


async def test_extension_on_the_way_when_the_lease_runs_out_keeps_it(bus: LocalMessageBus, clock: Clock) -> None:
    await publish(bus, 1)
    received = await receive_one(bus)
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    clock.now += LEASE + 1  # the writer notices both in the next transaction
    assert await bus._extend([received]) == [None]
    await settled(bus)
    assert not waiting.done()
    waiting.cancel()


async def test_attempts_survive_a_crash_and_a_crash_counts_as_one(
    bus: LocalMessageBus, clock: Clock, local_root: str, tmp_path: Path
) -> None:
    await publish(bus, 1)
    root = Path(local_root)
    for crash in range(3):
        async with open_bus(root, clock) as running:
            await running._subscribe(BLOG, create=True)
            received = await receive_one(running)
            assert received.attempt == crash + 1
            root = crash_image(root, tmp_path / f"crash-{crash}")
        clock.advance(LEASE + 1)


async def test_message_that_a_crashed_process_held_comes_when_its_lease_has_run_out_and_not_before(
    bus: LocalMessageBus, clock: Clock, local_root: str, tmp_path: Path
) -> None:
    await publish(bus, 1)
    await receive_one(bus)
    async with open_bus(crash_image(local_root, tmp_path / "crash"), clock) as survivor:
        await survivor._subscribe(BLOG, create=True)
        clock.advance(LEASE - 1)
        assert await nothing_comes(survivor)
        clock.advance(2)
        assert (await receive_one(survivor)).attempt == 2


async def test_lost_leases_are_not_remembered_for_ever(bus: LocalMessageBus, clock: Clock) -> None:
    other = make_bus(bus._root, clock)
    await other._subscribe(BLOG, create=True)
    for number in range(5):
        await publish(bus, number)
        stale = await receive_one(bus)
        clock.advance(LEASE + 1)
        await other._ack([await receive_one(other)])
        with pytest.raises(LeaseLost):
            await bus._nack(stale, 0.0)
    await other.close()
    assert len(bus._receivers[BLOG.name]._feed.leases) == 0


async def test_row_of_a_message_that_is_gone_does_not_name_the_next_one(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock, local_root: str
) -> None:
    await publish(bus, 1)
    stale = await receive_one(bus)
    other = another(process=True)
    await other._subscribe(BLOG, create=True)
    clock.advance(LEASE + 1)
    await other._ack([await receive_one(other)])
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    outcomes = await asyncio.gather(
        publish(bus, 2), bus._dead_letter(stale, REASON), bus._nack(stale, 0.0), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes[1:]] == [LeaseLost, LeaseLost]
    (current,) = await waiting
    assert number_of(current) == 2
    assert await bus._ack([current]) == [None]
    assert rows_of(local_root, "SELECT * FROM dead_letters") == []
