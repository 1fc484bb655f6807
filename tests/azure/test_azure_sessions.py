"""Ordered subscriptions: which consumer holds a session, and for how long."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from support.azure.messages import BusOfTests, Namespace
from totoms.errors import AccessDenied, LeaseLost, Unavailable
from totoms.testing.stalls import StallMeter
from totoms_azure.messages import sessions


async def _subscribed(namespace: Namespace, **settings: float) -> BusOfTests:
    bus = namespace.bus(**settings)
    await bus._subscribe(namespace.ordered, create=True)
    return bus


def _sessions(namespace: Namespace) -> list[str]:
    return namespace.server.run(lambda: list(namespace.server.store.source(namespace.path).sessions))


async def test_more_keys_than_slots_have_their_turns(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_LONGEST_SECONDS", 0.0)
    bus = await _subscribed(namespace)
    for number in range(10):
        for key in "abcd":
            await namespace.publish(b"%s%d" % (key.encode(), number), key=key)
    seen: Counter[str | None] = Counter()
    while len(seen) < 4:
        for one in await namespace.received(bus, 1, namespace.ordered):
            seen[one.ordering_key] += 1
            assert one.body.endswith(b"%d" % (seen[one.ordering_key] - 1))
            assert list(await bus._ack([one])) == [None]
    assert max(seen.values()) < 10, "one key had the slot until it had nothing left"


async def test_session_without_messages_is_released(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await namespace.publish(b"1", key="a")
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    await bus._ack([one])
    assert _sessions(namespace) == ["a"]
    await namespace.until(lambda: not _sessions(namespace), "the session is kept")


async def test_sessions_that_wait_for_a_free_slot_do_not_hold_up_the_loop(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    for key in "abc":
        await namespace.publish(b"1", key=key)
    received = await namespace.received(bus, 3, namespace.ordered)
    async with StallMeter() as meter:
        await bus._ack(received)
        assert await bus._receive(namespace.ordered, 1, 0.6) == []
    assert meter.longest < 0.3, f"the event loop stood still for {meter.longest:.3f} s"


async def test_message_after_the_last_receive_is_not_leased(namespace: Namespace) -> None:
    bus, other = await _subscribed(namespace), namespace.bus()
    await other._subscribe(namespace.ordered, create=False)
    await namespace.publish(b"1", key="a")
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    await bus._ack([one])
    assert await bus._receive(namespace.ordered, 1, 0.01) == []
    await namespace.publish(b"2", key="a")
    (two,) = await namespace.received(other, 1, namespace.ordered)
    assert (two.body, two.attempt) == (b"2", 1)


async def test_lost_session_is_a_lost_lease_and_its_message_comes_again(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await namespace.publish(b"1", b"2", key="a")
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    await asyncio.to_thread(namespace.ends_sessions)
    assert isinstance((await bus._ack([one]))[0], LeaseLost)
    (again,) = await namespace.received(bus, 1, namespace.ordered)
    assert (again.body, again.attempt) == (b"1", 2)
    assert list(await bus._ack([again])) == [None]
    assert [one.body for one in await namespace.received(bus, 1, namespace.ordered)] == [b"2"]


async def test_lost_session_is_noticed_when_its_lock_is_renewed(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await namespace.publish(b"1", key="a")
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    await asyncio.to_thread(namespace.ends_sessions)
    assert isinstance((await bus._extend([one]))[0], LeaseLost)
    assert [again.attempt for again in await namespace.received(bus, 1, namespace.ordered)] == [2]


async def test_pause_of_a_message_delays_only_later_messages_of_its_session(namespace: Namespace) -> None:
    bus = await _subscribed(namespace, lease_seconds=4.0)
    await namespace.publish(b"a1", b"a2", key="a")
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    await bus._nack(one, 6.0)  # longer than a lock
    await namespace.publish(b"b1", b"b2", key="b")
    came = []
    for _ in range(4):
        (one,) = await namespace.received(bus, 1, namespace.ordered)
        assert list(await bus._ack([one])) == [None]
        came.append((one.body, one.attempt))
    assert came == [(b"b1", 1), (b"b2", 1), (b"a1", 2), (b"a2", 1)]


async def test_connection_killed_while_a_session_is_held_loses_nothing(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await namespace.publish(b"1", b"2", key="a")
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    await asyncio.to_thread(namespace.server.kill_connections)
    with pytest.raises(Unavailable):
        await bus._ack([one])
    assert isinstance((await bus._ack([one]))[0], LeaseLost)  # it was the connection's
    came = []
    for _ in range(2):
        (one,) = await _through_errors(namespace, bus)
        assert list(await bus._ack([one])) == [None]
        came.append(one.body)
    assert came == [b"1", b"2"]


async def test_links_that_drop_are_opened_again(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    receiving = asyncio.create_task(_through_errors(namespace, bus))
    await namespace.until(
        lambda: namespace.server.run(lambda: namespace.server.store.source(namespace.path).waiting), "it does not wait"
    )
    await asyncio.to_thread(namespace.server.drop_links)
    await namespace.publish(b"1", key="a")
    assert [one.body for one in await receiving] == [b"1"]


async def test_refusal_is_raised_by_receive_and_retried(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    namespace.server.denied = {namespace.path}
    with pytest.raises(AccessDenied):
        await bus._receive(namespace.ordered, 2, 10.0)
    namespace.server.denied = set()
    await namespace.publish(b"1", key="a")
    assert [one.body for one in await _through_errors(namespace, bus)] == [b"1"]


async def test_message_without_a_key_is_handled_where_an_order_is_kept(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    assert await bus._publish([namespace.outgoing(b"1")]) == [None]
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    assert (one.body, one.ordering_key) == (b"1", None)


async def test_stopped_receiver_releases_its_sessions_at_once_without_counting_attempts(namespace: Namespace) -> None:
    bus, other = await _subscribed(namespace), namespace.bus()
    await other._subscribe(namespace.ordered, create=False)
    await namespace.publish(b"1", b"2", key="a")
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    await bus._ack([one])
    receiving = asyncio.create_task(bus._receive(namespace.ordered, 1, 20.0))
    await bus._stop_receiving(namespace.ordered)
    left = await receiving
    if left:
        await bus._release(left)
    (two,) = await namespace.received(other, 1, namespace.ordered)
    assert (two.body, two.attempt) == (b"2", 1)


async def test_released_message_of_a_session_is_first_again(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await namespace.publish(b"1", b"2", key="a")
    received = await namespace.received(bus, 1, namespace.ordered)
    await bus._release(received)
    assert [(one.body, one.attempt) for one in await namespace.received(bus, 1, namespace.ordered)] == [(b"1", 1)]


async def _through_errors(namespace: Namespace, bus: BusOfTests) -> list[object]:
    """Receive as the core's consumer does: an error is followed by another try."""
    async with asyncio.timeout(120):
        while True:
            try:
                return await namespace.received(bus, 1, namespace.ordered)
            except Exception as error:
                if isinstance(error, TimeoutError):
                    raise


