"""Locks, pauses, and what is settled over connections that break: what the contract cannot see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from azure.servicebus.aio import ServiceBusReceiver

from support.azure.messages import BusOfTests, Namespace
from totoms.errors import BackendError, LeaseLost
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received
from totoms_azure import private_api
from totoms_azure.messages import receiver

REASON = DeadLetterReason("attempts_exhausted", "ValueError", "it did not work", 5)


async def _received(
    namespace: Namespace, *bodies: bytes, lease_seconds: float = 15.0
) -> tuple[BusOfTests, list[Received]]:
    bus = namespace.bus(lease_seconds=lease_seconds)
    await bus._subscribe(namespace.subscription, create=True)
    await namespace.publish(*bodies)
    return bus, await namespace.received(bus, len(bodies))


async def test_ack_after_the_broker_took_the_message_back_is_a_lost_lease(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1")
    await asyncio.to_thread(namespace.takes_back)
    assert isinstance((await bus._ack([one]))[0], LeaseLost)
    (again,) = await namespace.received(bus, 1)
    assert (again.body, again.attempt) == (b"1", 2)
    assert list(await bus._ack([again])) == [None]


async def test_everything_else_after_the_broker_took_the_message_back_is_a_lost_lease(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2", b"3")
    await asyncio.to_thread(namespace.takes_back)
    with pytest.raises(LeaseLost):
        await bus._nack(received[0], 0.0)
    with pytest.raises(LeaseLost):
        await bus._dead_letter(received[1], REASON)
    assert isinstance((await bus._extend([received[2]]))[0], LeaseLost)
    assert sorted(one.attempt for one in await namespace.received(bus, 3)) == [2, 2, 2]


async def test_release_of_what_the_broker_took_back_is_nothing(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1")
    await asyncio.to_thread(namespace.takes_back)
    await bus._release(received)
    assert namespace.counts() == [1]


async def test_lost_message_does_not_keep_others_of_its_batch_from_being_settled(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2", b"3")
    await asyncio.to_thread(namespace.takes_back, b"3")
    results = await bus._ack(sorted(received, key=lambda one: one.body))
    assert [type(result) for result in results] == [type(None), type(None), LeaseLost]
    assert namespace.bodies() == [b"3"]


async def test_acks_have_reached_the_broker_when_ack_returns(namespace: Namespace) -> None:
    bus, received = await _received(namespace, *(b"%d" % number for number in range(50)))
    assert list(await bus._ack(received)) == [None] * 50
    assert namespace.bodies() == []


async def test_acks_survive_a_connection_that_breaks_before_them(namespace: Namespace) -> None:
    bus, received = await _received(namespace, *(b"%d" % number for number in range(5)))
    await asyncio.to_thread(namespace.server.kill_connections)
    assert await _in_the_end(bus, received) == [None] * 5
    assert namespace.bodies() == []


async def test_acks_that_were_not_confirmed_are_sent_again(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, received = await _received(namespace, b"1", b"2", b"3")
    complete = private_api.complete

    async def unlucky(receiver: ServiceBusReceiver, message: object, *, confirmed: bool) -> None:
        if confirmed:
            raise ConnectionResetError
        # What is never confirmed may never have left: here it has not.
        message._settled = True  # type: ignore[attr-defined]

    monkeypatch.setattr(private_api, "complete", unlucky)
    with pytest.raises(BackendError):
        await bus._ack(received)
    monkeypatch.setattr(private_api, "complete", complete)
    assert list(await bus._ack(received)) == [None] * 3
    assert namespace.bodies() == []


@pytest.mark.parametrize("how", ["nack", "dead_letter", "release", "extend"])
async def test_others_survive_a_connection_that_breaks_before_them(namespace: Namespace, how: str) -> None:
    bus, (one,) = await _received(namespace, b"1")
    await asyncio.to_thread(namespace.server.kill_connections)
    async with asyncio.timeout(120):
        while True:
            try:
                match how:
                    case "nack":
                        await bus._nack(one, 0.0)
                    case "dead_letter":
                        await bus._dead_letter(one, REASON)
                    case "release":
                        await bus._release([one])
                    case _:
                        assert list(await bus._extend([one])) == [None]
                break
            except LeaseLost:
                raise
            except BackendError:
                await asyncio.sleep(0)
    if how == "dead_letter":
        assert namespace.bodies(f"{namespace.path}/$deadletterqueue") == [b"1"]
    elif how == "extend":
        assert namespace.locked() == 1
    else:
        assert [again.body for again in await _until_received(namespace, bus)] == [b"1"]


async def test_ack_is_confirmed_though_a_renewal_waits_for_its_end(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2")
    results = await asyncio.gather(bus._ack(received), bus._extend(received))
    assert list(map(list, results)) == [[None, None]] * 2
    assert namespace.bodies() == []


async def test_two_acks_at_a_time_are_both_confirmed(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2")
    results = await asyncio.gather(bus._ack(received), bus._ack(received))
    assert list(map(list, results)) == [[None, None]] * 2
    assert namespace.bodies() == []


async def test_message_that_came_by_an_old_link_settles_no_other(namespace: Namespace) -> None:
    # The numbers of deliveries begin anew with each link.
    bus, (one,) = await _received(namespace, b"1")
    await asyncio.to_thread(namespace.server.kill_connections)
    await namespace.publish(b"2")
    (two,) = await _until_received(namespace, bus)
    await bus._release([one])
    assert two.lease.held
    assert list(await bus._ack([two])) == [None]
    assert namespace.bodies() == [b"1"]


async def test_pause_outlasts_the_lock_and_counts_one_attempt(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1", lease_seconds=5.0)
    await bus._nack(one, 15.0)
    other = namespace.bus()
    await other._subscribe(namespace.subscription, create=False)
    assert await other._receive(namespace.subscription, 1, 6.0) == []
    (again,) = await namespace.received(other, 1)
    assert (again.body, again.attempt) == (b"1", 2)


async def test_pause_survives_a_connection_that_breaks(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1")
    await bus._nack(one, 2.5)
    await asyncio.to_thread(namespace.server.kill_connections)
    (again,) = await _until_received(namespace, bus)
    assert (again.body, again.attempt) == (b"1", 2)
    assert not _pauses(bus)


async def test_settling_a_paused_message_again_does_nothing(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1")
    await bus._nack(one, 30.0)
    assert list(await bus._ack([one])) == [None]
    await bus._nack(one, 0.0)
    await bus._release([one])
    assert (namespace.locked(), namespace.counts()) == (1, [0])


async def test_paused_message_that_the_broker_took_back_is_let_go(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1", lease_seconds=1.0)
    await bus._nack(one, 30.0)
    await asyncio.to_thread(namespace.takes_back)
    await namespace.until(lambda: not _pauses(bus), "it is kept")
    assert [again.attempt for again in await namespace.received(bus, 1)] == [2]


async def test_who_stops_puts_back_what_is_paused(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2")
    await bus._nack(received[0], 60.0)
    await bus._stop_receiving(namespace.subscription)
    assert (namespace.locked(), namespace.counts()) == (1, [1, 0])
    await bus._nack(received[1], 60.0)  # a handler that ends while its service stops
    assert (namespace.locked(), namespace.counts()) == (0, [1, 1])
    assert await bus._receive(namespace.subscription, 1, 600.0) == []


async def test_close_puts_back_what_is_paused(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2")
    for one in received:
        await bus._nack(one, 60.0)
    await bus.close()
    assert (namespace.locked(), namespace.counts()) == (0, [1, 1])


async def test_only_so_many_are_paused_at_a_time(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "MOST_PAUSES", 2)
    bus, received = await _received(namespace, b"1", b"2", b"3")
    for one in received[:2]:
        await bus._nack(one, 60.0)
    waiting = asyncio.create_task(bus._nack(received[2], 60.0))
    await namespace.until(lambda: len(_pauses(bus)) == 3, "it is not paused")
    assert not waiting.done()
    await bus._stop_receiving(namespace.subscription)
    await waiting


async def test_released_message_counts_no_attempt(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2")
    await bus._release(received)
    await namespace.until(lambda: namespace.locked() == 0, "they are not released")
    assert namespace.counts() == [0, 0]
    assert [one.attempt for one in await namespace.received(bus, 2)] == [1, 1]


async def test_leases_that_are_over_are_forgotten(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1", lease_seconds=1.0)
    link = one.lease.link
    assert link.busy
    await namespace.until(lambda: not link.busy, "it is kept")
    assert not link.unsettled
    assert isinstance((await bus._ack([one]))[0], LeaseLost)


def _pauses(bus: BusOfTests) -> dict[Any, Any]:
    return bus._receivers["shop-posts"]._pauses  # type: ignore[attr-defined, no-any-return]


async def _in_the_end(bus: BusOfTests, received: list[Received]) -> list[BackendError | None]:
    """Acknowledge as the core does: an error is followed by another try."""
    async with asyncio.timeout(120):
        while True:
            try:
                return list(await bus._ack(received))
            except BackendError:
                await asyncio.sleep(0)


async def _until_received(namespace: Namespace, bus: BusOfTests) -> list[Received]:
    async with asyncio.timeout(120):
        while True:
            try:
                return await namespace.received(bus, 1)
            except BackendError:
                await asyncio.sleep(0)
