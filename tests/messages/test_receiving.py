"""How a `LeasingReceiver` fetches: what arrives after a cancellation or a stop is released."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from totoms.errors import BackendError, Closed, Unavailable
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.leases import Lease, LeasingReceiver
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

BLOG = Subscription("blog-posts", "posts-topic", "posts")


class Fetches(LeasingReceiver):
    """Each fetch waits for an answer that the test gives."""

    def __init__(self) -> None:
        super().__init__(BLOG)
        self.asked: list[tuple[int, float]] = []
        self.released: list[str] = []
        self.running = 0
        self.seconds = 30.0
        self.answers: asyncio.Queue[list[str] | BackendError] = asyncio.Queue()

    async def _fetch(self, most: int, wait: float) -> list[Received]:
        self.asked.append((most, wait))
        self.running += 1
        assert self.running == 1, "two fetches run at a time"
        answer = await self.answers.get()
        self.running -= 1
        if isinstance(answer, BackendError):
            raise answer
        return [Received(b"{}", name, 1, BLOG, lease=Lease(name, self.seconds)) for name in answer]

    async def _release(self, held: Sequence[Received]) -> None:
        self.released += [one.message_id for one in held]

    async def _ack(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        raise NotImplementedError

    async def _nack(self, received: Received, delay: float) -> None:
        raise NotImplementedError

    async def _extend(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        raise NotImplementedError

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        raise NotImplementedError

    async def begun(self) -> None:
        while not self.running:
            await asyncio.sleep(0)


def names(batch: Sequence[Received]) -> list[str]:
    return [one.message_id for one in batch]


async def test_receive_fetches_until_there_are_messages() -> None:
    fetches = Fetches()
    for answer in ([], [], ["one", "two"]):
        fetches.answers.put_nowait(answer)
    assert names(await fetches.receive(10, 600.0)) == ["one", "two"]
    assert [most for most, _ in fetches.asked] == [10, 10, 10]
    assert all(0 < wait <= 2.0 for _, wait in fetches.asked), "a fetch cannot be cancelled, so it must be short"


async def test_lease_of_a_receiver_is_the_shortest_that_it_fetched() -> None:
    fetches = Fetches()
    assert fetches.lease_seconds == 0
    for seconds, shortest in ((30.0, 30.0), (5.0, 5.0), (60.0, 5.0)):
        fetches.seconds = seconds
        fetches.answers.put_nowait(["one"])
        await fetches.receive(10, 0.0)
        assert fetches.lease_seconds == shortest


async def test_receive_that_does_not_wait_fetches_once() -> None:
    fetches = Fetches()
    fetches.answers.put_nowait([])
    assert await fetches.receive(10, 0.0) == []
    assert fetches.asked == [(10, 0.0)]


async def test_error_of_a_fetch_is_raised() -> None:
    fetches = Fetches()
    fetches.answers.put_nowait(Unavailable("away"))
    with pytest.raises(Unavailable, match="away"):
        await fetches.receive(10, 600.0)


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_what_arrives_after_receive_has_ended_is_released(how: str) -> None:
    fetches = Fetches()
    receiving = asyncio.create_task(fetches.receive(10, 600.0))
    await fetches.begun()
    if how == "stopped":
        await fetches.stop()
        assert await receiving == []
    else:
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
    fetches.answers.put_nowait(["late"])
    await fetches.close()
    assert fetches.released == ["late"]


@pytest.mark.parametrize("steps", range(8))
async def test_no_message_is_lost_whenever_receive_is_cancelled(steps: int) -> None:
    fetches = Fetches()
    receiving = asyncio.create_task(fetches.receive(10, 600.0))
    await fetches.begun()
    fetches.answers.put_nowait(["one"])
    for _ in range(steps):
        await asyncio.sleep(0)
    receiving.cancel()
    await asyncio.wait({receiving})
    got = [] if receiving.cancelled() else names(receiving.result())
    await fetches.close()
    assert got + fetches.released == ["one"]


async def test_next_receive_waits_for_the_fetch_of_a_cancelled_one() -> None:
    fetches = Fetches()
    receiving = asyncio.create_task(fetches.receive(10, 600.0))
    await fetches.begun()
    receiving.cancel()
    await asyncio.wait({receiving})
    assert await fetches.receive(10, 0.0) == []
    again = asyncio.create_task(fetches.receive(10, 600.0))
    fetches.answers.put_nowait(["late"])
    fetches.answers.put_nowait(["one"])
    assert names(await again) == ["one"]
    assert fetches.released == ["late"]


async def test_error_of_an_abandoned_fetch_is_dropped() -> None:
    fetches = Fetches()
    receiving = asyncio.create_task(fetches.receive(10, 600.0))
    await fetches.begun()
    await fetches.stop()
    assert await receiving == []
    fetches.answers.put_nowait(Unavailable("away"))
    await fetches.close()
    assert fetches.released == []


async def test_stopped_receiver_receives_nothing_and_a_closed_one_says_so() -> None:
    fetches = Fetches()
    await fetches.stop()
    assert await fetches.receive(10, 600.0) == []
    await fetches.close()
    with pytest.raises(Closed):
        await fetches.receive(10, 600.0)
    assert fetches.asked == []


async def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("totoms.messages.leases._CLOSE_PATIENCE", 0.0)
    fetches = Fetches()
    receiving = asyncio.create_task(fetches.receive(10, 600.0))
    await fetches.begun()
    await fetches.close()
    assert await receiving == []
    fetches.answers.put_nowait([])
