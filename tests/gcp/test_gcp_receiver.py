"""Pulling new messages and replayed ones: what the contract cannot see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import StatusCode

from support.faults.oracle import until
from support.gcp.messages import SUBSCRIPTION, Broker, make_letters, subscribed
from totoms.errors import NotFound, Unavailable
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription
from totoms_gcp.messages import receiver as receiver_module
from totoms_gcp.messages.receiver import PubSubReceiver


def _receiver(bus: Any) -> PubSubReceiver:
    found = bus._receivers["shop-posts"]
    assert isinstance(found, PubSubReceiver)
    return found


async def test_ordered_messages_are_pulled_one_by_one(broker: Broker) -> None:
    # Pub/Sub holds a key back while a batch of it is out; within one batch the core would handle them side by side.
    bus, ordered = broker.bus(), Subscription("shop-posts", "posts-topic", "posts", ordered=True)
    await bus._subscribe(ordered, create=True)
    for body in (b"1", b"2"):
        await asyncio.to_thread(broker.operator.publish, "posts-topic", body, {}, "key")
    assert [one.body for one in await bus._receive(ordered, 10, 10.0)] == [b"1"]
    assert await bus._receive(ordered, 10, 0.3) == []


async def test_pull_that_stayed_open_returns_no_more_messages_than_the_latest_limit(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    assert await bus._receive(SUBSCRIPTION, 5, 0.1) == []
    receiver = _receiver(bus)
    before = receiver._pulling
    assert before is not None
    receiving = asyncio.create_task(bus._receive(SUBSCRIPTION, 1, 10.0))
    await asyncio.wait({before})
    with pytest.raises(NotFound):  # when this is answered the broker knows, too, that it is cancelled
        await bus._clients.pull(receiver._replays._path, 1, timeout=10.0)
    messages = [{"data": b"%d" % number} for number in range(3)]
    await asyncio.to_thread(broker.operator.topics.publish, topic=broker.topic, messages=messages)
    assert len(await receiving) == 1
    assert sum(entry.leased for entry in broker.entries("shop-posts")) == 1


async def test_more_than_is_asked_for_by_now_is_given_back(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    assert await bus._receive(SUBSCRIPTION, 5, 0.1) == []
    messages = [{"data": b"%d" % number} for number in range(3)]
    await asyncio.to_thread(broker.operator.topics.publish, topic=broker.topic, messages=messages)
    pull = _receiver(bus)._pulling
    assert pull is not None
    await asyncio.wait({pull}, timeout=120.0)
    came = set[bytes]()
    while len(came) < 3:
        (one,) = await bus._receive(SUBSCRIPTION, 1, 10.0)
        came.add(one.body)


async def test_what_comes_just_when_a_consumer_stops_is_given_back(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    receiving = asyncio.create_task(bus._receive(SUBSCRIPTION, 1, 30.0))
    await asyncio.to_thread(until, lambda: broker.server.calls["Pull"] > 1, lambda: "it does not pull")
    # The loop stands still: the answer is there, and has not been heard.
    broker.operator.publish("posts-topic", b"1", {})
    until(lambda: broker.entries("shop-posts")[0].leased, lambda: "it is not delivered")
    for _ in range(3):
        broker.operator.topics.get_topic(topic=broker.topic)
    await bus._stop_receiving(SUBSCRIPTION)
    assert await receiving == []
    await bus.close()
    assert not broker.entries("shop-posts")[0].leased


@pytest.mark.parametrize("status", [StatusCode.NOT_FOUND, StatusCode.PERMISSION_DENIED])
async def test_subscription_to_replays_need_not_be_there(broker: Broker, status: StatusCode) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", {})
    broker.server.faults["Pull"] += [status]  # the first pull looks for replays
    (one,) = await bus._receive(SUBSCRIPTION, 1, 10.0)
    assert one.body == b"1"


async def test_broker_that_is_away_is_an_error_and_is_found_again(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", {})
    broker.server.faults["Pull"] += 2 * [StatusCode.UNAVAILABLE]  # one for the look for replays, one for the pull
    with pytest.raises(Unavailable):
        await bus._receive(SUBSCRIPTION, 1, 10.0)
    assert [one.body for one in await bus._receive(SUBSCRIPTION, 1, 10.0)] == [b"1"]


async def test_replays_are_pulled_without_a_pause_once_one_has_come(broker: Broker) -> None:
    before, bus = broker.bus(), broker.bus()
    await before._subscribe(SUBSCRIPTION, create=True)
    await make_letters(broker, before, 40)
    assert await before.replay_dead_letters("shop-posts") == 40
    await before.close()
    await bus._subscribe(SUBSCRIPTION, create=True)
    _receiver(bus)._replays._look_seconds = 3600.0
    came: list[Received] = []
    while len(came) < 40:
        batch = await bus._receive(SUBSCRIPTION, 4, 10.0)
        assert 0 < len(batch) <= 4
        assert await bus._ack(batch) == [None] * len(batch)
        came += batch
    assert len({one.message_id for one in came}) == 40
    assert await bus._receive(SUBSCRIPTION, 4, 0.3) == []


async def test_replays_and_new_messages_take_turns(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "_TURN", 0.0)
    monkeypatch.setattr(receiver_module, "_BRIEF_WAIT", 10.0)
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    await make_letters(broker, bus, 10)
    assert await bus.replay_dead_letters("shop-posts") == 10
    replayed = _receiver(bus)._replays._path
    paths = [(await bus._receive(SUBSCRIPTION, 1, 10.0))[0].lease.path]
    for number in range(10):
        await asyncio.to_thread(broker.operator.publish, "posts-topic", b"new %d" % number, {})
    paths += [(await bus._receive(SUBSCRIPTION, 1, 10.0))[0].lease.path for _ in range(8)]
    assert paths[0] == replayed
    assert {paths.count(replayed), len(paths) - paths.count(replayed)} == {4, 5}


async def test_replay_that_waits_for_a_slot_keeps_its_lease_and_loses_no_attempt(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    await make_letters(broker, bus, 1)
    await bus.replay_dead_letters("shop-posts")
    broker.change("shop-posts-replay", ack_deadline_seconds=1)
    receiver = _receiver(bus)
    receiver._replays._lease_seconds = receiver._lease_seconds = 1
    receiver._replays.look(1)
    async with asyncio.timeout(120):
        while broker.server.calls["ModifyAckDeadline"] < 4:  # one of them gave back what was listed
            await asyncio.sleep(0.05)
    ((one,), entries) = (await bus._receive(SUBSCRIPTION, 1, 10.0)), broker.entries("shop-posts-replay")
    assert one.lease.path == receiver._replays._path
    assert [entry.deliveries for entry in entries] == [1]


async def test_what_waits_for_a_slot_is_given_back_at_the_end(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    await make_letters(broker, bus, 1)
    await bus.replay_dead_letters("shop-posts")
    replays = _receiver(bus)._replays
    replays.look(1)
    assert replays.arrival is not None
    await asyncio.wait_for(replays.arrival, 120)
    await bus.close()
    assert [entry.leased for entry in broker.entries("shop-posts-replay")] == [False]


async def test_messages_of_other_programs_are_named_by_pubsub(broker: Broker) -> None:
    _, (one,) = await subscribed(broker, b"1")
    assert one.message_id
    assert one.attributes == {}
