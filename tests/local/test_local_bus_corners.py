"""The local bus in the corners: very many at once, several threads and loops, a close at any moment, odd names."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from totoms import MessageDestination, TotoMessage, ValidationError
from totoms.context import current_cid
from totoms.errors import Closed

POSTS = MessageDestination(topic="posts")


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


async def test_queue_with_the_name_of_a_subscription_does_not_take_its_topic(kit: Any) -> None:
    bus, subscription = await kit.consumer(ordered=True)
    await bus.publish_message(MessageDestination(queue=subscription.name), TotoMessage(type="job"))
    other = kit.bus(own_writer=True)
    await other.publish_message(MessageDestination(queue=subscription.name), TotoMessage(type="job"))
    await kit.publish(bus, 1)
    assert len(await kit.get(bus, subscription, 3)) == 3


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
