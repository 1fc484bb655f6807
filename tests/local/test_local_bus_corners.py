"""The local bus in the corners: very many at once, several threads and loops, a close at any moment, odd names."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from support.local.bus import BLOG, POSTS, Clock, make_bus, nothing_comes, publish, receive_exactly, settled
from totoms import InvalidArgument, MessageDestination, TotoMessage
from totoms.context import current_cid
from totoms.errors import Closed, LeaseLost
from totoms.local.messages.bus import LocalMessageBus


async def test_publishing_while_closing_ends_one_way_or_the_other(another: Callable[..., LocalMessageBus]) -> None:
    for _ in range(20):
        bus = another()
        tasks = [asyncio.ensure_future(publish(bus, number)) for number in range(50)]
        await asyncio.sleep(0)
        async with asyncio.timeout(120):
            await bus.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, (list, Closed)) for result in results)


async def test_publishing_from_a_thread_while_another_closes_never_hangs(
    another: Callable[..., LocalMessageBus],
) -> None:
    for _ in range(20):
        bus = another()
        await publish(bus, 1)

        async def many(bus: LocalMessageBus = bus) -> None:
            with contextlib.suppress(Closed):
                while True:
                    await publish(bus, 1)

        async with asyncio.timeout(120):
            publishing = asyncio.create_task(asyncio.to_thread(asyncio.run, many()))
            await publish(bus, 2)
            await bus.close()
            await publishing


async def test_five_thousand_messages_are_published_at_once(bus: LocalMessageBus) -> None:
    messages = [TotoMessage(type="number", id=str(number)) for number in range(5000)]
    ids = await bus.publish_messages(POSTS, messages)
    assert len(set(ids)) == 5000
    got = await receive_exactly(bus, 5000)
    assert {one.message_id for one in got} == set(ids)
    assert await bus._ack(got) == [None] * 5000
    assert await nothing_comes(bus)


async def test_five_thousand_messages_meet_a_consumer_that_waits_for_seven(bus: LocalMessageBus) -> None:
    waiting = asyncio.ensure_future(bus._receive(BLOG, 7, 20))
    await asyncio.sleep(0)
    ids = await bus.publish_messages(POSTS, [TotoMessage(type="number") for _ in range(5000)])
    got = await waiting
    assert len(got) == 7
    got += await receive_exactly(bus, 4993)
    assert sorted(one.message_id for one in got) == sorted(ids)


async def test_waiting_receiver_gets_a_message_delayed_by_another_process(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock
) -> None:
    publisher = another(process=True)
    waiting = asyncio.ensure_future(bus._receive(BLOG, 1, 20))
    await publish(publisher, 1, delay=10)
    await settled(bus)
    assert not waiting.done()
    clock.advance(11)
    assert len(await waiting) == 1


async def test_message_that_becomes_due_without_a_receiver_is_received_by_the_next(
    bus: LocalMessageBus, clock: Clock
) -> None:
    assert await nothing_comes(bus)
    await publish(bus, 1, delay=5)
    clock.advance(6)
    await publish(bus, 2)
    assert len(await receive_exactly(bus, 2)) == 2


async def test_queue_with_the_name_of_a_subscription_does_not_take_its_topic(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus]
) -> None:
    await bus._subscribe(replace(BLOG, ordered=True), create=True)
    await bus.publish_message(MessageDestination(queue=BLOG.name), TotoMessage(type="job"))
    other = another(process=True)
    await other.publish_message(MessageDestination(queue=BLOG.name), TotoMessage(type="job"))
    await publish(bus, 1)
    assert len(await receive_exactly(bus, 3)) == 3


async def test_text_that_cannot_be_stored_does_not_affect_other_messages(bus: LocalMessageBus) -> None:
    good = [asyncio.ensure_future(publish(bus, number)) for number in range(5)]
    bad = [
        asyncio.ensure_future(publish(bus, 9, ordering_key="\ud800")),
        asyncio.ensure_future(bus.publish_message(MessageDestination(queue="\ud800"), TotoMessage(type="t"))),
    ]
    for result in await asyncio.gather(*bad, return_exceptions=True):
        assert isinstance(result, InvalidArgument)
    assert len(await asyncio.gather(*good)) == 5
    assert len(await receive_exactly(bus, 5)) == 5


async def test_rows_that_are_used_again_do_not_confuse_old_handles(bus: LocalMessageBus) -> None:
    for number in range(5):  # each time all rows are gone, so the number of the row is given again
        await publish(bus, number)
        (held,) = await receive_exactly(bus, 1)
        assert await bus._ack([held]) == [None]
        await publish(bus, number)
        assert [type(lost) for lost in await bus._ack([held])] == [LeaseLost]
        (other,) = await receive_exactly(bus, 1)
        assert [type(lost) for lost in await bus._extend([held])] == [LeaseLost]
        assert await bus._ack([other]) == [None]


async def test_cid_of_the_current_request_travels(bus: LocalMessageBus) -> None:
    token = current_cid.set("the-cid")
    try:
        await publish(bus, 1)
    finally:
        current_cid.reset(token)
    assert b"the-cid" in (await receive_exactly(bus, 1))[0].body


async def test_several_threads_with_loops_of_their_own_use_one_bus(bus: LocalMessageBus) -> None:

    async def work(first: int) -> list[str]:
        return await publish(bus, *range(first, first + 20))

    made = await asyncio.gather(*(asyncio.to_thread(asyncio.run, work(number * 20)) for number in range(4)))
    ids = {message_id for each in made for message_id in each}
    assert {one.message_id for one in await receive_exactly(bus, 80)} == ids


async def test_consumer_whose_event_loop_ended_blocks_no_other_consumer(bus: LocalMessageBus, local_root: str) -> None:
    def dead_loop() -> None:
        loop = asyncio.new_event_loop()
        gone = make_bus(local_root)
        loop.run_until_complete(gone._subscribe(BLOG, create=True))
        waiting = loop.create_task(gone._receive(BLOG, 10, 1000))
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()  # never tells the task
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]
        kept.append((gone, waiting))

    kept: list[Any] = []
    thread = threading.Thread(target=dead_loop)
    thread.start()
    await asyncio.to_thread(thread.join)
    ids = await publish(bus, *range(20))
    got = await receive_exactly(bus, 20)
    assert sorted(one.message_id for one in got) == sorted(ids)
