"""Messages on JetStream: what the contracts cannot know of, because it is NATS' own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from nats.js import api

from totoms import MessageDestination, TotoMessage
from totoms.errors import BackendError, Closed, LeaseLost, NotFound, Unsupported
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.subscription import Subscription

POSTS = MessageDestination(topic="posts")
REASON = DeadLetterReason("non_retryable", "KeyError", "no such\nkey: \u20ac", 2)


def message(**data: Any) -> TotoMessage:
    return TotoMessage(type="postCreated", data=data)


async def subscribed(installation: Any, name: str = "blog-posts", topic: str | None = None) -> tuple[Any, Subscription]:
    topic = topic or installation.topic()
    bus, subscription = installation.bus(topic), installation.subscription(topic, name)
    await bus._subscribe(subscription, create=True)
    return bus, subscription


async def test_attributes_that_no_header_can_hold_arrive_unchanged(installation: Any) -> None:
    bus, subscription = await subscribed(installation)

    await bus.publish_message(POSTS, TotoMessage(type="post\r\ncreated \u20ac 100% ", data={"a": 1}))

    (received,) = await bus._receive(subscription, 1, 10)
    assert received.attributes["messageType"] == "post\r\ncreated \u20ac 100% "


async def test_message_given_back_counts_no_attempt_even_after_a_failure(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    other = installation.bus(subscription.topic)
    await other._subscribe(subscription, create=False)
    await bus.publish_message(POSTS, message())

    attempts = []
    for settle in (bus._release, bus._nack, bus._release, bus._nack):
        (received,) = await bus._receive(subscription, 1, 10)
        attempts.append(received.attempt)
        await (settle(received, 0.0) if settle == bus._nack else settle([received]))
    (received,) = await other._receive(subscription, 1, 10)

    assert [*attempts, received.attempt] == [1, 1, 2, 2, 3]


async def test_note_of_an_attempt_is_forgotten_with_the_message(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    await bus.publish_message(POSTS, message())
    await bus._release(await bus._receive(subscription, 1, 10))

    def notes() -> int:
        return int(installation.do(lambda js: js.stream_info(f"KV_{installation.names.attempts}")).state.messages)

    assert await asyncio.to_thread(notes) == 1
    await bus._ack(await bus._receive(subscription, 1, 10))
    assert await asyncio.to_thread(notes) == 0


async def test_ack_after_the_lease_has_ended_is_refused_and_settles_nothing(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    await bus.publish_message(POSTS, message())
    (late,) = await bus._receive(subscription, 1, 10)

    (again,) = await bus._receive(subscription, 1, 10)  # comes when the server has waited for long enough
    results = [*await bus._ack([late]), *await bus._extend([late])]
    with pytest.raises(LeaseLost):
        await bus._nack(late, 0.0)
    with pytest.raises(LeaseLost):
        await bus._dead_letter(late, REASON)

    assert [type(result) for result in results] == [LeaseLost, LeaseLost]
    assert (again.message_id, again.attempt) == (late.message_id, 2)
    assert await bus.list_dead_letters(subscription.name) == []
    assert await bus._extend([again]) == [None]  # still its own
    assert await bus._ack([again]) == [None]


async def test_renewed_lease_outlives_the_time_that_the_server_waits(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    sentinel, last = await subscribed(installation, "sentinel", subscription.topic)
    await bus.publish_message(POSTS, message())
    (kept,) = await bus._receive(subscription, 1, 10)
    (left,) = await sentinel._receive(last, 1, 10)

    async def keep() -> None:
        while True:
            assert await bus._extend([kept]) == [None]
            await asyncio.sleep(0.3)

    keeping = asyncio.create_task(keep())
    # The sentinel's was given later and is not renewed: when it comes again, so would ours have.
    (again,) = await sentinel._receive(last, 1, 10)
    keeping.cancel()

    assert again.attempt == 2
    assert left.message_id == again.message_id
    assert await bus._ack([kept]) == [None]


async def test_settling_twice_is_harmless(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    await bus.publish_messages(POSTS, [message(), message()])
    first, second = await bus._receive(subscription, 2, 10)

    assert await bus._ack([first, first]) == [None, None]
    await bus._nack(first, 0.0)
    await bus._dead_letter(first, REASON)
    await bus._nack(second, 0.0)
    assert await bus._ack([second]) == [None]

    (again,) = await bus._receive(subscription, 2, 10)
    assert (again.message_id, again.attempt) == (second.message_id, 2)
    assert await bus.list_dead_letters(subscription.name) == []


async def test_subscriptions_are_listed_and_their_dead_letters_counted(installation: Any) -> None:
    assert await installation.bus(installation.topic())._list_subscriptions() == []
    bus, subscription = await subscribed(installation, "blog posts.1")
    assert await bus._list_subscriptions() == ["blog posts.1"]
    assert await bus._store_of("blog posts.1").count() == 0
    for _ in range(2):
        await bus.publish_message(POSTS, message())
        (received,) = await bus._receive(subscription, 1, 10)
        await bus._dead_letter(received, REASON)
    assert await bus._store_of("blog posts.1").count() == 2
    with pytest.raises(NotFound):
        await bus._store_of("blog").count()


async def test_dead_letter_is_replayed_to_its_subscription_only(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    other, others = await subscribed(installation, "mail-posts", subscription.topic)
    message_id = await bus.publish_message(POSTS, message(title="\u20ac"))
    (received,) = await bus._receive(subscription, 1, 10)
    await other._ack(await other._receive(others, 1, 10))
    await bus._dead_letter(received, REASON)

    (letter,) = await bus.list_dead_letters(subscription.name)
    assert (letter.message_id, letter.reason, letter.body) == (message_id, REASON, received.body)
    assert letter.attributes == received.attributes
    assert await other.list_dead_letters(others.name) == []

    assert await bus.replay_dead_letters(subscription.name, [letter.letter_id]) == 1
    (again,) = await bus._receive(subscription, 1, 10)
    assert (again.message_id, again.attempt, again.body) == (message_id, 1, received.body)
    assert again.attributes == received.attributes
    assert await bus.list_dead_letters(subscription.name) == []
    await other.publish_message(POSTS, message(title="later"))
    (later,) = await other._receive(others, 2, 10)
    assert json.loads(later.body)["data"] == {"title": "later"}


async def test_dead_letter_that_is_replayed_and_fails_again_is_kept_again(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    await bus.publish_message(POSTS, message())
    for _ in range(2):
        (received,) = await bus._receive(subscription, 1, 10)
        await bus._dead_letter(received, REASON)
        assert await bus.replay_dead_letters(subscription.name) == 1
    (received,) = await bus._receive(subscription, 1, 10)
    await bus._dead_letter(received, REASON)

    assert await bus.purge_dead_letters(subscription.name, ["999999"]) == 0
    assert await bus.purge_dead_letters(subscription.name) == 1
    assert await bus.purge_dead_letters(subscription.name) == 0


async def test_foreign_message_with_a_status_header_and_no_attributes_is_delivered(installation: Any) -> None:
    bus, subscription = await subscribed(installation)

    def publish() -> None:
        installation.do(lambda js: js.publish(subscription.topic, b"\x00", headers={"Status": "404"}))

    await asyncio.to_thread(publish)
    (received,) = await bus._receive(subscription, 1, 10)

    assert received.body == b"\x00"
    assert received.attributes == {"Status": "404"}
    assert received.message_id


async def test_queue_keeps_what_is_published_before_anybody_subscribed(installation: Any) -> None:
    bus = installation.bus()
    message_id = await bus.publish_message(MessageDestination(queue="resize/images *"), message())
    queue = Subscription("resize/images *", "", "jobs")
    await bus._subscribe(queue, create=True)

    (received,) = await bus._receive(queue, 1, 10)
    assert received.message_id == message_id
    assert await bus._ack([received]) == [None]


@pytest.mark.parametrize("topic", ["nobody", "a b", "a.*", ">", "a..b", "", "$JS.API.INFO", "\u20ac\n"])
async def test_topic_that_does_not_exist_is_not_found(installation: Any, topic: str) -> None:
    bus = installation.bus(topic or " ")

    with pytest.raises(NotFound):
        await bus.publish_message(POSTS, message())
    if topic:
        with pytest.raises(NotFound):
            await bus._subscribe(installation.subscription(topic), create=True)


def stream_names(installation: Any) -> list[str]:
    """Return the names of all streams of the server, which gives them page by page."""

    def page(begin: int) -> list[str]:
        return [one.config.name for one in installation.do(lambda js: js.streams_info(offset=begin))]

    names: list[str] = []
    while found := page(len(names)):
        names += found
    return names


async def test_what_a_subscription_lacks_is_reported_and_nothing_is_made(installation: Any) -> None:
    topic = installation.topic()
    bus = installation.bus(topic)

    with pytest.raises(NotFound, match=rf"totoms-queues.*totoms-dead.*totoms-attempts.*blog=20posts.*{topic}"):
        await bus._subscribe(installation.subscription(topic, "blog posts"), create=False)

    assert [name for name in await asyncio.to_thread(stream_names, installation) if installation.prefix in name] == [
        topic
    ]


@pytest.mark.parametrize(
    "config",
    [{"max_deliver": 3}, {"filter_subject": "other"}, {"ack_policy": api.AckPolicy.NONE}],
    ids=["gives up by itself", "filters another subject", "has no acks"],
)
async def test_consumer_that_would_lose_messages_is_refused(installation: Any, config: dict[str, Any]) -> None:
    topic = installation.topic("other")
    wanted = {"durable_name": "blog-posts", **config}
    if "filter_subject" in config:
        wanted["filter_subject"] = f"{topic}.other"
    await asyncio.to_thread(lambda: installation.do(lambda js: js.add_consumer(topic, **wanted)))

    with pytest.raises(BackendError, match="blog-posts"):
        await installation.bus(topic)._subscribe(installation.subscription(topic), create=True)


async def test_subscription_whose_consumer_was_deleted_is_reported(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    await asyncio.to_thread(
        lambda: installation.do(lambda js: js.delete_consumer(subscription.topic, subscription.name))
    )

    with pytest.raises(NotFound, match="lacks: consumer"):
        await bus._receive(subscription, 1, 10)


async def test_wait_ends_when_receiving_is_stopped(installation: Any) -> None:
    bus, subscription = await subscribed(installation)

    async with asyncio.timeout(120):
        waiting = asyncio.create_task(bus._receive(subscription, 5, 600))
        await asyncio.sleep(0)
        await bus._stop_receiving(subscription)
        assert await waiting == []


async def test_message_that_comes_when_its_receiver_was_cancelled_is_available_to_others(installation: Any) -> None:
    bus, subscription = await subscribed(installation)
    other = installation.bus(subscription.topic)
    await other._subscribe(subscription, create=False)
    for number in range(20):  # the message and the cancellation meet in many ways
        waiting = asyncio.create_task(bus._receive(subscription, 5, 600))
        for _ in range(number):
            await asyncio.sleep(0)
        publishing = asyncio.create_task(bus.publish_message(POSTS, message()))
        for _ in range(number):
            await asyncio.sleep(0)
        waiting.cancel()
        message_id = await publishing
        await asyncio.wait({waiting})
        batch = [] if waiting.cancelled() else waiting.result()
        batch = batch or await other._receive(subscription, 1, 10)
        assert [(one.message_id, one.attempt) for one in batch] == [(message_id, 1)], number
        await bus._ack(batch)


async def test_unsupported_features_and_missing_objects_are_reported(installation: Any) -> None:
    bus, subscription = await subscribed(installation)

    with pytest.raises(Unsupported):
        await bus.publish_message(POSTS, message(), ordering_key="a")
    with pytest.raises(Unsupported):
        await bus.publish_message(POSTS, message(), delay=1.0)
    with pytest.raises(NotFound):
        await bus.list_dead_letters("nobody")
    with pytest.raises(NotFound):
        await bus.replay_dead_letters("nobody")
    await bus.close()
    with pytest.raises(Closed):
        await bus.publish_message(POSTS, message())
    with pytest.raises(Closed):
        await bus._receive(subscription, 1, 1)
