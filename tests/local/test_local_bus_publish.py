"""Publishing on the local bus: stored before it is confirmed, once for each subscription, and never after close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from support.local.bus import (
    BLOG,
    MAIL,
    POSTS,
    TOPIC,
    Clock,
    nothing_comes,
    number_of,
    open_bus,
    publish,
    receive,
    receive_numbers,
    receive_one,
    rows_of,
    settled,
)
from totoms.errors import MessageTooLarge, NotFound
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.message import MessageDestination, TotoMessage, decode_message
from totoms.messages.subscription import Subscription


async def test_message_arrives_unchanged(bus: LocalMessageBus) -> None:
    data = {"text": "grüß 🎉\u0000", "empty": {}, "nested": [{"a": [1, 2.5, None, True]}], "big": 2**80}
    message = TotoMessage(type="posted", cid="cid-1", id="object-1", msg="a line", data=data)
    message_id = await bus.publish_message(POSTS, message)
    received = await receive_one(bus)
    assert (received.message_id, received.attempt, received.subscription) == (message_id, 1, BLOG)
    assert received.attributes["messageType"] == "posted"
    assert decode_message(received.body) == message


async def test_message_is_the_same_for_a_consumer_in_another_process(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus]
) -> None:
    await publish(bus, 1)
    first = await receive_one(bus)
    await bus._release([first])
    other = another(process=True)
    await other._subscribe(BLOG, create=True)
    stored = await receive_one(other)
    assert (stored.body, stored.attributes, stored.message_id) == (first.body, first.attributes, first.message_id)
    assert stored.attempt == first.attempt


async def test_message_is_committed_when_publish_returns(bus: LocalMessageBus, local_root: str) -> None:
    (message_id,) = await publish(bus, 1)
    assert rows_of(local_root, "SELECT message_id FROM deliveries") == [(message_id,)]


async def test_published_is_flushed_also_after_what_need_not_be(bus: LocalMessageBus) -> None:
    await publish(bus, 1)
    database, flushed = bus._get_writer()._database, []
    commit = database.commit

    def watched() -> None:
        flushed.append(database.connection.execute("PRAGMA synchronous").fetchone()[0])
        commit()

    database.commit = watched  # type: ignore[method-assign]
    await bus._ack([await receive_one(bus)])
    await publish(bus, 2)
    normal, full = 1, 2
    assert (flushed[-2], flushed[-1]) == (normal, full)


async def test_each_subscription_gets_each_message(bus: LocalMessageBus) -> None:
    await bus._subscribe(MAIL, create=True)
    await publish(bus, 1, 2, 3)
    assert await receive_numbers(bus, 3, BLOG) == [1, 2, 3]
    assert await receive_numbers(bus, 3, MAIL) == [1, 2, 3]


async def test_message_waits_for_a_consumer_that_comes_later(bus: LocalMessageBus, local_root: str) -> None:
    await publish(bus, 1)
    await bus.close()
    async with open_bus(local_root) as later:
        await later._subscribe(BLOG, create=True)
        assert await receive_numbers(later, 1) == [1]


async def test_subscription_made_by_another_process_gets_the_next_message(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus]
) -> None:
    await publish(bus, 1)
    other = another(process=True)
    await other._subscribe(MAIL, create=True)
    await publish(bus, 2)
    assert await receive_numbers(other, 1, MAIL) == [2]


async def test_message_to_a_topic_without_subscriptions_is_dropped_with_one_warning(
    local_root: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with open_bus(local_root) as bus:
            await publish(bus, 1, 2, 3)
    assert rows_of(local_root, "SELECT * FROM deliveries") == []
    assert [record.getMessage() for record in caplog.records].count(
        f"The topic {TOPIC!r} has no subscriptions: its messages are dropped."
    ) == 1


async def test_unknown_topic_is_refused(bus: LocalMessageBus) -> None:
    with pytest.raises(NotFound, match="'nowhere'"):
        await bus.publish_message(MessageDestination(topic="nowhere"), TotoMessage(type="posted"))


async def test_missing_subscription_is_named_when_it_may_not_be_made(local_root: str) -> None:
    async with open_bus(local_root) as bus:
        with pytest.raises(NotFound, match="'blog-posts'"):
            await bus._subscribe(BLOG, create=False)
        assert rows_of(local_root, "SELECT * FROM subscriptions") == []
        await bus._subscribe(BLOG, create=True)
        await bus._subscribe(BLOG, create=False)


async def test_subscription_to_another_topic_is_not_taken_for_the_wanted_one(bus: LocalMessageBus) -> None:
    with pytest.raises(NotFound):
        await bus._subscribe(Subscription(BLOG.name, "another-topic", "another"), create=False)


async def test_queue_keeps_what_is_published_before_anybody_subscribed(local_root: str) -> None:
    queue = Subscription("jobs", "", "")
    async with open_bus(local_root) as bus:
        await bus.publish_message(MessageDestination(queue="jobs"), TotoMessage(type="job", data={"number": 1}))
        await bus._subscribe(queue, create=True)
        await bus.publish_message(MessageDestination(queue="jobs"), TotoMessage(type="job", data={"number": 2}))
        assert await receive_numbers(bus, 2, queue) == [1, 2]


async def test_queue_is_a_subscription_that_is_there_without_being_made(local_root: str) -> None:
    queue = Subscription("jobs", "", "")
    async with open_bus(local_root) as bus:
        with pytest.raises(NotFound):
            await bus._subscribe(queue, create=False)
        await bus.publish_message(MessageDestination(queue="jobs"), TotoMessage(type="job", data={"number": 1}))
        await bus._subscribe(queue, create=False)
        assert await receive_numbers(bus, 1, queue) == [1]


async def test_queue_is_shared_with_publishers_in_other_processes(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus]
) -> None:
    queue = Subscription("jobs", "", "")
    await bus._subscribe(queue, create=True)
    await another(process=True).publish_message(
        MessageDestination(queue="jobs"), TotoMessage(type="job", data={"number": 1})
    )
    assert await receive_numbers(bus, 1, queue) == [1]


async def test_batch_arrives_whole_and_in_order(bus: LocalMessageBus) -> None:
    messages = [TotoMessage(type="posted", data={"number": number}) for number in range(1500)]
    ids = await bus.publish_messages(POSTS, messages)
    assert len(set(map(str, ids))) == 1500
    assert await receive_numbers(bus, 1500) == list(range(1500))


async def test_concurrent_publishers_share_commits(bus: LocalMessageBus) -> None:
    before = bus._get_writer()._database.commits
    await asyncio.gather(*(publish(bus, number) for number in range(200)))
    assert bus._get_writer()._database.commits - before < 100
    assert sorted(await receive_numbers(bus, 200)) == list(range(200))


async def test_message_over_the_limit_is_refused_and_one_just_below_arrives(bus: LocalMessageBus) -> None:
    with pytest.raises(MessageTooLarge):
        await bus.publish_message(POSTS, TotoMessage(type="posted", data="x" * bus.max_message_bytes))
    await bus.publish_message(POSTS, TotoMessage(type="posted", data="x" * (bus.max_message_bytes - 600)))
    assert len((await receive_one(bus)).body) > bus.max_message_bytes - 600


async def test_delayed_message_comes_when_its_time_has_come(bus: LocalMessageBus, clock: Clock) -> None:
    await publish(bus, 1, delay=60.0)
    await publish(bus, 2)
    assert await receive_numbers(bus, 1) == [2]
    clock.advance(59.0)
    assert await nothing_comes(bus)
    waiting = asyncio.ensure_future(receive(bus))
    await settled(bus)
    clock.advance(2.0)
    assert [number_of(one) for one in await waiting] == [1]
