"""Settling pulled messages, and their leases: what the contract cannot see."""

from __future__ import annotations

import asyncio
import time

import pytest
from grpc import StatusCode

from support.faults.oracle import until
from support.gcp.messages import REASON, SUBSCRIPTION, Broker, subscribed
from totoms.errors import LeaseLost, Unavailable
from totoms.messages.receiver import Received


def _broker_gives_it_away(broker: Broker, received: Received) -> None:
    for backlog in broker.server.subscriptions.values():
        for entry in backlog.entries:
            if entry.ack_id == received.lease.handle:
                entry.lease_until = time.monotonic()


async def test_renewal_that_is_answered_after_the_ack_leaves_the_message_settled(broker: Broker) -> None:
    bus, received = await subscribed(broker, b"1")
    broker.server.delays["ModifyAckDeadline"] = 0.3
    results = await asyncio.gather(bus._ack(received), bus._extend(received))
    assert list(map(list, results)) == [[None]] * 2
    assert list(await bus._ack(received)) == [None]
    assert broker.server.calls["Acknowledge"] == 1, "what is settled was sent again"


async def test_exactly_once_reports_which_acks_came_too_late(broker: Broker) -> None:
    bus, (one, two) = await subscribed(broker, b"1", b"2", exactly_once=True)
    _broker_gives_it_away(broker, one)
    results = await bus._ack([one, two])
    assert isinstance(results[0], LeaseLost)
    assert results[1] is None
    (again,) = await bus._receive(SUBSCRIPTION, 2, 10.0)
    assert (again.body, again.attempt) == (b"1", 2)


async def test_exactly_once_reports_which_lease_is_lost(broker: Broker) -> None:
    bus, (one, two) = await subscribed(broker, b"1", b"2", exactly_once=True)
    _broker_gives_it_away(broker, two)
    results = await bus._extend([one, two])
    assert results[0] is None
    assert isinstance(results[1], LeaseLost)


async def test_ack_after_the_lease_is_not_sent(broker: Broker) -> None:
    # Without exactly-once delivery Pub/Sub would take it, and settle what another consumer is handling.
    bus, (one,) = await subscribed(broker, b"1")
    one.lease.expires = time.monotonic()
    assert isinstance((await bus._ack([one]))[0], LeaseLost)
    with pytest.raises(LeaseLost):
        await bus._nack(one, 0.0)
    with pytest.raises(LeaseLost):
        await bus._dead_letter(one, REASON)
    assert not broker.server.calls.keys() & {"Acknowledge", "ModifyAckDeadline"}
    assert not broker.server.subscriptions[f"projects/{broker.project}/subscriptions/shop-posts-dead"].entries


async def test_ack_during_an_outage_is_an_error_and_counts_when_it_is_sent_again(broker: Broker) -> None:
    bus, (one,) = await subscribed(broker, b"1")
    broker.server.faults["Acknowledge"] += [StatusCode.UNAVAILABLE]
    with pytest.raises(Unavailable):
        await bus._ack([one])
    assert list(await bus._ack([one])) == [None]


async def test_more_acks_than_a_request_takes_are_split(broker: Broker) -> None:
    bus, received = await subscribed(broker, *(b"%d" % number for number in range(1100)))
    assert list(await bus._ack(received)) == [None] * 1100
    assert broker.server.calls["Acknowledge"] == 2


async def test_part_of_the_acks_that_fails_does_not_hide_the_results_of_the_others(broker: Broker) -> None:
    bus, received = await subscribed(broker, *(b"%d" % number for number in range(1100)))
    broker.server.faults["Acknowledge"] += [StatusCode.UNAVAILABLE]
    with pytest.raises(Unavailable):
        await bus._ack(received)
    settled = sum(one.lease.state == "settled" for one in received)
    assert settled in (100, 1000)
    assert len(broker.entries("shop-posts")) == 1100 - settled
    assert list(await bus._ack(received)) == [None] * 1100
    assert broker.server.calls["Acknowledge"] == 3, "only those that failed are sent again"


async def test_pause_is_rounded_up_and_no_longer_than_pubsub_allows(broker: Broker) -> None:
    bus, (one, two, three) = await subscribed(broker, b"1", b"2", b"3")
    before = time.monotonic()
    await bus._nack(one, 0.0)
    await bus._nack(two, 1.2)
    await bus._nack(three, 4000.0)
    entries = {entry.message.data: entry for entry in broker.entries("shop-posts")}
    assert not entries[b"1"].leased
    assert 1.9 < entries[b"2"].lease_until - before < 3.0
    assert 599.0 < entries[b"3"].lease_until - before < 601.0


async def test_pause_holds_while_a_renewal_is_in_flight(broker: Broker) -> None:
    bus, (one, other) = await subscribed(broker, b"1", b"2")
    broker.server.delays["ModifyAckDeadline"] = 0.3
    renewing = asyncio.create_task(bus._extend([one, other]))
    await asyncio.to_thread(until, lambda: broker.server.calls["ModifyAckDeadline"] == 1, lambda: "it does not renew")
    broker.server.delays["ModifyAckDeadline"] = 0.0
    await bus._nack(one, 1.0)
    assert await renewing == [None, None]
    assert await bus._extend([one, other]) == [None, None]
    left = {entry.message.data: entry.lease_until - time.monotonic() for entry in broker.entries("shop-posts")}
    assert left[b"1"] < 3.0
    assert left[b"2"] > 50.0


async def test_lease_is_what_the_subscription_says(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    broker.change("shop-posts", ack_deadline_seconds=17)
    await bus._subscribe(SUBSCRIPTION, create=False)
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", {})
    (one,) = await bus._receive(SUBSCRIPTION, 1, 10.0)
    assert one.lease.seconds == 17
    assert 15.0 < one.lease.expires - time.monotonic() <= 17.0
    one.lease.expires = time.monotonic() + 1.0
    assert list(await bus._extend([one])) == [None]
    assert 15.0 < one.lease.expires - time.monotonic() <= 17.0
