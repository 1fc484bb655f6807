"""Concurrency, prefetching and stopping: behaviours 14 to 16."""

from __future__ import annotations

import asyncio
from typing import Final

from totoms.messages.message import ProcessingResponse, TotoMessage
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled
from totoms.testing.messages.listener import succeed
from totoms.testing.messages.topic import POSTS, Topic, message
from totoms.testing.stalls import StallMeter

_LONGEST_STALL: Final = 0.1
_TRIES: Final = 3


class Blocked:
    """A handler that blocks until the test sets `finish`."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()

    async def __call__(self, handled: TotoMessage) -> ProcessingResponse:
        """Wait, then return SUCCESS."""
        await self.finish.wait()
        return succeed(handled)


class Flow(Contract):
    """Behaviours 14 to 16."""

    @pulled
    async def test_14_max_concurrency_is_reached_and_never_exceeded(self, topic: Topic) -> None:
        """As many handlers run concurrently as `max_concurrency` allows, and never more."""
        blocked = Blocked()
        receiver = await topic.subscribe()
        await (await topic.bus()).publish_messages(POSTS, (message(f"{number}") for number in range(20)))
        listener = topic.consume(receiver, blocked, max_concurrency=4)
        await topic.progress.until(lambda: len(listener.running) == 4, "four handlers run")
        blocked.finish.set()
        await listener.until_settled(20)
        assert listener.most == 4

    @pulled
    async def test_14_event_loop_is_never_held_up(self, topic: Topic) -> None:
        """Publishing and handling messages never block the event loop for more than 100 ms."""
        stalls = []
        for _ in range(_TRIES):  # a busy machine may stall once; blocking code stalls each time
            async with StallMeter() as meter:
                listener, bus = await topic.listen(), await topic.connect()
                results = await bus.publish_messages(POSTS, (message(f"{number}") for number in range(50)))
                await bus.publish_message(POSTS, message("alone"))
                await listener.until_settled(len(results) + 1)
                await listener.stop(topic.harness.patience)
                await bus.close()
            stalls.append(meter.longest)
            if meter.longest <= _LONGEST_STALL:
                return
        longest = ", ".join(f"{1000 * stall:.0f} ms" for stall in stalls)
        raise AssertionError(f"the event loop was blocked each time, for {longest}")

    @pulled
    async def test_15_prefetch_stays_within_free_slots(self, topic: Topic) -> None:
        """A consumer without a free slot prefetches nothing: another consumer gets the rest at once."""
        blocked = Blocked()
        receiver = await topic.subscribe()
        await (await topic.bus()).publish_messages(POSTS, (message(f"{number}") for number in range(6)))
        busy = topic.consume(receiver, blocked, max_concurrency=2)
        await topic.progress.until(lambda: len(busy.running) == 2, "both slots are taken")
        idle = await topic.listen(subscription=receiver.subscription)
        await idle.until_settled(4)
        assert len(busy.ids) == 2
        assert sorted(busy.ids + idle.ids) == [f"{number}" for number in range(6)]
        assert set(idle.attempts) == {1}
        blocked.finish.set()
        await busy.until_settled(2)
        for listener in (busy, idle):
            assert all(came <= asked for asked, came in listener.receiver.asked), "received more than max_messages"

    @pulled
    async def test_15_no_more_is_leased_than_was_asked_for(self, topic: Topic) -> None:
        """A receive leases at most `max_messages`; another consumer gets the others."""
        receiver = await topic.subscribe()
        other = await topic.subscribe(receiver.subscription)
        ids = await topic.publish("1", "2", "3", "4", "5")
        mine = await topic.receive(receiver, 2)
        rest = await topic.receive(other, 3)
        assert {one.message_id for one in (*mine, *rest)} == set(ids)
        assert {one.attempt for one in (*mine, *rest)} == {1}
        assert list(await receiver.ack(mine)) + list(await other.ack(rest)) == [None] * 5

    @pulled
    async def test_16_stop_loses_nothing_and_counts_no_attempt(self, topic: Topic) -> None:
        """Stop finishes the running message and releases the prefetched one to another consumer at once."""
        blocked = Blocked()
        listener = await topic.listen(blocked, max_concurrency=2)
        await topic.publish("running")
        await listener.until_begun("running")
        # The next message is received, but held before it reaches a handler, when the stop begins.
        listener.receiver.hold("receive")
        await topic.progress.until(lambda: listener.receiver.polling, "the consumer polls")
        (prefetched,) = await topic.publish("prefetched")
        await topic.progress.until(lambda: len(listener.receiver.received) == 2, "the next message is received")
        stopping = asyncio.create_task(listener.stop(2 * topic.harness.patience))
        await topic.progress.until(lambda: listener.receiver.which("release"), "the prefetched message is released")
        other = await topic.listen(subscription=listener.subscription)
        await other.until_settled(1)
        assert listener.ids == ["running"]
        (handled,) = other.begun
        assert handled.delivery is not None
        assert (handled.id, handled.delivery.message_id, handled.delivery.attempt) == ("prefetched", prefetched, 1)
        blocked.finish.set()
        await stopping
        assert listener.settled == {"running"}
        await topic.barrier()
        assert other.ids == ["prefetched"]
        assert await topic.dead_letters(listener.subscription) == []

    @pulled
    async def test_16_stop_with_a_long_poll_open_strands_nothing(self, topic: Topic) -> None:
        """After a stop during a long poll, another consumer gets new messages at once."""
        listener = await topic.listen()
        await topic.progress.until(lambda: listener.receiver.polling, "the consumer polls")
        await listener.stop(topic.harness.patience)
        await topic.publish("one", "two", "three")
        other = await topic.listen(subscription=listener.subscription)
        await other.until_settled(3)
        assert sorted(other.ids) == ["one", "three", "two"]
        assert other.attempts == [1, 1, 1], "the open poll leased them"
        assert listener.ids == []

    @pulled
    async def test_16_stop_finishes_what_is_handled(self, topic: Topic) -> None:
        """After a stop all handled messages are settled: no consumer gets them again."""
        listener = await topic.listen(max_concurrency=2)
        names = [f"{number}" for number in range(10)]
        await topic.publish(*names)
        await topic.progress.until(lambda: len(listener.begun) >= 3, "some are handled")
        await listener.stop(topic.harness.patience)
        mine = list(listener.ids)
        other = await topic.listen(subscription=listener.subscription)
        await topic.progress.until(lambda: len(mine) + len(other.begun) >= len(names), "another handles the rest")
        await topic.barrier()
        assert sorted(mine + other.ids) == sorted(names)
        assert set(other.attempts) <= {1}

    @pulled
    async def test_16_handler_that_is_cut_off_has_its_message_come_again(self, topic: Topic) -> None:
        """A handler that outlasts the grace period is cancelled, and another consumer gets its message at once."""
        listener = await topic.listen(Blocked())
        (message_id,) = await topic.publish("slow")
        await listener.until_begun("slow")
        await listener.stop(0.01)
        assert [handled.id for handled in listener.cut] == ["slow"]
        other = await topic.listen(subscription=listener.subscription)
        await other.until_settled(1)
        (handled,) = other.begun
        assert handled.delivery is not None
        assert (handled.delivery.message_id, handled.delivery.attempt) == (message_id, 2)
        assert await topic.dead_letters(listener.subscription) == []
