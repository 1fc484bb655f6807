"""One time limit for many tasks."""

from __future__ import annotations

import asyncio

from totoms.messages.deadlines import Deadlines


async def watched(deadlines: Deadlines, work: asyncio.Event | None = None) -> str:
    task = asyncio.current_task()
    assert task is not None
    deadlines.begin(task, "AddToDigest")
    try:
        await (work or asyncio.Event()).wait()
    except asyncio.CancelledError:
        deadlines.end(task)
        return "cancelled by somebody" if task.cancelling() else "too late"
    deadlines.end(task)
    return "in time"


async def test_tasks_over_the_limit_are_cancelled_and_can_go_on() -> None:
    deadlines = Deadlines(0.001)
    assert await asyncio.gather(*(watched(deadlines) for _ in range(5))) == ["too late"] * 5


async def test_later_tasks_have_their_own_time() -> None:
    deadlines = Deadlines(0.001)
    assert await watched(deadlines) == "too late"
    assert await watched(deadlines) == "too late"


async def test_task_that_ends_in_time_is_left_alone() -> None:
    deadlines, done = Deadlines(60.0), asyncio.Event()
    task = asyncio.create_task(watched(deadlines, done))
    await asyncio.sleep(0)
    done.set()
    assert await task == "in time"
    assert task.cancelling() == 0


async def test_cancellation_by_another_task_is_not_a_timeout() -> None:
    task = asyncio.create_task(watched(Deadlines(60.0)))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cancelled by somebody"
