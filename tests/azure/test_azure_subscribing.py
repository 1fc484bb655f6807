"""What a service needs at Service Bus: created, found, changed, or reported as missing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from support.azure.messages import Namespace
from totoms.errors import AccessDenied, BackendError, ConfigurationError, NotFound
from totoms.messages.subscription import RetryPolicy, Subscription
from totoms_azure.messages.naming import DEAD, REPLAY, entity_of


@pytest.mark.parametrize("ordered", [False, True])
async def test_subscription_is_made_with_what_it_needs(namespace: Namespace, ordered: bool) -> None:
    subscription = replace(namespace.subscription, ordered=ordered, retry=RetryPolicy(max_attempts=7))
    await namespace.bus(lease_seconds=45.0)._subscribe(subscription, create=True)
    made = namespace.server.entity(namespace.path)
    assert (made.requires_session, made.lock_seconds, made.max_delivery_count) == (ordered, 45.0, 12)


async def test_lease_that_was_set_becomes_the_lock_of_new_and_of_existing_subscriptions(namespace: Namespace) -> None:
    bus = namespace.bus()
    bus.use_lease(300.0)
    await bus._subscribe(namespace.subscription, create=True)
    assert namespace.server.entity(namespace.path).lock_seconds == 300.0
    another = namespace.bus()
    another.use_lease(90.0)
    await another._subscribe(namespace.subscription, create=True)
    assert namespace.server.entity(namespace.path).lock_seconds == 90.0
    await namespace.bus()._subscribe(namespace.subscription, create=True)
    assert namespace.server.entity(namespace.path).lock_seconds == 90.0, "left out, it is not touched"


async def test_subscription_that_would_give_up_before_us_is_changed(namespace: Namespace) -> None:
    await asyncio.to_thread(namespace.server.make_subscription, namespace.topic, "shop-posts", max_delivery_count=3)
    await namespace.bus()._subscribe(namespace.subscription, create=True)
    assert namespace.server.entity(namespace.path).max_delivery_count == 10


async def test_subscription_that_takes_longer_to_give_up_is_left_alone(namespace: Namespace) -> None:
    await asyncio.to_thread(namespace.server.make_subscription, namespace.topic, "shop-posts", max_delivery_count=300)
    await namespace.bus()._subscribe(namespace.subscription, create=True)
    assert namespace.server.entity(namespace.path).max_delivery_count == 300
    assert {method for method, _ in namespace.server.admin_requests} == {"GET"}


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
async def test_subscription_of_the_other_kind_is_refused(namespace: Namespace, ordered: bool, create: bool) -> None:
    await asyncio.to_thread(
        namespace.server.make_subscription, namespace.topic, "shop-posts", requires_session=not ordered
    )
    with pytest.raises(BackendError, match="another setting of `ordered`"):
        await namespace.bus()._subscribe(replace(namespace.subscription, ordered=ordered), create=create)


async def test_push_without_credentials_is_refused_at_start_and_says_what_to_set(namespace: Namespace) -> None:
    pushed = replace(namespace.subscription, delivery="push", push_url="https://shop.example/shop/events")
    with pytest.raises(ConfigurationError, match=r"AZURE_PUSH_SECRET.*AZURE_PUSH_AUDIENCE"):
        await namespace.bus()._subscribe_push(pushed, create=True)


@pytest.mark.parametrize("ordered", [False, True])
async def test_who_may_not_administer_uses_what_is_there(namespace: Namespace, ordered: bool) -> None:
    await asyncio.to_thread(namespace.server.make_subscription, namespace.topic, "shop-posts", requires_session=ordered)
    namespace.server.admin_denied = True
    bus, subscription = namespace.bus(), replace(namespace.subscription, ordered=ordered)
    await bus._subscribe(subscription, create=True)
    await namespace.publish(b"1", key="a")
    assert [one.body for one in await namespace.received(bus, 1, subscription)] == [b"1"]


@pytest.mark.parametrize("ordered", [False, True])
async def test_missing_right_to_administer_is_reported(namespace: Namespace, ordered: bool) -> None:
    namespace.server.admin_denied = True
    with pytest.raises(AccessDenied) as told:
        await namespace.bus()._subscribe(replace(namespace.subscription, ordered=ordered), create=True)
    assert "'shop-posts'" in str(told.value)
    assert namespace.topic in str(told.value)


@pytest.mark.parametrize("ordered", [False, True])
async def test_without_creation_nothing_is_made_and_what_is_missing_is_reported(
    namespace: Namespace, ordered: bool
) -> None:
    with pytest.raises(NotFound) as told:
        await namespace.bus()._subscribe(replace(namespace.subscription, ordered=ordered), create=False)
    assert "'shop-posts'" in str(told.value)
    assert namespace.topic in str(told.value)
    assert namespace.server.admin_requests == []


@pytest.mark.parametrize("ordered", [False, True])
async def test_without_creation_what_is_there_is_used(namespace: Namespace, ordered: bool) -> None:
    await asyncio.to_thread(namespace.server.make_subscription, namespace.topic, "shop-posts", requires_session=ordered)
    await namespace.bus()._subscribe(replace(namespace.subscription, ordered=ordered), create=False)
    assert namespace.server.admin_requests == []


@pytest.mark.parametrize("topic", ["no-such-topic", "no//topic", "a topic?", "/posts", "ä" * 10, "x" * 261])
async def test_topic_that_is_missing_is_reported(namespace: Namespace, topic: str) -> None:
    with pytest.raises(NotFound) as told:
        await namespace.bus()._subscribe(replace(namespace.subscription, topic=topic), create=True)
    assert topic in str(told.value)


async def test_queue_is_received_from(namespace: Namespace) -> None:
    queue = Subscription(f"queue-of-{namespace.topic}", "", "")
    bus = namespace.bus()
    await bus._subscribe(queue, create=True)
    assert await bus._publish([namespace.outgoing(b"1", queue=queue.name)]) == [None]
    (one,) = await namespace.received(bus, 1, queue)
    assert list(await bus._ack([one])) == [None]


async def test_name_that_is_too_long_is_shortened_and_works(namespace: Namespace) -> None:
    names = [f"{'a-service-with-a-long-name-' * 3}{ending}" for ending in ("posts", "likes")]
    subscriptions = [replace(namespace.subscription, name=name) for name in names]
    bus = namespace.bus()
    for subscription in subscriptions:
        await bus._subscribe(subscription, create=True)
    made = namespace.server.run(lambda: list(namespace.server.store.topics[namespace.topic].subscriptions))
    assert len(made) == 2
    assert all(len(name) <= 50 for name in made)


def test_no_two_names_become_one() -> None:
    odd = ["a b", "a-b", "a/b", "a?b", "-a-b", "a-b-", "ä", "ö", "?", "!", "x" * 51, "x" * 52, "x" * 50, "a.b", "a_b"]
    entities = {entity_of(Subscription(name, "posts", "posts")) for name in odd}
    assert len(entities) == len(odd)
    assert all(len(entity.name) <= 50 for entity in entities)
    beside = {entity.queue(ending) for entity in entities for ending in (REPLAY, DEAD)}
    assert len(beside) == 2 * len(odd)


def test_queues_with_long_paths_have_different_names() -> None:
    topics = ["t" * 240 + ending for ending in ("a" * 15, "b" * 15)]
    beside = {entity_of(Subscription("shop-posts", topic, "posts")).queue(REPLAY) for topic in topics}
    assert len(beside) == 2
    assert all(len(entity.name) <= 260 for entity in beside)
