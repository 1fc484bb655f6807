"""Dead letters on Pub/Sub: what the contract cannot see."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from grpc import StatusCode

from standins.gcp.pubsub_push import push
from support.gcp.messages import REASON, SUBSCRIPTION, Broker, subscribed
from totoms.errors import AccessDenied, BackendError
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received
from totoms.messages.subscription import RetryPolicy, Subscription


async def test_dead_letter_that_pubsub_forwarded_itself_is_listed_with_its_attempts(broker: Broker) -> None:
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


@pytest.mark.parametrize(("right", "reason"), [(True, "undelivered"), (False, "lease_expired")])
async def test_dead_letter_that_pubsub_could_not_push_is_marked_undelivered(
    broker: Broker, right: bool, reason: str
) -> None:
    """Without the right to look at the subscription it is not known that it is a pushed one."""
    bus = broker.bus(push_service_account="pusher@project.iam.gserviceaccount.com")
    url = "https://shop.example/events"
    await bus._subscribe_push(replace(SUBSCRIPTION, delivery="push", push_url=url), create=True)
    broker.operator.publish("posts-topic", b"1", {"messageId": "m-1"})
    broker.operator.publish("posts-topic", b"2", {"messageId": "m-2"})
    deliveries: list[int] = []

    async def nobody(_message: Any, delivery: int) -> int:
        deliveries.append(delivery)
        raise ConnectionRefusedError

    await push(broker.server, f"projects/{broker.project}/subscriptions/shop-posts", nobody, hurry=1e6)
    assert sorted(deliveries) == sorted([*range(1, 101)] * 2)
    if not right:
        broker.server.denied.add("GetSubscription")
    letters = await bus.list_dead_letters("shop-posts")
    assert [letter.reason for letter in letters] == [DeadLetterReason(reason, attempts=100)] * 2
    assert {letter.message_id for letter in letters} == {"m-1", "m-2"}
    await bus._dead_letter(Received(b"3", "m-3", 1, SUBSCRIPTION), REASON)
    (last,) = [letter for letter in await bus.list_dead_letters("shop-posts") if letter.message_id == "m-3"]
    assert last.reason == REASON


@pytest.mark.parametrize("description", ["é" * 1000, "x" * 1000])
async def test_dead_letter_keeps_what_fits_of_a_long_description(broker: Broker, description: str) -> None:
    bus, (one,) = await subscribed(broker, b"1")
    await bus._dead_letter(one, DeadLetterReason("non_retryable", "ValueError", description, 1))
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert description.startswith(letter.reason.description)
    assert len(letter.reason.description) >= 512


async def test_dead_letter_of_a_message_with_the_most_attributes_is_kept(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    attributes = {f"name-{number}": "x" for number in range(100)}
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", attributes)
    (one,) = await bus._receive(SUBSCRIPTION, 1, 10.0)
    await bus._dead_letter(one, REASON)
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert (letter.reason, letter.body) == (REASON, b"1")


async def test_dead_letter_at_pubsubs_very_limit_is_kept_without_attributes(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    body = b"x" * 9_999_100
    await asyncio.to_thread(broker.operator.publish, "posts-topic", body, {f"name-{n}": "x" * 10 for n in range(30)})
    (one,) = await bus._receive(SUBSCRIPTION, 1, 20.0)
    await bus._dead_letter(one, REASON)
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert (letter.reason, letter.body, letter.attributes) == (REASON, body, {})


async def test_message_is_not_settled_when_its_dead_letter_cannot_be_kept(broker: Broker) -> None:
    bus, (one,) = await subscribed(broker, b"1")
    broker.server.denied = {"Publish"}
    with pytest.raises(BackendError):
        await bus._dead_letter(one, REASON)
    assert one.lease.held
    assert len(broker.entries("shop-posts")) == 1


async def test_replay_reaches_a_consumer_that_was_there_before(broker: Broker) -> None:
    bus, (one,) = await subscribed(broker, b"1")
    await bus._dead_letter(one, REASON)
    assert await broker.bus().replay_dead_letters("shop-posts") == 1
    (again,) = await bus._receive(SUBSCRIPTION, 5, 10.0)
    assert (again.body, again.attempt, again.message_id) == (b"1", 1, one.message_id)
    assert list(await bus._ack([again])) == [None]
    assert not broker.entries("shop-posts-replay")
    replays = broker.made("shop-posts-replay")
    assert replays.dead_letter_policy == broker.made("shop-posts").dead_letter_policy


async def test_replay_ended_half_way_loses_nothing(broker: Broker) -> None:
    bus, received = await subscribed(broker, b"1", b"2", b"3")
    for one in received:
        await bus._dead_letter(one, REASON)
    await bus._subscriptions.create_replay(f"projects/{broker.project}/subscriptions/shop-posts")
    broker.server.faults["Publish"] += [StatusCode.PERMISSION_DENIED]
    with pytest.raises(BackendError):
        await bus.replay_dead_letters("shop-posts")
    assert len(await bus.list_dead_letters("shop-posts")) == 3
    assert await bus.replay_dead_letters("shop-posts") == 3
    assert sorted(entry.message.data for entry in broker.entries("shop-posts-replay")) == [b"1", b"2", b"3"]


async def test_dead_letters_are_held_no_longer_than_it_takes_to_replay_them(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    for number in range(120):
        await asyncio.to_thread(broker.operator.publish, "shop-posts-dead", b"%d" % number, {})
    broker.server.delays["Publish"] = 0.005
    held = []
    replaying = asyncio.create_task(bus.replay_dead_letters("shop-posts"))
    while not replaying.done():
        await asyncio.wait({replaying}, timeout=0.01)
        held.append(sum(entry.leased for entry in list(broker.entries("shop-posts-dead"))))
    assert await replaying == 120
    assert 0 < max(held) <= 50
    assert len(broker.entries("shop-posts-replay")) == 120


async def test_dead_letters_beyond_one_request_are_all_listed_and_purged(broker: Broker) -> None:
    bus, received = await subscribed(broker, *(b"%d" % number for number in range(60)))
    await asyncio.gather(*(bus._dead_letter(one, REASON) for one in received))
    assert len(await bus.list_dead_letters("shop-posts", 1000)) == 60
    assert len(await bus.list_dead_letters("shop-posts", 7)) == 7
    assert await bus.purge_dead_letters("shop-posts") == 60


async def test_subscriptions_with_dead_letters_are_listed_page_by_page(broker: Broker) -> None:
    bus = broker.bus()
    for name in ("shop-posts", "shop-orders", "mail-posts"):
        await bus._subscribe(replace(SUBSCRIPTION, name=name), create=True)
    assert await bus._list_subscriptions() == ["shop-posts", "shop-orders", "mail-posts"]
    broker.server.denied.add("ListSubscriptions")
    with pytest.raises(AccessDenied):
        await bus._list_subscriptions()
