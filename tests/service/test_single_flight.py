"""Calls that many callers share: one at a time, a cooldown after each, and no caller that ends it for the others."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.flights import DEADLINE, ended
from totoms.plugin import SingleFlight


class Source:
    """Counts its calls, and answers each when `open` is set. Its clock is moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls = 0
        self.error: BaseException | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.thread_open = threading.Event()
        self.flight = SingleFlight[int](60, 10, clock=lambda: self.now)

    def _answer(self) -> int:
        if self.error is not None:
            raise self.error
        return self.calls

    async def call(self) -> int:
        self.calls += 1
        await self.open.wait()
        return self._answer()

    def block(self) -> int:
        self.calls += 1
        assert self.thread_open.wait(DEADLINE)
        return self._answer()

    async def attempt(self) -> bool:
        return await self.flight.attempt(self.call)


async def test_callers_at_once_share_one_call() -> None:
    source = Source()
    assert await asyncio.gather(*(source.attempt() for _ in range(100))) == [True] * 100
    assert (source.calls, source.flight.result, source.flight.failed) == (1, 1, False)


async def test_threads_and_tasks_share_one_call() -> None:
    source = Source()
    with ThreadPoolExecutor(20) as pool:
        futures = list(pool.map(lambda _: source.flight.in_thread(source.block, "a call"), range(50)))
        tasks = [asyncio.create_task(source.attempt()) for _ in range(50)]
        await asyncio.sleep(0)
        source.thread_open.set()
        assert [future.result(DEADLINE) for future in futures] == [1] * 50
        assert await asyncio.gather(*tasks) == [True] * 50
    assert source.calls == 1


async def test_cancelled_caller_does_not_end_the_call_for_the_others() -> None:
    source = Source()
    source.open.clear()
    first, second = asyncio.create_task(source.attempt()), asyncio.create_task(source.attempt())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.open.set()
    assert await second
    assert source.calls == 1


async def test_no_call_starts_within_the_cooldown_of_a_success() -> None:
    source = Source()
    assert await source.attempt()
    source.now += 59
    assert not await source.attempt()
    assert source.flight.cooldown_left() == 1
    source.now += 1
    assert await source.attempt()
    assert source.calls == 2


async def test_failed_call_has_a_cooldown_of_its_own_and_leaves_the_result() -> None:
    source = Source()
    assert await source.attempt()
    source.now += 60
    source.error = OSError("away")
    assert not await source.attempt()
    assert (source.flight.failed, source.flight.result, source.flight.age()) == (True, 1, 60)
    source.now += 9
    assert not await source.attempt()
    assert source.calls == 2
    source.now += 1
    source.error = None
    assert await source.attempt()
    assert (source.flight.failed, source.flight.result, source.flight.age()) == (False, 3, 0)


async def test_cooldown_is_counted_from_the_end_of_the_call() -> None:
    source = Source()
    source.open.clear()
    source.error = OSError("away")
    waiting = asyncio.create_task(source.attempt())
    await asyncio.sleep(0)
    source.now += 30
    assert source.flight.cooldown_left() == 0  # a caller can join
    source.open.set()
    assert not await waiting
    assert source.flight.cooldown_left() == 10


async def test_error_of_a_call_reaches_all_who_wait_in_threads() -> None:
    source = Source()
    source.error = OSError("away")
    futures = [source.flight.in_thread(source.block, "a call") for _ in range(2)]
    source.thread_open.set()
    for future in futures:
        with pytest.raises(OSError, match="away"):
            future.result(DEADLINE)
    assert source.calls == 1


async def test_late_result_of_an_abandoned_call_does_not_replace_a_later_one() -> None:
    source = Source()
    late = source.flight.in_thread(source.block, "a call")
    source.flight.abandon(late)
    assert (source.flight.failed, source.flight.cooldown_left()) == (True, 10)
    source.now += 10
    assert await source.flight.attempt(lambda: asyncio.sleep(0, 7))
    source.thread_open.set()
    late.result(DEADLINE)
    assert (source.flight.result, source.flight.failed) == (7, False)


def test_nothing_is_kept_before_the_first_call() -> None:
    source = Source()
    assert (source.flight.result, source.flight.age(), source.flight.cooldown_left()) == (None, math.inf, 0)
    source.flight.keep(5)
    assert (source.flight.result, source.flight.age(), source.flight.cooldown_left()) == (5, 0, 60)


def test_call_that_ends_with_its_loop_does_not_block_the_next_loop() -> None:
    source = Source()

    async def leave() -> None:
        source.open.clear()
        source.flight.in_task(source.call)
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert source.flight.failed
    source.now += 10
    source.open = asyncio.Event()
    source.open.set()
    assert asyncio.run(source.attempt())


def test_thread_that_cannot_be_started_leaves_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    source = Source()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            source.flight.in_thread(source.block, "a call")
    assert not source.flight.running
    source.thread_open.set()
    assert source.flight.in_thread(source.block, "a call").result(DEADLINE) == 1


async def test_call_in_the_background_that_fails_is_not_reported_by_asyncio(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.error = OSError("away")
    source.flight.in_task(source.call)
    await ended(source.flight)
    del source
    assert caplog.text == ""
