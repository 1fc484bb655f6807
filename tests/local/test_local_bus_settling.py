"""Settling on the local bus: acked for good, retried after a pause, or released without counting an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from support.local.bus import (
    BLOG,
    Clock,
    nothing_comes,
    number_of,
    publish,
    receive,
    receive_numbers,
    receive_one,
    rows_of,
    settled,
)
from totoms.errors import LeaseLost
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.dead_letters import DeadLetterReason

REASON = DeadLetterReason("non_retryable", "Bad", "it is bad", 1)


async def test_ack_twice_and_settling_after_an_ack_do_no_harm(bus: LocalMessageBus, local_root: str) -> None:
    await publish(bus, 1, 2)
    first = await receive_one(bus)
    assert await bus._ack([first, first]) == [None, None]
    (again,) = await bus._ack([first])
    assert isinstance(again, LeaseLost)
    with pytest.raises(LeaseLost):
        await bus._nack(first, 0.0)
    with pytest.raises(LeaseLost):
        await bus._dead_letter(first, REASON)
    await bus._release([first])
    assert await receive_numbers(bus, 1) == [2]
    assert rows_of(local_root, "SELECT * FROM deliveries UNION ALL SELECT * FROM deliveries") == []


async def test_two_acks_of_one_message_at_once_delete_it_once(bus: LocalMessageBus, local_root: str) -> None:
    await publish(bus, 1, 2)
    first = await receive_one(bus)
    await asyncio.gather(bus._ack([first]), bus._ack([first]))
    assert rows_of(local_root, "SELECT count(*) FROM deliveries") == [(1,)]


async def test_nacked_message_comes_again_after_its_pause_with_the_next_attempt(
    bus: LocalMessageBus, clock: Clock
) -> None:
    (message_id,) = await publish(bus, 1)
    await bus._nack(await receive_one(bus), 10.0)
    clock.advance(9.0)
    assert await nothing_comes(bus)
    clock.advance(2.0)
    again = await receive_one(bus)
    assert (again.attempt, again.message_id) == (2, message_id)


async def test_message_nacked_without_a_pause_comes_at_once(bus: LocalMessageBus) -> None:
    await publish(bus, 1)
    await bus._nack(await receive_one(bus), 0.0)
    assert (await receive_one(bus)).attempt == 2


async def test_released_message_comes_at_once_with_no_attempt_counted_and_before_later_ones(
    bus: LocalMessageBus,
) -> None:
    await publish(bus, 1, 2, 3)
    first = await receive_one(bus)
    await bus._release([first])
    batch = await receive(bus)
    assert (number_of(batch[0]), batch[0].attempt) == (1, 1)


@pytest.mark.parametrize("process", [False, True], ids=["other bus", "other process"])
@pytest.mark.parametrize("how", ["release", "nack", "pause"])
async def test_consumer_that_waits_gets_at_once_what_another_gives_back(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock, process: bool, how: str
) -> None:
    await publish(bus, 1)
    received = await receive_one(bus)
    other = another(process=process)
    await other._subscribe(BLOG, create=True)
    waiting = asyncio.ensure_future(receive(other))
    await settled(other)
    if how == "release":
        await bus._release([received])
    elif how == "nack":
        await bus._nack(received, 0.0)
    else:
        await bus._nack(received, 5.0)
        await settled(other)
        clock.advance(6.0)
    (again,) = await waiting
    assert again.attempt == (1 if how == "release" else 2)
