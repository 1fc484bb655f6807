"""The local bus at the seam: what is published is received, once by each subscription, unchanged."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from totoms import MessageDestination, TotoMessage, ValidationError
from totoms.context import current_cid
from totoms.errors import Closed, NotFound

POSTS = MessageDestination(topic="posts")


async def test_message_arrives_unchanged_on_both_ways_through_the_bus(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    message = TotoMessage(
        type="größe", id="1", msg="ü\0\u2028", data={"deep": [1, {"a": None}], "text": "☃" * 100}, cid="c-1"
    )
    await kit.publish(bus, 0)  # not waited for: read from the database
    stored = (await kit.get(bus, subscription))[0]
    waiting = asyncio.ensure_future(bus._receive(subscription, 1, 20))
    await asyncio.sleep(0)
    message_id = await bus.publish_message(POSTS, message)
    (direct,) = await waiting
    assert direct.message_id == message_id
    assert b'"cid":"c-1"' in direct.body.replace(b" ", b"")
    assert direct.attributes["messageType"] == "größe"
    assert direct.attempt == stored.attempt == 1
    await bus._nack(direct, 0)
    (again,) = await kit.get(bus, subscription)  # the same bytes, now from the database
    assert (again.body, dict(again.attributes), again.message_id) == (direct.body, dict(direct.attributes), message_id)
    assert again.attempt == 2


async def test_each_subscription_receives_every_message(kit: Any) -> None:
    bus, first = await kit.consumer()
    second = kit.subscription("other-posts")
    await bus._subscribe(second, create=True)
    ids = await kit.publish(bus, 1, 2, 3)
    for subscription in (first, second):
        assert sorted(one.message_id for one in await kit.get(bus, subscription, 3)) == sorted(ids)


@pytest.mark.parametrize("own_writer", [False, True])
async def test_two_consumers_share_a_subscription(kit: Any, own_writer: bool) -> None:
    one, subscription = await kit.consumer()
    other, _ = await kit.consumer(own_writer=own_writer)
    ids = await kit.publish(one, *range(20))
    first = await kit.get(one, subscription, 10)
    second = await kit.get(other, subscription, 10)
    assert sorted(each.message_id for each in (*first, *second)) == sorted(ids)
    assert await kit.nothing(one, subscription)
    assert await kit.nothing(other, subscription)


async def test_message_published_before_the_first_consumer_runs_is_kept(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    await bus.close()
    publisher = kit.bus()
    ids = await kit.publish(publisher, 1)
    await publisher.close()
    later, _ = await kit.consumer()
    assert [one.message_id for one in await kit.get(later, subscription)] == ids


async def test_unknown_topic_is_not_found(kit: Any) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await kit.bus().publish_message(MessageDestination(topic="nowhere"), TotoMessage(type="t"))


async def test_closed_bus_refuses_everything_and_is_closed_twice(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    await kit.publish(bus, 1)
    (held,) = await kit.get(bus, subscription)
    await bus.close()
    await bus.close()
    for refused in (
        kit.publish(bus, 1),
        bus._receive(subscription, 1, 1),
        bus._ack([held]),
        bus._nack(held, 0),
        bus._extend([held]),
    ):
        with pytest.raises(Closed):
            await refused


async def test_publishing_while_closing_ends_one_way_or_the_other(kit: Any) -> None:
    for _ in range(20):
        bus = kit.bus()
        tasks = [asyncio.ensure_future(kit.publish(bus, number)) for number in range(50)]
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await bus.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, (list, Closed)) for result in results)


async def test_publishing_from_a_thread_while_another_closes_never_hangs(kit: Any) -> None:
    for _ in range(20):
        bus = kit.bus()
        await kit.publish(bus, 1)

        async def many(bus: Any = bus) -> None:
            with contextlib.suppress(Closed):
                while True:
                    await kit.publish(bus, 1)

        async with asyncio.timeout(20):
            publishing = asyncio.create_task(asyncio.to_thread(asyncio.run, many()))
            await kit.publish(bus, 2)
            await bus.close()
            await publishing


async def test_five_thousand_messages_are_published_at_once(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    messages = [TotoMessage(type="number", id=str(number)) for number in range(5000)]
    ids = await bus.publish_messages(POSTS, messages)
    assert len(set(ids)) == 5000
    got = await kit.get(bus, subscription, 5000)
    assert {one.message_id for one in got} == set(ids)
    assert await bus._ack(got) == [None] * 5000
    assert await kit.nothing(bus, subscription)


async def test_five_thousand_messages_meet_a_consumer_that_waits_for_seven(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    waiting = asyncio.ensure_future(bus._receive(subscription, 7, 20))
    await asyncio.sleep(0)
    ids = await bus.publish_messages(POSTS, [TotoMessage(type="number") for _ in range(5000)])
    got = await waiting
    assert len(got) == 7
    got += await kit.get(bus, subscription, 4993)
    assert sorted(one.message_id for one in got) == sorted(ids)


async def test_never_more_is_handed_over_than_asked_for(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    await kit.publish(bus, *range(30))
    for most in (1, 3, 7):
        assert len(await bus._receive(subscription, most, 20)) <= most
    other, _ = await kit.consumer(own_writer=True)
    rest = 30 - len(bus._feed(subscription.name).leases)
    assert len(await kit.get(other, subscription, rest)) == rest, "more was leased than handed over"


async def test_delayed_message_waits_for_the_clock(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    await kit.publish(bus, 1, delay=10)
    assert await kit.nothing(bus, subscription)
    kit.advance(9.5)
    assert await kit.nothing(bus, subscription)
    kit.advance(1)
    assert len(await kit.get(bus, subscription)) == 1


async def test_message_delayed_by_another_process_is_seen_by_who_waits_already(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    publisher = kit.bus(own_writer=True)
    waiting = asyncio.ensure_future(bus._receive(subscription, 1, 20))
    await kit.publish(publisher, 1, delay=10)
    await bus._do(lambda connection: None)
    assert not waiting.done()
    kit.advance(11)
    assert len(await waiting) == 1


async def test_message_that_becomes_due_while_nobody_waits_is_there_for_the_next(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    assert await kit.nothing(bus, subscription)
    await kit.publish(bus, 1, delay=5)
    kit.advance(6)
    await kit.publish(bus, 2)
    assert len(await kit.get(bus, subscription, 2)) == 2


async def test_subscription_made_by_another_process_gets_what_is_published_next(kit: Any) -> None:
    bus = kit.bus()
    await kit.publish(bus, 1)  # to nobody; what is subscribed is known to this bus now
    other, subscription = await kit.consumer(own_writer=True)
    ids = await kit.publish(bus, 2)
    assert [one.message_id for one in await kit.get(other, subscription)] == ids


async def test_queue_keeps_messages_for_its_consumer(kit: Any) -> None:
    bus = kit.bus()
    queue = MessageDestination(queue="work")
    message_id = await bus.publish_message(queue, TotoMessage(type="job"))
    subscription = kit.subscription("work", "none-topic")
    await bus._subscribe(subscription, create=True)
    later = await bus.publish_message(queue, TotoMessage(type="job"))
    got = await kit.get(bus, subscription, 2)
    assert {one.message_id for one in got} == {message_id, later}


async def test_queue_with_the_name_of_a_subscription_does_not_take_its_topic(kit: Any) -> None:
    bus, subscription = await kit.consumer(ordered=True)
    await bus.publish_message(MessageDestination(queue=subscription.name), TotoMessage(type="job"))
    other = kit.bus(own_writer=True)
    await other.publish_message(MessageDestination(queue=subscription.name), TotoMessage(type="job"))
    await kit.publish(bus, 1)
    assert len(await kit.get(bus, subscription, 3)) == 3


async def test_subscription_that_may_not_be_made_is_not_found(kit: Any) -> None:
    bus = kit.bus()
    with pytest.raises(NotFound, match="blog-posts"):
        await bus._subscribe(kit.subscription(), create=False)
    await bus._subscribe(kit.subscription(), create=True)
    await bus._subscribe(kit.subscription(), create=False)
    with pytest.raises(NotFound):
        await bus._subscribe(kit.subscription(topic="likes-topic"), create=False)
    with pytest.raises(NotFound, match="unheard"):
        await bus._receive(kit.subscription("unheard"), 1, 1)


async def test_text_that_cannot_be_stored_harms_nobody_else(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    good = [asyncio.ensure_future(kit.publish(bus, number)) for number in range(5)]
    bad = [
        asyncio.ensure_future(kit.publish(bus, 9, ordering_key="\ud800")),
        asyncio.ensure_future(bus.publish_message(MessageDestination(queue="\ud800"), TotoMessage(type="t"))),
    ]
    for result in await asyncio.gather(*bad, return_exceptions=True):
        assert isinstance(result, ValidationError)
    assert len(await asyncio.gather(*good)) == 5
    assert len(await kit.get(bus, subscription, 5)) == 5


async def test_rows_that_are_used_again_do_not_confuse_old_handles(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    for number in range(5):  # each time all rows are gone, so the number of the row is given again
        await kit.publish(bus, number)
        (held,) = await kit.get(bus, subscription)
        assert await bus._ack([held]) == [None]
        await kit.publish(bus, number)
        assert [type(lost).__name__ for lost in await bus._ack([held])] == ["LeaseLost"]
        (other,) = await kit.get(bus, subscription)
        assert [type(lost).__name__ for lost in await bus._extend([held])] == ["LeaseLost"]
        assert await bus._ack([other]) == [None]


async def test_cid_of_the_current_request_travels(kit: Any) -> None:
    bus, subscription = await kit.consumer()
    token = current_cid.set("the-cid")
    try:
        await kit.publish(bus, 1)
    finally:
        current_cid.reset(token)
    assert b"the-cid" in (await kit.get(bus, subscription))[0].body


async def test_two_buses_of_one_folder_share_a_writer_and_part_in_peace(kit: Any) -> None:
    one, subscription = await kit.consumer()
    other, _ = await kit.consumer()
    assert one._writer is other._writer
    await one.close()
    ids = await kit.publish(other, 1, 2)
    assert sorted(each.message_id for each in await kit.get(other, subscription, 2)) == sorted(ids)


async def test_several_threads_with_loops_of_their_own_use_one_bus(kit: Any) -> None:
    bus, subscription = await kit.consumer()

    async def work(first: int) -> list[str]:
        return await kit.publish(bus, *range(first, first + 20))

    made = await asyncio.gather(*(asyncio.to_thread(asyncio.run, work(number * 20)) for number in range(4)))
    ids = {message_id for each in made for message_id in each}
    assert {one.message_id for one in await kit.get(bus, subscription, 80)} == ids


async def test_consumer_whose_event_loop_ended_keeps_nothing_from_the_others(kit: Any) -> None:
    import threading

    def dead_loop() -> None:
        loop = asyncio.new_event_loop()
        bus = kit.bus()
        subscription = kit.subscription()
        loop.run_until_complete(bus._subscribe(subscription, create=True))
        waiting = loop.create_task(bus._receive(subscription, 10, 1000))
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()  # never tells the task
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]
        kept.append((bus, waiting))

    kept: list[Any] = []
    thread = threading.Thread(target=dead_loop)
    thread.start()
    await asyncio.to_thread(thread.join)
    bus, subscription = await kit.consumer()
    ids = await kit.publish(bus, *range(20))
    got = await kit.get(bus, subscription, 20)
    assert sorted(one.message_id for one in got) == sorted(ids)
    kit.buses.remove(kept[0][0])  # nobody can close it: its loop is gone
