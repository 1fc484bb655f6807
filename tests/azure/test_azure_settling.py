"""Locks, pauses, and what is settled over connections that break: what the contract cannot see."""

from __future__ import annotations

import asyncio

import pytest
from azure.servicebus.aio import ServiceBusReceiver

from azure_messages_kit import Namespace
from totoms.envelope import DeadLetterReason, Received
from totoms.errors import BackendError, LeaseLost
from totoms_azure import servicebus_leases, servicebus_sdk
from totoms_azure.bus import AzureMessageBus

REASON = DeadLetterReason("attempts_exhausted", "ValueError", "it did not work", 5)


async def _received(
    namespace: Namespace, *bodies: bytes, lease_seconds: float = 5.0
) -> tuple[AzureMessageBus, list[Received]]:
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


async def test_acks_have_reached_the_broker_when_they_are_told(namespace: Namespace) -> None:
    bus, received = await _received(namespace, *(b"%d" % number for number in range(50)))
    assert list(await bus._ack(received)) == [None] * 50
    assert namespace.bodies() == []


async def test_acks_survive_a_connection_that_breaks_before_them(namespace: Namespace) -> None:
    bus, received = await _received(namespace, *(b"%d" % number for number in range(5)))
    await asyncio.to_thread(namespace.server.kill_connections)
    assert await _in_the_end(bus, received) == [None] * 5
    assert namespace.bodies() == []


