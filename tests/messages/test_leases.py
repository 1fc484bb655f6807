"""What a `LeasingReceiver` lets a backend do, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from totoms.errors import BackendError, LeaseLost, Unavailable
from totoms.messages import leases
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.leases import Lease, LeasingReceiver
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

BLOG = Subscription("blog-posts", "posts-topic", "posts")
REASON = DeadLetterReason("non_retryable")


class Broker(LeasingReceiver):
    """Notes what it is asked for; `answers` are the results of the next requests, by operation."""

    def __init__(self) -> None:
        super().__init__(BLOG)
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.answers: dict[str, Sequence[BackendError | None]] = {}
        self.gate: dict[str, asyncio.Event] = {}

    async def _fetch(self, most: int, wait: float) -> list[Received]:
        raise NotImplementedError

    async def _ask(self, operation: str, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        self.asked.append((operation, tuple(one.message_id for one in batch)))
        if operation in self.gate:
            await self.gate[operation].wait()
        return self.answers.get(operation, [None] * len(batch))

    async def _ack(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return await self._ask("ack", held)

    async def _nack(self, received: Received, delay: float) -> None:
        await self._ask("nack", [received])

    async def _release(self, held: Sequence[Received]) -> None:
        await self._ask("release", held)

    async def _extend(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return await self._ask("extend", held)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await self._ask("dead_letter", [received])


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    return clock


@pytest.fixture
async def broker(clock: Clock) -> Broker:
    return Broker()


def received(name: str, seconds: float = 30.0) -> Received:
    return Received(b"{}", name, 1, BLOG, lease=Lease(name, seconds))


async def test_what_is_held_is_acked_once(broker: Broker) -> None:
    one, two = received("one"), received("two")
    assert await broker.ack([one, one, two]) == [None, None, None]
    assert await broker.ack([one]) == [None]
    assert broker.asked == [("ack", ("one", "two"))]


@pytest.mark.parametrize("operation", ["ack", "nack", "extend", "dead_letter", "release"])
async def test_nothing_is_asked_of_the_broker_after_the_lease_has_ended(
    broker: Broker, clock: Clock, operation: str
) -> None:
    late = received("late", seconds=30.0)
    clock.now += 30.0
    if operation in ("ack", "extend"):
        (lost,) = await getattr(broker, operation)([late])
        assert isinstance(lost, LeaseLost)
    elif operation == "release":
        await broker.release([late])
    else:
        with pytest.raises(LeaseLost, match="late"):
            await getattr(broker, operation)(late, 0.0 if operation == "nack" else REASON)
    assert broker.asked == []


async def test_lease_counts_from_when_it_was_asked_for(broker: Broker, clock: Clock) -> None:
    early = Received(b"{}", "early", 1, BLOG, lease=Lease("early", 30.0, begun=clock.now - 20.0))
    clock.now += 9.0
    assert early.lease.held
    clock.now += 1.0
    assert not early.lease.held


async def test_renewed_lease_lasts_from_when_the_renewal_was_sent(broker: Broker, clock: Clock) -> None:
    one = received("one", seconds=30.0)
    clock.now += 20.0
    assert await broker.extend([one]) == [None]
    clock.now += 29.0
    assert await broker.ack([one]) == [None]


async def test_lease_that_the_broker_does_not_know_is_lost(broker: Broker) -> None:
    one, two = received("one"), received("two")
    broker.answers["extend"] = [LeaseLost("gone"), None]
    lost, kept = await broker.extend([one, two])
    assert isinstance(lost, LeaseLost)
    assert kept is None
    broker.answers.clear()
    lost, kept = await broker.ack([one, two])
    assert isinstance(lost, LeaseLost)
    assert kept is None
    assert broker.asked[-1] == ("ack", ("two",))


async def test_unknown_result_is_raised_and_only_what_is_open_is_asked_again(broker: Broker) -> None:
    one, two = received("one"), received("two")
    broker.answers["ack"] = [None, Unavailable("no answer")]
    with pytest.raises(Unavailable, match="no answer"):
        await broker.ack([one, two])
    broker.answers.clear()
    assert await broker.ack([one, two]) == [None, None]
    assert broker.asked == [("ack", ("one", "two")), ("ack", ("two",))]


async def test_nack_waits_for_a_renewal_in_progress_and_none_comes_after_it(broker: Broker) -> None:
    one = received("one")
    broker.gate["extend"] = asyncio.Event()
    renewing = asyncio.create_task(broker.extend([one]))
    await asyncio.sleep(0)
    nacking = asyncio.create_task(broker.nack(one, 5.0))
    await asyncio.sleep(0)
    assert [operation for operation, _ in broker.asked] == ["extend"]
    broker.gate["extend"].set()
    assert await renewing == [None]
    await nacking
    assert await broker.extend([one]) == [None]
    assert [operation for operation, _ in broker.asked] == ["extend", "nack"]


async def test_settled_message_stays_settled_whatever_a_renewal_answers_later(broker: Broker) -> None:
    one = received("one")
    broker.gate["extend"] = asyncio.Event()
    broker.answers["extend"] = [LeaseLost("gone: it is settled")]
    renewing = asyncio.create_task(broker.extend([one]))
    await asyncio.sleep(0)
    assert await broker.ack([one]) == [None]
    broker.gate["extend"].set()
    assert await renewing == [None]
    assert one.lease.state == "settled"


async def test_dead_letter_is_kept_then_acked(broker: Broker) -> None:
    one = received("one")
    await broker.dead_letter(one, REASON)
    await broker.dead_letter(one, REASON)
    assert [operation for operation, _ in broker.asked] == ["dead_letter", "ack"]


async def test_dead_letter_that_the_broker_settled_itself_is_not_acked(broker: Broker) -> None:
    class Moving(Broker):
        async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
            received.lease.end("settled")

    moving, one = Moving(), received("one")
    await moving.dead_letter(one, REASON)
    assert moving.asked == []


async def test_released_and_nacked_messages_are_not_settled_again(broker: Broker) -> None:
    one, two = received("one"), received("two")
    await broker.release([one])
    await broker.nack(two, 0.0)
    await broker.release([one, two])
    await broker.nack(one, 0.0)
    assert broker.asked == [("release", ("one",)), ("nack", ("two",))]
