"""How much a consumer takes, and what it gives back when it stops: behaviours 14 to 16."""

from __future__ import annotations

import asyncio
from typing import Final

from totoms.messages import ProcessingResponse, TotoMessage
from totoms.testing.contract import Contract
from totoms.testing.messages_listener import succeed
from totoms.testing.messages_topic import POSTS, Topic, message, pulled
from totoms.testing.stalls import StallMeter

_LONGEST_STALL: Final = 0.1
_TRIES: Final = 3


class Blocked:
    """A handler that is at its messages until the test lets it finish."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()

    async def __call__(self, handled: TotoMessage) -> ProcessingResponse:
        """Handle a message."""
        await self.finish.wait()
        return succeed(handled)


class Flow(Contract):
    """Behaviours 14 to 16."""

    @pulled
    async def test_14_max_concurrency_is_reached_and_never_exceeded(self, topic: Topic) -> None:
        """As many handlers run as may, and never more."""
        blocked = Blocked()
        bus, subscription = await topic.subscribe()
        await bus.publish_messages(POSTS, (message(f"{number}") for number in range(20)))
        listener = topic.consume(bus, subscription, blocked, max_concurrency=4)
        await topic.news.until(lambda: len(listener.running) == 4, "four handlers run")
        blocked.finish.set()
        await listener.until_settled(20)
        assert listener.most == 4

    @pulled
    async def test_14_event_loop_is_never_held_up(self, topic: Topic) -> None:
        """While messages are published and handled the event loop is never held up for more than 100 ms."""
        stalls = []
        for _ in range(_TRIES):  # the machine may hold it up once; what blocks it does each time
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
        told = ", ".join(f"{1000 * stall:.0f} ms" for stall in stalls)
        raise AssertionError(f"the event loop was held up each time: {told}")

    @pulled
    async def test_15_prefetch_stays_within_free_slots(self, topic: Topic) -> None:
        """A consumer with no free slot holds nothing back: another one gets all the rest at once."""
        blocked = Blocked()
        bus, subscription = await topic.subscribe()
        await bus.publish_messages(POSTS, (message(f"{number}") for number in range(6)))
        busy = topic.consume(bus, subscription, blocked, max_concurrency=2)
        await topic.news.until(lambda: len(busy.running) == 2, "both slots are taken")
        idle = await topic.listen(subscription=subscription)
        await idle.until_settled(4)
        assert len(busy.ids) == 2
        assert sorted(busy.ids + idle.ids) == [f"{number}" for number in range(6)]
        assert set(idle.attempts) == {1}
        blocked.finish.set()
        await busy.until_settled(2)
        for listener in (busy, idle):
            assert all(came <= asked for asked, came in listener.bus.asked), "more came than were asked for"

    @pulled
    async def test_15_no_more_is_leased_than_was_asked_for(self, topic: Topic) -> None:
        """Of several messages one receive leases as many as were asked for; another consumer gets all the others."""
        bus, subscription = await topic.subscribe()
        other, _ = await topic.subscribe(subscription)
        ids = await topic.publish("1", "2", "3", "4", "5")
        mine = await topic.receive(bus, subscription, 2)
        rest = await topic.receive(other, subscription, 3)
        assert {one.message_id for one in (*mine, *rest)} == set(ids)
        assert {one.attempt for one in (*mine, *rest)} == {1}
        assert list(await bus._ack(mine)) + list(await other._ack(rest)) == [None] * 5

    @pulled
    async def test_16_stop_loses_nothing_and_counts_no_attempt(self, topic: Topic) -> None:
        """Stopped with one message running and one prefetched: the first is finished, the other at once another's."""
        blocked = Blocked()
        listener = await topic.listen(blocked, max_concurrency=2)
        await topic.publish("running")
        await listener.until_begun("running")
        listener.bus.hold("receive")  # what comes now has left the broker when the stop begins, and reached no handler
        await topic.news.until(lambda: listener.bus.polling, "it waits for more")
        (prefetched,) = await topic.publish("prefetched")
        await topic.news.until(lambda: len(listener.bus.received) == 2, "it has the next")
        stopping = asyncio.create_task(listener.stop(2 * topic.harness.patience))
        await topic.news.until(lambda: listener.bus.which("release"), "what was prefetched is given back")
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
        assert await topic.letters(listener.subscription) == []

    @pulled
    async def test_16_stop_with_a_long_poll_open_strands_nothing(self, topic: Topic) -> None:
        """Stopped while it waits for messages: what is published from then on is another consumer's at once."""
        listener = await topic.listen()
        await topic.news.until(lambda: listener.bus.polling, "it waits for messages")
        await listener.stop(topic.harness.patience)
        await topic.publish("one", "two", "three")
        other = await topic.listen(subscription=listener.subscription)
        await other.until_settled(3)
        assert sorted(other.ids) == ["one", "three", "two"]
        assert other.attempts == [1, 1, 1], "a poll that was left open took them"
        assert listener.ids == []

    @pulled
    async def test_16_stop_finishes_what_is_handled(self, topic: Topic) -> None:
        """When the stop is over, what was handled is settled: nobody gets it again."""
        listener = await topic.listen(max_concurrency=2)
        names = [f"{number}" for number in range(10)]
        await topic.publish(*names)
        await topic.news.until(lambda: len(listener.begun) >= 3, "some are handled")
        await listener.stop(topic.harness.patience)
        mine = list(listener.ids)
        other = await topic.listen(subscription=listener.subscription)
        await topic.news.until(lambda: len(mine) + len(other.begun) >= len(names), "another handles the rest")
        await topic.barrier()
        assert sorted(mine + other.ids) == sorted(names)
        assert set(other.attempts) <= {1}

    @pulled
    async def test_16_handler_that_is_cut_off_has_its_message_come_again(self, topic: Topic) -> None:
        """A handler that outlasts the grace is cancelled, and its message is another consumer's at once."""
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
        assert await topic.letters(listener.subscription) == []