async def test_acks_that_were_not_confirmed_are_told_again(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, received = await _received(namespace, b"1", b"2", b"3")
    complete = servicebus_sdk.complete

    async def unlucky(receiver: ServiceBusReceiver, message: object, *, confirmed: bool) -> None:
        if confirmed:
            raise ConnectionResetError
        # What is never confirmed may never have left: here it has not.
        message._settled = True  # type: ignore[attr-defined]

    monkeypatch.setattr(servicebus_sdk, "complete", unlucky)
    with pytest.raises(BackendError):
        await bus._ack(received)
    monkeypatch.setattr(servicebus_sdk, "complete", complete)
    assert list(await bus._ack(received)) == [None] * 3
    assert namespace.bodies() == []


@pytest.mark.parametrize("how", ["nack", "dead_letter", "release", "extend"])
async def test_others_survive_a_connection_that_breaks_before_them(namespace: Namespace, how: str) -> None:
    bus, (one,) = await _received(namespace, b"1")
    await asyncio.to_thread(namespace.server.kill_connections)
    async with asyncio.timeout(10):
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
    bus, (one,) = await _received(namespace, b"1", lease_seconds=3.0)
    await bus._nack(one, 7.0)
    other = namespace.bus()
    await other._subscribe(namespace.subscription, create=False)
    assert await other._receive(namespace.subscription, 1, 3.5) == []
    (again,) = await namespace.received(other, 1)
    assert (again.body, again.attempt) == (b"1", 2)


async def test_pause_survives_a_connection_that_breaks(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1")
    await bus._nack(one, 2.5)
    await asyncio.to_thread(namespace.server.kill_connections)
    (again,) = await _until_received(namespace, bus)
    assert (again.body, again.attempt) == (b"1", 2)
    assert not bus._leases._parked


async def test_paused_message_is_no_longer_held_by_who_received_it(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1")
    await bus._nack(one, 30.0)
    assert isinstance((await bus._ack([one]))[0], LeaseLost)
    with pytest.raises(LeaseLost):
        await bus._nack(one, 0.0)
    assert namespace.locked() == 1


async def test_paused_message_that_the_broker_took_back_is_let_go(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1", lease_seconds=1.0)
    await bus._nack(one, 30.0)
    await asyncio.to_thread(namespace.takes_back)
    await namespace.until(lambda: not bus._leases._parked, "it is kept")
    assert [again.attempt for again in await namespace.received(bus, 1)] == [2]


async def test_who_stops_puts_back_what_is_paused(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2")
    await bus._nack(received[0], 60.0)
    await bus._stop_receiving(namespace.subscription)
    assert (namespace.locked(), namespace.counts()) == (1, [1, 0])
    await bus._nack(received[1], 60.0)  # a handler that ends while its service stops
    assert (namespace.locked(), namespace.counts()) == (0, [1, 1])
    (again, _) = await namespace.received(bus, 2)
    await bus._nack(again, 60.0)  # it receives again, so there are pauses again
    assert namespace.locked() == 2


async def test_close_puts_back_what_is_paused(namespace: Namespace) -> None:
    bus, received = await _received(namespace, b"1", b"2")
    for one in received:
        await bus._nack(one, 60.0)
    await bus.close()
    assert (namespace.locked(), namespace.counts()) == (0, [1, 1])


async def test_only_so_many_are_paused_at_a_time(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicebus_leases, "MOST_PARKED", 2)
    bus, received = await _received(namespace, b"1", b"2", b"3")
    for one in received[:2]:
        await bus._nack(one, 60.0)
    waiting = asyncio.create_task(bus._nack(received[2], 60.0))
    await namespace.until(lambda: len(bus._leases._parked) == 3, "it is not paused")
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
    lane = one.lease.lane
    assert lane.busy
    await namespace.until(lambda: not lane.busy, "it is kept")
    assert not lane.unsettled
    assert isinstance((await bus._ack([one]))[0], LeaseLost)


# --- the SDK's private parts ---


async def test_installed_sdk_has_the_parts_that_are_used(namespace: Namespace) -> None:
    bus, (one,) = await _received(namespace, b"1")
    receiver = one.lease.lane._receiver
    for name in ("_await_settlement_outcome", "_further_pull_receive_timeout"):
        assert hasattr(receiver, name), f"servicebus_sdk.py does without {name}: it is slower"
    assert hasattr(receiver._amqp_transport, "drain_and_release_messages_async")
    assert hasattr(receiver._handler, "settle_messages_async")
    for name in ("_delivery_id", "_delivery_tag", "_settled"):
        assert hasattr(one.lease.message, name)
    assert list(await bus._ack([one])) == [None]


async def test_without_those_parts_all_is_still_settled(namespace: Namespace) -> None:
    class Changed:
        """A receiver of an SDK with other private parts."""

        def __init__(self, receiver: ServiceBusReceiver) -> None:
            self.receive_messages = receiver.receive_messages
            self.complete_message = receiver.complete_message
            self.abandon_message = receiver.abandon_message

    bus, received = await _received(namespace, b"1", b"2", b"3")
    lane = received[0].lease.lane
    changed = Changed(lane._receiver)
    one, two, three = (received[number].lease.message for number in range(3))
    servicebus_sdk.prepare(changed)  # type: ignore[arg-type]
    await servicebus_sdk.drain(changed)  # type: ignore[arg-type]
    await servicebus_sdk.complete(changed, one, confirmed=False)  # type: ignore[arg-type]
    await servicebus_sdk.complete(changed, two, confirmed=True)  # type: ignore[arg-type]
    await servicebus_sdk.release(changed, three)  # type: ignore[arg-type]
    assert namespace.bodies() == [received[2].body]
    assert namespace.counts() == [1]
    assert namespace.locked() == 0
    assert list(await bus._receive(namespace.subscription, 1, 5.0))


async def _in_the_end(bus: AzureMessageBus, received: list[Received]) -> list[BackendError | None]:
    """Acknowledge as the core does: an error is followed by another try."""
    async with asyncio.timeout(15):
        while True:
            try:
                return list(await bus._ack(received))
            except BackendError:
                await asyncio.sleep(0)


async def _until_received(namespace: Namespace, bus: AzureMessageBus) -> list[Received]:
    async with asyncio.timeout(15):
        while True:
            try:
                return await namespace.received(bus, 1)
            except BackendError:
                await asyncio.sleep(0)
