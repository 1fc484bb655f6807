"""What the local bus hands over directly, without reading it back: the same message, and nothing is stranded by it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from support.local.bus import (
    BLOG,
    DEADLINE,
    LEASE,
    POSTS,
    Clock,
    make_bus,
    nothing_comes,
    number_of,
    publish,
    receive,
    receive_one,
    settled,
)
from totoms.errors import Closed
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.message import MessageDestination, TotoMessage
from totoms.messages.receiver import Received

FIVE = [TotoMessage(type="posted", data={"number": number}) for number in range(5)]


async def waiting_for(bus: LocalMessageBus, most: int) -> asyncio.Task[list[Received]]:
    """Have `bus` wait for messages, and the writer know that there are none yet."""
    waiting = asyncio.ensure_future(receive(bus, most=most))
    await settled(bus)
    return waiting


@contextlib.contextmanager
def held_after_commit(bus: LocalMessageBus) -> Iterator[threading.Event]:
    """Hold the writer between its next commit, which sets the event, and the handing over."""
    database = bus._get_writer()._database
    commit, committed, go_on = database.commit, threading.Event(), threading.Event()

    def commit_and_wait() -> None:
        commit()
        committed.set()
        assert go_on.wait(DEADLINE)

    database.commit = commit_and_wait  # type: ignore[method-assign]
    try:
        yield committed
    finally:
        database.commit = commit  # type: ignore[method-assign]
        go_on.set()


async def test_message_handed_over_directly_is_the_one_that_is_stored(bus: LocalMessageBus) -> None:
    waiting = await waiting_for(bus, 1)
    message = TotoMessage(type="größe", id="1", msg="ü\0\u2028", data={"deep": [1, {"a": None}], "text": "☃" * 100})
    message_id = await bus.publish_message(POSTS, message, ordering_key="k")
    (direct,) = await waiting
    assert (direct.message_id, direct.attempt, direct.attributes["messageType"]) == (message_id, 1, "größe")
    await bus._nack(direct, 0)
    stored = await receive_one(bus)
    assert (stored.message_id, stored.attempt) == (message_id, 2)
    assert (stored.body, dict(stored.attributes)) == (direct.body, dict(direct.attributes))
    assert stored.ordering_key == direct.ordering_key


@pytest.mark.parametrize("process", [False, True], ids=["other bus", "other process"])
async def test_lease_of_what_was_handed_over_runs_out_for_a_consumer_that_found_nothing_before(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], clock: Clock, process: bool
) -> None:
    other = another(process=process)
    await other._subscribe(BLOG, create=True)
    waiting = await waiting_for(bus, 1)
    assert await nothing_comes(other)
    await publish(bus, 1)
    (late,) = await waiting
    taking_over = await waiting_for(other, 1)
    assert not taking_over.done()
    clock.advance(LEASE + 1)
    (owner,) = await taking_over
    assert (owner.message_id, owner.attempt) == (late.message_id, 2)


@pytest.mark.parametrize("end", ["time is up", "cancelled", "stopped", "closed", "less is wanted"])
async def test_what_is_on_its_way_when_the_wait_ends_is_available_at_once(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], end: str
) -> None:
    waiting = await waiting_for(bus, 5)
    ending: asyncio.Future[object] | None = None
    with held_after_commit(bus) as committed:
        publishing = asyncio.ensure_future(bus.publish_messages(POSTS, FIVE))
        assert await asyncio.to_thread(committed.wait, DEADLINE)
        if end == "cancelled":
            waiting.cancel()
        elif end == "stopped":
            await bus._stop_receiving(BLOG)
        elif end == "closed":
            ending = asyncio.ensure_future(bus.close())
        else:
            bus._receivers[BLOG.name]._feed.wake()  # as the timer does
        taken = [one for each in await asyncio.gather(waiting, return_exceptions=True) for one in _list(each)]
        assert taken == []
        again = asyncio.ensure_future(receive(bus, most=2)) if end == "less is wanted" else None
        await asyncio.sleep(0)
    await publishing
    if again is not None:
        taken = await again
        assert len(taken) == 2
    if ending is not None:
        await ending
    await assert_others_get_the_rest(another(process=True), taken)


@pytest.mark.parametrize("end", ["cancelled", "closed"])
async def test_what_was_handed_over_and_not_taken_is_available_at_once(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], end: str
) -> None:
    waiting = await waiting_for(bus, 5)
    with held_after_commit(bus) as committed:
        publishing = asyncio.ensure_future(bus.publish_messages(POSTS, FIVE))
        assert await asyncio.to_thread(committed.wait, DEADLINE)
    patience = time.monotonic() + DEADLINE
    while not bus._receivers[BLOG.name]._feed._ready:  # the event loop does not run meanwhile, so nothing takes it
        assert time.monotonic() < patience
        time.sleep(0.001)  # noqa: ASYNC251
    if end == "closed":
        await bus.close()
    else:
        waiting.cancel()
    (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    assert _list(outcome) == []
    await publishing
    await assert_others_get_the_rest(another(process=True), [])


def _list(outcome: list[Received] | BaseException) -> list[Received]:
    return outcome if isinstance(outcome, list) else []


async def assert_others_get_the_rest(other: LocalMessageBus, taken: list[Received]) -> None:
    """Time stands still, so what is leased and forgotten would never come back."""
    await other._subscribe(BLOG, create=True)
    rest: list[Received] = []
    while len(rest) + len(taken) < len(FIVE):
        batch = await receive(other)
        assert batch, "it was leased and forgotten"
        rest += batch
    assert sorted(number_of(one) for one in (*taken, *rest)) == list(range(len(FIVE)))
    assert {one.attempt for one in (*taken, *rest)} == {1}, "no attempt is counted for what nobody took"


async def test_closed_bus_settles_nothing_any_more(bus: LocalMessageBus) -> None:
    await publish(bus, 1)
    held = await receive_one(bus)
    await bus.close()
    for refused in (bus._ack([held]), bus._nack(held, 0), bus._extend([held]), bus._release([held])):
        with pytest.raises(Closed):
            await refused


async def test_queue_that_is_subscribed_to_a_topic_later_gets_both(local_root: str) -> None:
    bus, queue = make_bus(local_root), MessageDestination(queue=BLOG.name)
    await bus.publish_message(queue, TotoMessage(type="job", data={"number": 1}))
    await bus._subscribe(BLOG, create=True)
    await bus.publish_message(queue, TotoMessage(type="job", data={"number": 2}))
    await publish(bus, 3)
    got: list[Received] = []
    while len(got) < 3:
        got += await receive(bus)
    assert sorted(map(number_of, got)) == [1, 2, 3]
    await bus.close()
