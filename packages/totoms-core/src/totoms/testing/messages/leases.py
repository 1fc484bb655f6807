"""Leases and settling: behaviours 11 to 13."""

from __future__ import annotations

import asyncio
import contextlib

from totoms.errors import LeaseLost
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.message import ProcessingResponse, TotoMessage
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import RetryPolicy
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled, short_leases
from totoms.testing.messages.listener import Listener, fail, succeed
from totoms.testing.messages.topic import Topic


class Leases(Contract):
    """Behaviours 11 to 13."""

    @short_leases
    async def test_11_handler_slower_than_the_lease_runs_once(self, topic: Topic) -> None:
        """A handler that is slower than the lease keeps its message and runs once."""
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
        assert (listener.ids, other.ids) == (["slow"], []), "it was delivered again while it was handled"
        finish.set()
        await listener.until_settled(1)
        await topic.barrier()
        assert (listener.attempts, other.ids, listener.cut) == ([1], [], [])
        assert listener.settled >= {"slow"}

    @short_leases
    async def test_12_handler_is_cancelled_when_its_lease_is_lost(self, topic: Topic) -> None:
        """A handler whose lease is lost is cancelled, its result is dropped, and the message is redelivered."""

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
        listener.receiver.hold("extend")  # its renewals are delayed
        await topic.expire_leases()
        other = await topic.listen(fail_later, listener.subscription)
        await other.until_begun("held")
        listener.receiver.resume("extend")
        await topic.progress.until(lambda: not listener.running, "the handler is cancelled")
        assert cancelled.is_set()
        await listener.until_settled(1)
        await listener.stop(topic.harness.patience)
        finish.set()  # if the late ack had counted, there would be no third delivery
        await other.until_settled(1)
        assert (listener.attempts, other.attempts) == ([1], [2, 3])

    @short_leases
    async def test_12_late_operations_are_refused_or_harmless(self, topic: Topic) -> None:
        """After a lost lease the old holder can neither settle nor extend; the new holder can."""
        receiver = await topic.subscribe()
        other = await topic.subscribe(receiver.subscription)
        await topic.publish("held")
        late = await topic.receive_one(receiver)
        await topic.expire_leases()
        again = await topic.receive_one(other)
        assert (again.message_id, again.attempt, again.body) == (late.message_id, 2, late.body)
        assert isinstance((await receiver.extend([late]))[0], LeaseLost)
        await _settle_in_vain(receiver, late)
        assert list(await other.extend([again])) == [None], "the new holder lost its lease"
        await other.nack(again, 0.0)
        third = await topic.receive_one(other)
        assert (third.message_id, third.attempt) == (late.message_id, 3)
        assert list(await other.ack([third])) == [None]
        await topic.nothing_left(other)
        assert await topic.dead_letters(receiver.subscription) == []

    @short_leases
    async def test_12_message_whose_consumers_die_is_dead_lettered(self, topic: Topic) -> None:
        """A message whose consumers die each time is dead-lettered after its attempts, without running a handler."""
        receiver = await topic.subscribe(topic.subscription(retry=RetryPolicy(1, 0.0, 0.0)))
        (deadly,) = await topic.publish("deadly")
        await topic.receive_one(receiver)
        await topic.expire_leases()
        listener = await topic.listen(subscription=receiver.subscription)
        await listener.until_settled(1, "dead_letter")
        assert listener.ids == []
        await topic.check_dead_letters(receiver.subscription, {deadly: DeadLetterReason("lease_expired", "", "", 2)})

    @pulled
    async def test_13_ack_twice_and_nack_after_ack_are_harmless(self, topic: Topic) -> None:
        """After an ack, a second ack, a nack and a dead letter change nothing."""
        receiver = await topic.subscribe()
        await topic.publish("one", "two")
        one, two = await topic.receive(receiver, 2)
        assert list(await receiver.ack([one, two])) == [None, None]
        await _settle_in_vain(receiver, one)
        await _settle_in_vain(receiver, two)
        await topic.nothing_left(receiver)
        assert await topic.dead_letters(receiver.subscription) == []

    @short_leases
    async def test_13_message_twice_in_one_ack_is_harmless(self, topic: Topic) -> None:
        """An ack with the same message twice settles it and the others."""
        receiver = await topic.subscribe()
        await topic.publish("one", "two")
        one, two = await topic.receive(receiver, 2)
        results = await receiver.ack([one, one, two])
        assert [results[0], results[2]] == [None, None]
        assert results[1] is None or isinstance(results[1], LeaseLost)
        await topic.expire_leases()
        await topic.nothing_left(receiver)

    @short_leases
    async def test_13_ack_and_renewal_at_the_same_time_settle_the_message(self, topic: Topic) -> None:
        """An ack during a renewal of the same lease succeeds, and the message is not redelivered."""
        receiver = await topic.subscribe()
        await topic.publish("one", "two")
        one, two = await topic.receive(receiver, 2)
        acked, _ = await asyncio.gather(receiver.ack([one]), receiver.extend([one]))
        _, acked_later = await asyncio.gather(receiver.extend([two]), receiver.ack([two]))
        assert [*acked, *acked_later] == [None, None], "an ack failed during a renewal"
        await topic.expire_leases()
        await topic.nothing_left(receiver)

    @pulled
    async def test_13_ack_after_nack_is_harmless(self, topic: Topic) -> None:
        """An ack after a nack does not settle the message for its new holder."""
        receiver = await topic.subscribe()
        other = await topic.subscribe(receiver.subscription)
        await topic.publish("one")
        one = await topic.receive_one(receiver)
        await receiver.nack(one, 0.0)
        again = await topic.receive_one(other)
        await _settle_in_vain(receiver, one)
        assert list(await other.ack([again])) == [None], "the former holder settled the message"
        assert (again.message_id, again.attempt) == (one.message_id, 2)
        await topic.nothing_left(receiver)


async def _outlive_a_lease(topic: Topic, listener: Listener) -> None:
    """Let more than a lease pass while the consumer renews."""
    lease = topic.harness.lease_seconds
    if not topic.harness.virtual_clock:
        await topic.advance(1.6 * lease)
        return
    for _ in range(4):
        # A virtual clock must not outrun the consumer, which renews by real time.
        await listener.until_renewed()
        await topic.advance(0.5 * lease)


async def _settle_in_vain(receiver: Receiver, received: Received) -> None:
    """Call every operation that settles a message; each may raise `LeaseLost`."""
    for result in await receiver.ack([received]):
        assert result is None or isinstance(result, LeaseLost)
    for operation in (
        receiver.nack(received, 0.0),
        receiver.dead_letter(received, DeadLetterReason("attempts_exhausted")),
        receiver.release([received]),
    ):
        with contextlib.suppress(LeaseLost):
            await operation