async def test_nothing_of_a_bus_that_waited_for_a_session_stays_connected(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    assert await bus._receive(namespace.ordered, 1, 1.0) == []
    await bus.close()
    async with asyncio.timeout(120):
        while namespace.server.connections:
            await asyncio.sleep(0.02)


async def test_message_whose_consumers_die_has_attempts_that_grow(namespace: Namespace) -> None:
    """Service Bus does not count a session that is closed by its holder's death."""
    await (await _subscribed(namespace)).close()
    await namespace.publish(b"1", b"2", key="a")
    attempts = []
    for _ in range(4):
        bus = await _subscribed(namespace)
        (one,) = await namespace.received(bus, 1, namespace.ordered)
        assert one.body == b"1"
        attempts.append(one.attempt)
        await asyncio.to_thread(namespace.server.kill_connections)  # as when the process dies
        await bus.close()
    assert attempts == [1, 2, 3, 4]
    assert namespace.counts() == [0, 0]
    bus = await _subscribed(namespace)
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    assert await bus._ack([one]) == [None]
    (two,) = await namespace.received(bus, 1, namespace.ordered)
    assert (two.body, two.attempt) == (b"2", 1)


async def test_state_of_a_session_is_cleared_when_it_is_released(namespace: Namespace) -> None:
    bus = await _subscribed(namespace)
    await namespace.publish(b"1", key="a")
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    assert _states(namespace) != {}
    await bus._ack([one])
    await namespace.until(lambda: not _sessions(namespace), "the session is kept")
    assert _states(namespace) == {}


async def test_state_of_another_program_is_left_alone(namespace: Namespace) -> None:
    await (await _subscribed(namespace)).close()
    queue = namespace.server.store.source(namespace.path)
    namespace.server.run(lambda: queue.states.update(a=b"of another"))
    await namespace.publish(b"1", key="a")
    bus = await _subscribed(namespace)
    (one,) = await namespace.received(bus, 1, namespace.ordered)
    assert one.attempt == 1
    await bus._ack([one])
    await namespace.until(lambda: not _sessions(namespace), "the session is kept")
    assert _states(namespace) == {"a": b"of another"}


def _states(namespace: Namespace) -> dict[str, bytes]:
    return namespace.server.run(lambda: dict(namespace.server.store.source(namespace.path).states))
