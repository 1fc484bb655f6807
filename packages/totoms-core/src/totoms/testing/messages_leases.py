"""Who holds a message, and until when: behaviours 11 to 13."""

from __future__ import annotations

import asyncio
import contextlib

from totoms.bus import MessageBus
from totoms.envelope import DeadLetterReason, Received, RetryPolicy
from totoms.errors import LeaseLost
from totoms.messages import ProcessingResponse, TotoMessage
from totoms.testing.contract import Contract
from totoms.testing.messages_listener import Listener, fail, succeed
from totoms.testing.messages_topic import Topic, pulled


class Leases(Contract):
    """Behaviours 11 to 13."""

    @pulled
    async def test_11_handler_slower_than_the_lease_runs_once(self, topic: Topic) -> None:
        """A handler that takes longer than a lease keeps its message, and runs once."""
        finish = asyncio.Event()

        async def slow(handled: TotoMessage) -> ProcessingResponse:
            await finish.wait()
            return succeed(handled)

        listener = await topic.listen(slow, max_concurrency=1)
        await topic.publish("slow")
        await listener.until_begun("slow")
        other = await topic.listen(subscription=listener.subscription)
        await _outlive_a_lease(topic, listener)
        await topic.barrier()
        assert (listener.ids, other.ids) == (["slow"], []), "it came again while it was handled"
        finish.set()
        await listener.until_settled(1)
        await topic.barrier()
        assert (listener.attempts, other.ids, listener.cut) == ([1], [], [])
        assert listener.settled >= {"slow"}

    @pulled
    async def test_12_handler_is_cancelled_when_its_lease_is_lost(self, topic: Topic) -> None:
        """With its lease lost a handler is cancelled, what it says then is harmless, and the message comes again."""

        async def stubborn(handled: TotoMessage) -> ProcessingResponse:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
            return succeed(handled)

        async def fail_later(handled: TotoMessage) -> ProcessingResponse:
            await finish.wait()
            return fail(handled) if handled.delivery and handled.delivery.attempt == 2 else succeed(handled)

        cancelled, finish = asyncio.Event(), asyncio.Event()
        listener = await topic.listen(stubborn, max_concurrency=1)
        await topic.publish("held")
        await listener.until_begun("held")
        listener.bus.hold("extend")  # its renewals are stuck on the way
        await topic.expire_leases()
        other = await topic.listen(fail_later, listener.subscription)
        await other.until_begun("held")
        listener.bus.let("extend")
        await topic.news.until(lambda: not listener.running, "the handler is cancelled")
        assert cancelled.is_set()
        await listener.until_settled(1)
        await listener.stop(topic.harness.patience)
        finish.set()  # had the late ack counted, the message would not come for a third time
        await other.until_settled(1)
        assert (listener.attempts, other.attempts) == ([1], [2, 3])

    @pulled
    async def test_12_late_operations_are_refused_or_harmless(self, topic: Topic) -> None:
        """Whoever has lost a lease can neither settle nor keep the message; the new holder can."""
        bus, subscription = await topic.subscribe()
        other, _ = await topic.subscribe(subscription)
        await topic.publish("held")
        late = await topic.receive_one(bus, subscription)
        await topic.expire_leases()
        again = await topic.receive_one(other, subscription)
        assert (again.message_id, again.attempt, again.body) == (late.message_id, 2, late.body)
        assert isinstance((await bus._extend([late]))[0], LeaseLost)
        await _settle_in_vain(bus, late)
        assert list(await other._extend([again])) == [None], "its new holder has lost it"
        await other._nack(again, 0.0)
        third = await topic.receive_one(other, subscription)
        assert (third.message_id, third.attempt) == (late.message_id, 3)
        assert list(await other._ack([third])) == [None]
        await topic.nothing_left(other, subscription)
        assert await topic.letters(subscription) == []

    @pulled
    async def test_12_message_whose_consumers_die_is_given_up(self, topic: Topic) -> None:
        """A message that was never settled, each time, is dead-lettered after its attempts, without a handler."""
        bus, subscription = await topic.subscribe(topic.subscription(retry=RetryPolicy(1, 0.0, 0.0)))
        (deadly,) = await topic.publish("deadly")
        await topic.receive_one(bus, subscription)
        await topic.expire_leases()
        listener = await topic.listen(subscription=subscription)
        await listener.until_settled(1, "dead_letter")
        assert listener.ids == []
        await topic.check_letters(subscription, {deadly: DeadLetterReason("lease_expired", "", "", 2)})

    @pulled
    async def test_13_ack_twice_and_nack_after_ack_are_harmless(self, topic: Topic) -> None:
        """What is settled stays settled: a second ack, a nack and a dead letter after it change nothing."""
        bus, subscription = await topic.subscribe()
        await topic.publish("one", "two")
        one, two = await topic.receive(bus, subscription, 2)
        assert list(await bus._ack([one, two])) == [None, None]
        await _settle_in_vain(bus, one)
        await _settle_in_vain(bus, two)
        await topic.nothing_left(bus, subscription)
        assert await topic.letters(subscription) == []

    @pulled
    async def test_13_message_twice_in_one_ack_is_harmless(self, topic: Topic) -> None:
        """One ack that names a message twice settles it and those beside it."""
        bus, subscription = await topic.subscribe()
        await topic.publish("one", "two")
        one, two = await topic.receive(bus, subscription, 2)
        results = await bus._ack([one, one, two])
        assert [results[0], results[2]] == [None, None]
        assert results[1] is None or isinstance(results[1], LeaseLost)
        await topic.expire_leases()
        await topic.nothing_left(bus, subscription)

    @pulled
    async def test_13_ack_after_nack_is_harmless(self, topic: Topic) -> None:
        """An ack after a nack is refused, or settles the message; it harms no other, and nobody else's lease."""
        bus, subscription = await topic.subscribe()
        other, _ = await topic.subscribe(subscription)
        await topic.publish("one")
        one = await topic.receive_one(bus, subscription)
        await bus._nack(one, 0.0)
        again = await topic.receive_one(other, subscription)
        await _settle_in_vain(bus, one)
        assert list(await other._ack([again])) == [None], "the message was settled by who had given it back"
        assert (again.message_id, again.attempt) == (one.message_id, 2)
        await topic.nothing_left(bus, subscription)


async def _outlive_a_lease(topic: Topic, listener: Listener) -> None:
    """Let more than a lease pass, the consumer renewing all the while."""
    lease = topic.harness.lease_seconds
    if not topic.harness.virtual_clock:
        await topic.advance(1.6 * lease)
        return
    for _ in range(4):
        # A virtual clock must not outrun the consumer, which renews by the clock on the wall.
        await listener.until_renewed()
        await topic.advance(0.5 * lease)


async def _settle_in_vain(bus: MessageBus, received: Received) -> None:
    """Do all that settles a message; each may be refused, with `LeaseLost`."""
    for result in await bus._ack([received]):
        assert result is None or isinstance(result, LeaseLost)
    for operation in (
        bus._nack(received, 0.0),
        bus._dead_letter(received, DeadLetterReason("attempts_exhausted")),
        bus._release([received]),
    ):
        with contextlib.suppress(LeaseLost):
            await operation
