"""Leases, exactly-once acknowledgements, dead letters: what the contract cannot see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from grpc import StatusCode

from gcp_messages_kit import Broker
from oracle import until
from pubsub import Entry
from totoms.context import new_cid
from totoms.envelope import DeadLetterReason, Outgoing, Received, RetryPolicy, Subscription
from totoms.errors import BackendError, LeaseLost, Unavailable
from totoms_gcp import pubsub_publishing
from totoms_gcp.bus import PubSubMessageBus

SUBSCRIPTION = Subscription("shop-posts", "posts-topic", "posts")
REASON = DeadLetterReason("attempts_exhausted", "ValueError", "it did not work", 5)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as made:
        yield made


async def _subscribed(
    broker: Broker, *bodies: bytes, exactly_once: bool = False
) -> tuple[PubSubMessageBus, list[Received]]:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    broker.change("shop-posts", enable_exactly_once_delivery=exactly_once)
    for body in bodies:
        await asyncio.to_thread(broker.operator.publish, "posts-topic", body, {})
    got: list[Received] = []
    while len(got) < len(bodies):
        got += await bus._receive(SUBSCRIPTION, len(bodies) - len(got), 10.0)
    return bus, got


def _broker_gives_it_away(broker: Broker, received: Received) -> None:
    for backlog in broker.server.subscriptions.values():
        for entry in backlog.entries:
            if entry.ack_id == received.lease.ack_id:
                entry.lease_until = time.monotonic()


async def test_exactly_once_tells_which_acks_came_too_late(broker: Broker) -> None:
    bus, (one, two) = await _subscribed(broker, b"1", b"2", exactly_once=True)
    _broker_gives_it_away(broker, one)
    results = await bus._ack([one, two])
    assert isinstance(results[0], LeaseLost)
    assert results[1] is None
    (again,) = await bus._receive(SUBSCRIPTION, 2, 10.0)
    assert (again.body, again.attempt) == (b"1", 2)


async def test_exactly_once_tells_which_lease_is_lost(broker: Broker) -> None:
    bus, (one, two) = await _subscribed(broker, b"1", b"2", exactly_once=True)
    _broker_gives_it_away(broker, two)
    results = await bus._extend([one, two])
    assert results[0] is None
    assert isinstance(results[1], LeaseLost)


async def test_ack_that_is_too_late_by_our_clock_is_not_sent(broker: Broker) -> None:
    # Without exactly-once delivery Pub/Sub would take it, and settle what another consumer is handling.
    bus, (one,) = await _subscribed(broker, b"1")
    one.lease.expires = time.monotonic()
    assert isinstance((await bus._ack([one]))[0], LeaseLost)
    with pytest.raises(LeaseLost):
        await bus._nack(one, 0.0)
    with pytest.raises(LeaseLost):
        await bus._dead_letter(one, REASON)
    assert not broker.server.calls.keys() & {"Acknowledge", "ModifyAckDeadline"}
    assert not broker.server.subscriptions[f"projects/{broker.project}/subscriptions/shop-posts-dead"].entries


async def test_ack_during_an_outage_is_an_error_and_counts_when_it_is_told_again(broker: Broker) -> None:
    bus, (one,) = await _subscribed(broker, b"1")
    broker.server.faults["Acknowledge"] += [StatusCode.UNAVAILABLE]
    with pytest.raises(Unavailable):
        await bus._ack([one])
    assert list(await bus._ack([one])) == [None]


async def test_more_acks_than_a_request_takes_are_split(broker: Broker) -> None:
    bus, received = await _subscribed(broker, *(b"%d" % number for number in range(1100)))
    assert list(await bus._ack(received)) == [None] * 1100
    assert broker.server.calls["Acknowledge"] == 2


async def test_pause_is_rounded_up_and_no_longer_than_pubsub_allows(broker: Broker) -> None:
    bus, (one, two, three) = await _subscribed(broker, b"1", b"2", b"3")
    before = time.monotonic()
    await bus._nack(one, 0.0)
    await bus._nack(two, 1.2)
    await bus._nack(three, 4000.0)
    entries = {entry.message.data: entry for entry in _entries(broker, "shop-posts")}
    assert not entries[b"1"].leased
    assert 1.9 < entries[b"2"].lease_until - before < 3.0
    assert 599.0 < entries[b"3"].lease_until - before < 601.0


async def test_pause_holds_though_a_renewal_is_under_way(broker: Broker) -> None:
    bus, (one, other) = await _subscribed(broker, b"1", b"2")
    broker.server.delays["ModifyAckDeadline"] = 0.3
    renewing = asyncio.create_task(bus._extend([one, other]))
    await asyncio.to_thread(until, lambda: broker.server.calls["ModifyAckDeadline"] == 1, lambda: "it does not renew")
    broker.server.delays["ModifyAckDeadline"] = 0.0
    await bus._nack(one, 1.0)
    assert await renewing == [None, None]
    assert await bus._extend([one, other]) == [None, None]
    left = {entry.message.data: entry.lease_until - time.monotonic() for entry in _entries(broker, "shop-posts")}
    assert left[b"1"] < 3.0
    assert left[b"2"] > 50.0


async def test_lease_is_what_the_subscription_says(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    broker.change("shop-posts", ack_deadline_seconds=17)
    await bus._subscribe(SUBSCRIPTION, create=False)
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", {})
    (one,) = await bus._receive(SUBSCRIPTION, 1, 10.0)
    assert one.lease_seconds == 17
    assert 15.0 < one.lease.expires - time.monotonic() <= 17.0
    one.lease.expires = time.monotonic() + 1.0
    assert list(await bus._extend([one])) == [None]
    assert 15.0 < one.lease.expires - time.monotonic() <= 17.0


async def test_ordered_messages_are_pulled_one_by_one(broker: Broker) -> None:
    # Pub/Sub holds a key back while a batch of it is out; within one batch the core would handle them side by side.
    bus, ordered = broker.bus(), Subscription("shop-posts", "posts-topic", "posts", ordered=True)
    await bus._subscribe(ordered, create=True)
    for body in (b"1", b"2"):
        await asyncio.to_thread(broker.operator.publish, "posts-topic", body, {}, "key")
    assert [one.body for one in await bus._receive(ordered, 10, 10.0)] == [b"1"]
    assert await bus._receive(ordered, 10, 0.3) == []


async def test_pull_that_stayed_open_brings_no_more_than_is_asked_for_by_now(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    assert await bus._receive(SUBSCRIPTION, 5, 0.1) == []
    source = bus._receiver._sources["shop-posts"]
    source.next_look, before = float("inf"), source.pull
    assert before is not None
    receiving = asyncio.create_task(bus._receive(SUBSCRIPTION, 1, 10.0))
    await asyncio.wait({before})
    await bus._receiver._look(source, 1)  # by now the broker knows, too, that it is cancelled
    messages = [{"data": b"%d" % number} for number in range(3)]
    await asyncio.to_thread(broker.operator.topics.publish, topic=broker.topic, messages=messages)
    assert len(await receiving) == 1
    assert sum(entry.leased for entry in _entries(broker, "shop-posts")) == 1


async def test_more_than_is_asked_for_by_now_is_given_back(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    assert await bus._receive(SUBSCRIPTION, 5, 0.1) == []
    messages = [{"data": b"%d" % number} for number in range(3)]
    await asyncio.to_thread(broker.operator.topics.publish, topic=broker.topic, messages=messages)
    pull = bus._receiver._sources["shop-posts"].pull
    assert pull is not None
    await asyncio.wait({pull}, timeout=10.0)
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
    until(lambda: _entries(broker, "shop-posts")[0].leased, lambda: "it is not delivered")
    for _ in range(3):
        broker.operator.topics.get_topic(topic=broker.topic)
    await bus._stop_receiving(SUBSCRIPTION)
    assert await receiving == []
    await bus.close()
    assert not _entries(broker, "shop-posts")[0].leased


@pytest.mark.parametrize("status", [StatusCode.NOT_FOUND, StatusCode.PERMISSION_DENIED])
async def test_subscription_to_replays_need_not_be_there(broker: Broker, status: StatusCode) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", {})
    broker.server.faults["Pull"] += [status]  # the first pull looks for replays
    (one,) = await bus._receive(SUBSCRIPTION, 1, 10.0)
    assert one.body == b"1"


@pytest.mark.parametrize("before", [[], [StatusCode.NOT_FOUND]])  # met by the look for replays, by the pull
async def test_broker_that_is_away_is_told_and_found_back(broker: Broker, before: list[StatusCode]) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", {})
    broker.server.faults["Pull"] += [*before, StatusCode.UNAVAILABLE]
    with pytest.raises(Unavailable):
        await bus._receive(SUBSCRIPTION, 1, 10.0)
    assert [one.body for one in await bus._receive(SUBSCRIPTION, 1, 10.0)] == [b"1"]


async def test_messages_of_other_programs_are_named_by_pubsub(broker: Broker) -> None:
    _, (one,) = await _subscribed(broker, b"1")
    assert one.message_id
    assert one.attributes == {}


# --- dead letters ---


async def test_letter_that_pubsub_forwarded_itself_is_listed_with_its_attempts(broker: Broker) -> None:
    bus = broker.bus()
    subscription = Subscription("shop-posts", "posts-topic", "posts", retry=RetryPolicy(1))
    await bus._subscribe(subscription, create=True)
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", {"messageId": "m-1", "colour": "red"})
    for _ in range(6):  # consumers that die, one after the other
        (one,) = await bus._receive(subscription, 1, 10.0)
        await bus._release([one])
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert letter.reason == DeadLetterReason("lease_expired", attempts=6)
    assert (letter.message_id, letter.body, letter.attributes) == ("m-1", b"1", {"messageId": "m-1", "colour": "red"})


@pytest.mark.parametrize("description", ["é" * 1000, "x" * 1000])
async def test_letter_keeps_what_fits_of_a_long_description(broker: Broker, description: str) -> None:
    bus, (one,) = await _subscribed(broker, b"1")
    await bus._dead_letter(one, DeadLetterReason("non_retryable", "ValueError", description, 1))
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert description.startswith(letter.reason.description)
    assert len(letter.reason.description) >= 512


async def test_letter_of_a_message_with_the_most_attributes_is_kept(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    attributes = {f"name-{number}": "x" for number in range(100)}
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", attributes)
    (one,) = await bus._receive(SUBSCRIPTION, 1, 10.0)
    await bus._dead_letter(one, REASON)
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert (letter.reason, letter.body) == (REASON, b"1")


async def test_letter_at_pubsubs_very_limit_is_kept_without_attributes(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    body = b"x" * 9_999_100
    await asyncio.to_thread(broker.operator.publish, "posts-topic", body, {f"name-{n}": "x" * 10 for n in range(30)})
    (one,) = await bus._receive(SUBSCRIPTION, 1, 20.0)
    await bus._dead_letter(one, REASON)
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert (letter.reason, letter.body, letter.attributes) == (REASON, body, {})


async def test_message_is_not_settled_when_its_letter_cannot_be_kept(broker: Broker) -> None:
    bus, (one,) = await _subscribed(broker, b"1")
    broker.server.denied = {"Publish"}
    with pytest.raises(BackendError):
        await bus._dead_letter(one, REASON)
    assert one.lease.held
    assert len(_entries(broker, "shop-posts")) == 1


async def test_replay_reaches_a_consumer_that_was_there_before(broker: Broker) -> None:
    bus, (one,) = await _subscribed(broker, b"1")
    await bus._dead_letter(one, REASON)
    assert await broker.bus().replay_dead_letters("shop-posts") == 1
    (again,) = await bus._receive(SUBSCRIPTION, 5, 10.0)
    assert (again.body, again.attempt, again.message_id) == (b"1", 1, one.message_id)
    assert list(await bus._ack([again])) == [None]
    assert not _entries(broker, "shop-posts-replay")
    replays = broker.made("shop-posts-replay")
    assert replays.dead_letter_policy == broker.made("shop-posts").dead_letter_policy


async def test_replay_ended_half_way_loses_nothing(broker: Broker) -> None:
    bus, received = await _subscribed(broker, b"1", b"2", b"3")
    for one in received:
        await bus._dead_letter(one, REASON)
    await bus._topology.make_replay(f"projects/{broker.project}/subscriptions/shop-posts")
    broker.server.faults["Publish"] += [StatusCode.PERMISSION_DENIED]
    with pytest.raises(BackendError):
        await bus.replay_dead_letters("shop-posts")
    assert len(await bus.list_dead_letters("shop-posts")) == 3
    assert await bus.replay_dead_letters("shop-posts") == 3
    assert sorted(entry.message.data for entry in _entries(broker, "shop-posts-replay")) == [b"1", b"2", b"3"]


async def test_letters_are_held_no_longer_than_it_takes_to_replay_them(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    for number in range(120):
        await asyncio.to_thread(broker.operator.publish, "shop-posts-dead", b"%d" % number, {})
    broker.server.delays["Publish"] = 0.005
    held = []
    replaying = asyncio.create_task(bus.replay_dead_letters("shop-posts"))
    while not replaying.done():
        await asyncio.wait({replaying}, timeout=0.01)
        held.append(sum(entry.leased for entry in list(_entries(broker, "shop-posts-dead"))))
    assert await replaying == 120
    assert 0 < max(held) <= 50
    assert len(_entries(broker, "shop-posts-replay")) == 120


async def test_letters_beyond_one_request_are_all_had(broker: Broker) -> None:
    bus, received = await _subscribed(broker, *(b"%d" % number for number in range(60)))
    await asyncio.gather(*(bus._dead_letter(one, REASON) for one in received))
    assert len(await bus.list_dead_letters("shop-posts", 1000)) == 60
    assert len(await bus.list_dead_letters("shop-posts", 7)) == 7
    assert await bus.purge_dead_letters("shop-posts") == 60


# --- publishing ---


async def test_key_can_be_published_to_again_after_an_error(broker: Broker) -> None:
    bus = broker.bus()
    broker.server.faults["Publish"] += [StatusCode.PERMISSION_DENIED]
    failed, *_ = await bus._publish([_outgoing(b"1", "key")])
    assert isinstance(failed, BackendError)
    for number in range(3):
        assert await bus._publish([_outgoing(b"%d" % number, "key")]) == [None]


async def test_what_waits_behind_an_error_of_its_key_fails_too_and_order_is_kept(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(Subscription("shop-posts", "posts-topic", "posts", ordered=True), create=True)
    broker.server.faults["Publish"] += [StatusCode.PERMISSION_DENIED]
    results = await bus._publish([_outgoing(b"%d" % number, "key") for number in range(2500)])
    came = [int(entry.message.data) for entry in _entries(broker, "shop-posts")]
    assert isinstance(results[0], BackendError)
    assert came == sorted(came)
    assert [number for number, result in enumerate(results) if result is None] == came


async def test_lone_message_does_not_wait_for_others(broker: Broker) -> None:
    bus = broker.bus()
    await bus._publish([_outgoing(b"first")])
    took = []
    for _ in range(20):
        began = time.perf_counter()
        assert await bus._publish([_outgoing(b"1")]) == [None]
        took.append(time.perf_counter() - began)
    assert sorted(took)[3] < 0.1  # the client's own default waits for 10 ms; a broken one for ever
    assert broker.server.calls["Publish"] == 21


async def test_messages_published_at_the_same_time_travel_together(broker: Broker) -> None:
    bus = broker.bus()
    await asyncio.gather(*(bus._publish([_outgoing(b"%d" % number)]) for number in range(500)))
    assert broker.server.calls["Publish"] < 100


async def test_publishing_is_tried_again_within_its_deadline(broker: Broker) -> None:
    broker.server.faults["Publish"] += [StatusCode.UNAVAILABLE] * 3
    assert await broker.bus()._publish([_outgoing(b"1")]) == [None]


async def test_publishing_that_takes_too_long_is_told_and_the_next_is_not_held_up(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = broker.bus()
    broker.server.delays["Publish"] = 1.0
    monkeypatch.setattr(pubsub_publishing, "PUBLISH_SECONDS", -0.9)
    slow = await asyncio.gather(*(bus._publish([_outgoing(b"%d" % number)]) for number in range(3)))
    assert [type(error) for (error,) in slow] == [Unavailable] * 3
    assert "may still arrive" in str(slow[0][0])
    monkeypatch.undo()
    broker.server.delays["Publish"] = 0.0
    assert await bus._publish([_outgoing(b"last")]) == [None]


async def test_closing_waits_for_what_is_being_published(broker: Broker) -> None:
    bus = broker.bus()
    await bus._publish([_outgoing(b"first")])
    broker.server.delays["Publish"] = 0.3
    publishing = [asyncio.create_task(bus._publish([_outgoing(b"%d" % number)])) for number in range(20)]
    await asyncio.sleep(0)
    await bus.close()
    assert await asyncio.gather(*publishing) == [[None]] * 20


async def test_batch_with_a_topic_that_is_missing_fails_alone(broker: Broker) -> None:
    bus = broker.bus()
    lost = Outgoing(b"1", new_cid(), {"messageId": "1"}, "missing-topic")
    results = await bus._publish([_outgoing(b"1"), lost, _outgoing(b"2")])
    assert [type(result).__name__ for result in results] == ["NoneType", "NotFound", "NoneType"]


def _outgoing(body: bytes, key: str | None = None) -> Outgoing:
    message_id = new_cid()
    return Outgoing(body, message_id, {"messageId": message_id}, "posts-topic", ordering_key=key)


def _entries(broker: Broker, name: str) -> list[Entry]:
    return broker.server.subscriptions[f"projects/{broker.project}/subscriptions/{name}"].entries
