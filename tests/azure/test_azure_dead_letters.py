"""Dead letters of totoms, of Service Bus itself, and of other programs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from standins.azure.service_bus import amqp
from standins.azure.service_bus.server import stored
from support.azure.messages import BusOfTests, Namespace
from totoms.errors import NotFound
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received
from totoms.messages.subscription import RetryPolicy, Subscription

REASON = DeadLetterReason("attempts_exhausted", "ValueError", "it did not work", 5)


async def test_dead_letter_of_the_brokers_own_is_listed_with_its_attempts(namespace: Namespace) -> None:
    subscription = replace(namespace.subscription, retry=RetryPolicy(1))
    bus = namespace.bus()
    await bus._subscribe(subscription, create=True)
    await namespace.publish(b"1")
    for _ in range(6):  # consumers that die, one after the other
        await namespace.received(bus, 1, subscription)
        await asyncio.to_thread(namespace.takes_back)
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert (letter.reason.reason, letter.reason.attempts, letter.body) == ("lease_expired", 6, b"1")


@pytest.mark.parametrize("by_topic", [False, True])
async def test_dead_letters_are_found_by_a_bus_that_knows_no_topics(namespace: Namespace, by_topic: bool) -> None:
    name = f"shop-{namespace.topic[-12:]}"
    subscription = replace(namespace.subscription, name=name)
    bus = namespace.bus()
    await bus._subscribe(subscription, create=True)
    await namespace.publish(b"1")
    (one,) = await namespace.received(bus, 1, subscription)
    await bus._dead_letter(one, REASON)
    operator = namespace.bus(topics={})
    (letter,) = await operator.list_dead_letters(f"{namespace.topic}/{name}" if by_topic else name)
    assert (letter.reason, letter.body) == (REASON, b"1")


async def test_subscription_that_is_missing_is_reported(namespace: Namespace) -> None:
    with pytest.raises(NotFound, match="nobody-has-it"):
        await namespace.bus(topics={}).list_dead_letters("nobody-has-it")


async def test_dead_letters_of_a_queue_are_replayed_into_it(namespace: Namespace) -> None:
    queue = Subscription(f"queue-of-{namespace.topic}", "", "")
    bus = namespace.bus()
    await bus._subscribe(queue, create=True)
    assert await bus._publish([namespace.outgoing(b"1", queue=queue.name)]) == [None]
    (one,) = await namespace.received(bus, 1, queue)
    await bus._dead_letter(one, REASON)
    assert await namespace.bus(topics={}).replay_dead_letters(queue.name) == 1
    (again,) = await namespace.received(bus, 1, queue)
    assert (again.body, again.attempt, again.message_id) == (b"1", 1, one.message_id)


async def test_replayed_dead_letter_that_fails_again_is_listed_once(namespace: Namespace) -> None:
    bus = namespace.bus(look_seconds=0.2)
    await bus._subscribe(namespace.subscription, create=True)
    await namespace.publish(b"1")
    for attempts in (5, 6):
        (one,) = await namespace.received(bus, 1)
        await bus._dead_letter(one, replace(REASON, attempts=attempts))
        (letter,) = await bus.list_dead_letters("shop-posts")
        assert (letter.reason.attempts, letter.body) == (attempts, b"1")
        assert await bus.replay_dead_letters("shop-posts", [letter.letter_id]) == 1
        assert await bus.list_dead_letters("shop-posts") == []


@pytest.mark.parametrize(("section", "value", "body"), [(amqp.VALUE, "text", b"text"), (amqp.VALUE, {"a": 1}, None)])
async def test_messages_of_other_amqp_types_are_received_and_listed(
    namespace: Namespace, section: int, value: object, body: bytes | None
) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    message = stored(amqp.section(amqp.PROPERTIES, [None]) + amqp.section(section, value))
    namespace.server.run(lambda: namespace.server.store.destination(namespace.topic).put(message))
    (one,) = await namespace.received(bus, 1)
    await bus._dead_letter(one, REASON)
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert letter.body == one.body == (body or b'{"a":1}')
    assert letter.message_id == one.message_id


@pytest.mark.parametrize("description", ["one\ntwo\r\n", "é中😀: ", "", ", as x: y", "x" * 5000])
async def test_descriptions_are_kept(namespace: Namespace, description: str) -> None:
    bus = namespace.bus()
    await bus._subscribe(namespace.subscription, create=True)
    await namespace.publish(b"1")
    (one,) = await namespace.received(bus, 1)
    await bus._dead_letter(one, replace(REASON, description=description))
    (letter,) = await bus.list_dead_letters("shop-posts")
    if len(description) < 3000:
        assert letter.reason.description == description
    else:
        assert description.startswith(letter.reason.description)
        assert len(letter.reason.description) > 3000
    assert letter.reason.attempts == 5


@pytest.fixture
def pushed(namespace: Namespace) -> Subscription:
    return replace(namespace.subscription, delivery="push", push_url="https://shop.example/shop/events")


async def pushed_to(namespace: Namespace, pushed: Subscription) -> tuple[BusOfTests, Subscription]:
    """Return a bus that is pushed to, and the subscription by which it receives replayed messages."""
    bus = namespace.bus(look_seconds=0.2, push_secret="s" * 40)
    await bus._subscribe_push(pushed, create=True)
    undelivered = await bus._undelivered(pushed)
    assert undelivered is not None
    return bus, undelivered.subscription


async def test_queue_for_dead_letters_of_pushed_messages_is_not_needed_without_dead_letters(
    namespace: Namespace, pushed: Subscription
) -> None:
    bus = namespace.bus(push_secret="s" * 40)
    with pytest.raises(NotFound, match="dead"):
        await bus._subscribe_push(pushed, create=False)
    await bus._subscribe_push(replace(pushed, dead_letters=False), create=False)


async def test_what_was_pushed_is_replayed_to_the_service_that_is_pushed_to(
    namespace: Namespace, pushed: Subscription
) -> None:
    bus, pulled = await pushed_to(namespace, pushed)
    await bus._dead_letter(Received(b"1", "m1", 5, pushed, {"messageType": "postCreated"}), REASON)
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert await bus.replay_dead_letters("shop-posts", [letter.letter_id]) == 1
    assert await bus.list_dead_letters("shop-posts") == []
    (again,) = await namespace.received(bus, 1, pulled)
    assert (again.body, again.message_id, again.attempt) == (b"1", "m1", 1)
    assert again.attributes["messageType"] == "postCreated"
    await bus._ack([again])


async def test_replayed_push_that_fails_again_is_a_dead_letter_again(
    namespace: Namespace, pushed: Subscription
) -> None:
    bus, pulled = await pushed_to(namespace, pushed)
    await bus._dead_letter(Received(b"1", "m1", 5, pushed), REASON)
    assert await bus.replay_dead_letters("shop-posts") == 1
    (again,) = await namespace.received(bus, 1, pulled)
    await bus._dead_letter(again, replace(REASON, attempts=6))
    (letter,) = await bus.list_dead_letters("shop-posts")
    assert (letter.body, letter.reason.attempts) == (b"1", 6)
    assert await bus.purge_dead_letters("shop-posts") == 1
    assert await bus.list_dead_letters("shop-posts") == []


async def test_dead_letters_of_a_pushed_subscription_are_found_by_its_name_alone(
    namespace: Namespace, pushed: Subscription
) -> None:
    pushed = replace(pushed, name=f"shop-{namespace.topic[-12:]}")  # no other test has one of this name
    bus = namespace.bus(push_secret="s" * 40)
    await bus._subscribe_push(pushed, create=True)
    await bus._dead_letter(Received(b"1", "m1", 5, pushed), REASON)
    other = namespace.bus(topics={})  # as `dlq list shop-posts` has it: it knows no topics
    assert [one.message_id for one in await other.list_dead_letters(pushed.name)] == ["m1"]
    with pytest.raises(NotFound):
        await other.list_dead_letters(pushed.name[5:])


async def test_subscriptions_are_listed_with_their_topics(namespace: Namespace, pushed: Subscription) -> None:
    pulled = replace(pushed, name="shop-pulled", delivery="pull")
    bus = namespace.bus(push_secret="s" * 40)
    await bus._subscribe_push(pushed, create=True)
    await bus._subscribe(pulled, create=True)
    await bus._dead_letter(Received(b"1", "m1", 5, pushed), REASON)
    await bus._subscriptions.create_queue(f"orders-{namespace.topic[-12:]}")
    found = [name for name in await bus._list_subscriptions() if namespace.topic[-12:] in name]
    assert set(found) == {
        f"{namespace.topic}/{pushed.name}",
        f"{namespace.topic}/{pulled.name}",
        f"orders-{namespace.topic[-12:]}",
    }
    # These names are those that the commands take.
    (letter,) = await namespace.bus(topics={}).list_dead_letters(f"{namespace.topic}/{pushed.name}")
    assert letter.message_id == "m1"


async def test_nothing_to_replay_waits_and_stops_at_once(namespace: Namespace, pushed: Subscription) -> None:
    bus, pulled = await pushed_to(namespace, pushed)
    receiving = asyncio.create_task(bus._receive(pulled, 10, 600.0))
    while not receiving.done():
        await bus._stop_receiving(pulled)
        await asyncio.wait({receiving}, timeout=0.05)
    assert receiving.result() == []
