"""Redelivery, backoff and dead-lettering of failed messages: behaviours 7 to 10 and 26."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import pytest

from totoms.errors import NonRetryableError
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.message import ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.messages.subscription import RetryPolicy
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled
from totoms.testing.messages.listener import Process, fail, succeed
from totoms.testing.messages.topic import Topic

_TWICE: Final = RetryPolicy(max_attempts=2, min_backoff=0.0, max_backoff=0.0)
_THRICE: Final = RetryPolicy(max_attempts=3, min_backoff=0.0, max_backoff=0.0)
_GROWING: Final = RetryPolicy(max_attempts=4, min_backoff=0.25, max_backoff=0.5)


class PostIsOffensive(NonRetryableError):
    """Raised by a handler for a message that will never succeed."""


def throw(error: type[BaseException]) -> Process:
    """Return a handler that raises `error`."""

    def process(_message: TotoMessage) -> Any:
        raise error("as the test says")

    return process


_FAILURES: Final[Mapping[str, tuple[Process, str, str]]] = {
    "FAILED": (fail, "FAILED", "as the test says"),
    "FAILED without a word": (lambda _message: ProcessingResponse(ProcessingStatus.FAILED), "FAILED", ""),
    "an exception": (throw(ValueError), "ValueError", "as the test says"),
}


async def _hang(_message: TotoMessage) -> Any:
    await asyncio.Event().wait()


_TROUBLE: Final[Mapping[str, Process]] = {
    "raises": throw(ValueError),
    "hangs": _hang,
    "returns None": lambda _message: None,
    "returns a wrong type": lambda _message: {"status": "success"},
    "returns a wrong status": lambda _message: ProcessingResponse("done"),  # type: ignore[arg-type]
    "raises SystemExit": throw(SystemExit),
    "raises CancelledError": throw(asyncio.CancelledError),
    "raises MemoryError": throw(MemoryError),
}


class Retries(Contract):
    """Behaviours 7 to 10 and 26."""

    @pulled
    async def test_07_failed_message_is_redelivered_with_growing_attempt(self, topic: Topic) -> None:
        """A failed message is redelivered unchanged, with the same id and the next attempt."""
        listener = await topic.listen(lambda handled: succeed(handled) if _attempt(handled) == 4 else fail(handled))
        (message_id,) = await topic.publish("failing")
        await listener.until_settled(1)
        await topic.barrier()
        assert listener.attempts == [1, 2, 3, 4]
        assert all(handled == listener.begun[0] for handled in listener.begun)
        deliveries = [handled.delivery for handled in listener.begun if handled.delivery]
        assert {delivery.message_id for delivery in deliveries} == {message_id}
        assert [delivery.redelivered for delivery in deliveries] == [False, True, True, True]

    @pulled
    async def test_07_failed_message_is_redelivered_to_any_consumer(self, topic: Topic) -> None:
        """A failed message may be redelivered to another consumer, with the next attempt."""
        listener = await topic.listen(fail, topic.subscription(retry=RetryPolicy(1000, 0.0, 0.0)))
        (message_id,) = await topic.publish("failing")
        await listener.until_settled(1, "nack")
        await listener.stop(topic.harness.patience)
        other = await topic.listen(subscription=listener.subscription)
        await other.until_settled(1)
        (handled,) = other.begun
        assert handled.delivery is not None
        assert (handled.delivery.message_id, handled.delivery.attempt) == (message_id, len(listener.begun) + 1)

    @pytest.mark.parametrize("failure", _FAILURES)
    @pulled
    async def test_08_message_is_dead_lettered_after_exactly_n_attempts(self, topic: Topic, failure: str) -> None:
        """After exactly `max_attempts` a message is dead-lettered with its reason; others are not affected."""
        process, error_class, description = _FAILURES[failure]
        listener = await topic.listen(
            lambda handled: process(handled) if handled.id == "bad" else succeed(handled),
            topic.subscription(retry=_THRICE),
        )
        other = await topic.listen()
        _, bad, _ = await topic.publish("good", "bad", "good too")
        await listener.until_settled(1, "dead_letter")
        await listener.until_settled(2)
        await topic.barrier()
        assert [_attempt(handled) for handled in listener.begun if handled.id == "bad"] == [1, 2, 3]
        assert sorted(listener.ids) == ["bad", "bad", "bad", "good", "good too"]
        assert sorted(other.ids) == ["bad", "good", "good too"]
        reason = DeadLetterReason("attempts_exhausted", error_class, description, 3)
        (dead,) = listener.receiver.which("dead_letter")
        assert (dead.received.message_id, dead.reason) == (bad, reason)
        await topic.check_dead_letters(listener.subscription, {bad: reason})
        await topic.check_dead_letters(other.subscription, {})

    @pulled
    async def test_09_non_retryable_error_is_dead_lettered_at_once(self, topic: Topic) -> None:
        """A non-retryable error dead-letters the message after one attempt, with the class of the error."""
        listener = await topic.listen(throw(PostIsOffensive))
        (bad,) = await topic.publish("bad")
        await listener.until_settled(1, "dead_letter")
        await topic.barrier()
        assert listener.attempts == [1]
        reason = DeadLetterReason("non_retryable", "PostIsOffensive", "as the test says", 1)
        await topic.check_dead_letters(listener.subscription, {bad: reason})
        (dead,) = listener.receiver.which("dead_letter")
        await topic.check_letter_id(listener.subscription, dead.letter_id)

    @pulled
    async def test_10_backoff_grows_and_is_jittered(self, topic: Topic) -> None:
        """Backoff is random below a bound that doubles up to a maximum."""
        listener = await topic.listen(
            lambda handled: succeed(handled) if _attempt(handled) == 4 else fail(handled),
            topic.subscription(retry=_GROWING),
            max_concurrency=32,
        )
        number, ceilings = 24, {1: 0.25, 2: 0.5, 3: 0.5}
        await topic.publish(*(f"{one}" for one in range(number)))
        for attempt, ceiling in ceilings.items():
            await listener.until_settled(number * attempt, "nack")
            await topic.advance(ceiling)
        await listener.until_settled(number)
        delays: dict[int, list[float]] = {}
        for one in listener.receiver.which("nack"):
            delays.setdefault(one.received.attempt, []).append(one.delay)
        assert {attempt: len(asked) for attempt, asked in delays.items()} == dict.fromkeys(ceilings, number)
        for attempt, ceiling in ceilings.items():
            assert 0.0 <= min(delays[attempt]) < max(delays[attempt]) <= ceiling
            assert len(set(delays[attempt])) > number // 2, "the backoff is not random"
        assert max(delays[2]) > ceilings[1], "the backoff does not grow"  # by chance once in 16 million runs

    @pulled
    async def test_10_failed_message_comes_again_after_its_backoff(self, topic: Topic) -> None:
        """A failed message is redelivered after its backoff, and not before."""
        receiver = await topic.subscribe()
        soon_id, later_id = await topic.publish("soon", "later")
        held = {one.message_id: one for one in await topic.receive(receiver, 2)}
        since = time.monotonic()
        await receiver.nack(held[later_id], 4.0)
        await receiver.nack(held[soon_id], 2.0)
        came = await topic.receive_after({soon_id: 2.0, later_id: 4.0}, since, receiver)
        assert [again.attempt for again in came] == [2, 2]

    @pytest.mark.parametrize("trouble", _TROUBLE)
    @pulled
    async def test_26_troubled_handler_is_counted_and_the_worker_lives(self, topic: Topic, trouble: str) -> None:
        """Any misbehaviour of a handler counts as a failure, and the next message is handled."""
        process = _TROUBLE[trouble]
        listener = await topic.listen(
            lambda handled: process(handled) if handled.id == "troubled" else succeed(handled),
            topic.subscription(retry=_TWICE),
            max_concurrency=1,
            timeout=0.2 if trouble == "hangs" else 60.0,
        )
        (troubled,) = await topic.publish("troubled")
        await listener.until_settled(1, "dead_letter")
        await topic.publish("next")
        await listener.until_settled(1)
        assert listener.ids == ["troubled", "troubled", "next"]
        assert listener.attempts == [1, 2, 1]
        counts = listener.counts
        assert (counts.retried, counts.dead_lettered, counts.succeeded) == (1, 1, 1)
        (dead,) = listener.receiver.which("dead_letter")
        assert dead.reason is not None
        assert (dead.reason.reason, dead.reason.attempts) == ("attempts_exhausted", 2)
        await topic.check_dead_letters(listener.subscription, {troubled: dead.reason})


def _attempt(handled: TotoMessage) -> int:
    assert handled.delivery is not None
    return handled.delivery.attempt
