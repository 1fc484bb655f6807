"""Failures inside the writer of the local bus: no message is lost, no caller waits forever, the next write works."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from support.local.bus import BLOG, POSTS, Clock, nothing_comes, open_bus, publish, receive, receive_exactly
from totoms import TotoMessage
from totoms.errors import BackendError, Unavailable
from totoms.local.messages import rows
from totoms.local.messages.bus import LocalMessageBus

BROKEN = [
    pytest.param(sqlite3.OperationalError("disk I/O error"), Unavailable, id="disk"),
    pytest.param(sqlite3.OperationalError("database is locked"), Unavailable, id="locked"),
    pytest.param(RuntimeError("a defect"), BackendError, id="defect"),
]


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, *, after: bool = False) -> list[str]:
    """Let `owner.name` fail once; return a list that is filled when it has."""
    real: Callable[..., Any] = getattr(owner, name)
    failed: list[str] = []

    def broken(*arguments: Any, **options: Any) -> Any:
        if failed:
            return real(*arguments, **options)
        failed.append(name)
        if after:
            real(*arguments, **options)
        raise error

    monkeypatch.setattr(owner, name, broken)
    return failed


async def until_failed(bus: Any, failed: list[str]) -> None:
    async with asyncio.timeout(120):
        while not failed:
            bus._get_writer().nudge()
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("step", ["begin", "commit"])
@pytest.mark.parametrize(("error", "told"), BROKEN)
async def test_transaction_that_fails_is_reported_and_the_consumer_waits_on(
    bus: LocalMessageBus, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, told: type[Exception]
) -> None:
    waiting = asyncio.ensure_future(bus._receive(BLOG, 2, 20))
    await asyncio.sleep(0)
    once(monkeypatch, bus._get_writer()._database, step, error)
    results = await asyncio.gather(*(publish(bus, number) for number in range(3)), return_exceptions=True)
    for result in results:
        assert isinstance(result, (list, told))
    assert any(isinstance(result, told) for result in results)
    ids = {one for result in results if isinstance(result, list) for one in result} | set(await publish(bus, 9))
    got = {one.message_id for one in await waiting}
    if ids - got:
        got |= {one.message_id for one in await receive_exactly(bus, len(ids - got))}
    assert got == ids
    assert await nothing_comes(bus)


@pytest.mark.parametrize("step", ["lease", "next_due", "insert"])
@pytest.mark.parametrize(("error", "told"), BROKEN)
async def test_consumer_survives_a_failure_of_any_statement(
    bus: LocalMessageBus,
    another: Callable[..., LocalMessageBus],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
    told: type[Exception],
) -> None:
    publisher = another(process=True)
    failed = once(monkeypatch, rows, step, error, after=step == "lease")
    waiting = asyncio.ensure_future(bus._receive(BLOG, 5, 20))
    ids = []
    for number in range(3):
        try:
            ids += await publish(publisher, number)
        except told:
            assert step == "insert"
    await until_failed(bus, failed)
    got = [one.message_id for one in await waiting]
    if len(got) < len(ids):
        got += [one.message_id for one in await receive_exactly(bus, len(ids) - len(got))]
    assert sorted(got) == sorted(ids)


async def test_look_for_messages_that_fails_does_not_end_the_writer(
    bus: LocalMessageBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.ensure_future(bus._receive(BLOG, 1, 20))
    await asyncio.sleep(0)
    failed = once(monkeypatch, bus._get_writer()._database, "changed", RuntimeError("a defect"))
    await until_failed(bus, failed)
    ids = await publish(bus, 1)
    assert [one.message_id for one in await waiting] == ids


async def test_settling_that_fails_changes_nothing(
    bus: LocalMessageBus, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(bus, 1, 2)
    one, other = await receive_exactly(bus, 2)
    database = bus._get_writer()._database
    for settle in (lambda: bus._ack([one]), lambda: bus._nack(other, 0), lambda: bus._release([one, other])):
        with monkeypatch.context() as patched:
            once(patched, database, "commit", sqlite3.OperationalError("database or disk is full"))
            with pytest.raises(Unavailable):
                await settle()
    assert await bus._ack([one, other]) == [None, None]
    clock.advance(1000)
    assert await nothing_comes(bus)


async def test_operation_that_fails_harms_no_other_of_its_transaction(bus: LocalMessageBus) -> None:
    await publish(bus, 1, 2)
    one, other = await receive_exactly(bus, 2)
    results = await asyncio.gather(
        publish(bus, 3),
        bus._do(lambda connection: connection.execute("SELECT ?", ("\ud800",))),
        bus._list_dead_letters(BLOG.name, 1 << 80),
        bus._ack([one]),
        bus._do(lambda connection: {}["nothing"]),
        bus._nack(other, 0),
        return_exceptions=True,
    )
    assert [isinstance(result, BackendError) for result in results] == [False, True, True, False, True, False]
    assert len(await receive_exactly(bus, 2)) == 2


async def test_cancelled_publication_is_published_all_the_same_or_not_at_all(bus: LocalMessageBus) -> None:
    tasks = [asyncio.ensure_future(publish(bus, number)) for number in range(30)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    told = {one for result in results if isinstance(result, list) for one in result}
    assert len(told) >= 15
    got: set[str] = set()
    while not told <= got:
        got |= {one.message_id for one in await receive_exactly(bus, 1)}
    assert len(got) <= 30


async def test_many_threads_subscribe_publish_and_close_at_once(local_root: str) -> None:
    """Each thread has an event loop, a bus and a subscription of its own; all share one writer that comes and goes."""
    problems: list[BaseException] = []

    async def life(number: int) -> None:
        dice, subscription = random.Random(number), replace(BLOG, name=f"posts-{number}")
        for _ in range(6):
            async with open_bus(local_root) as bus:
                await bus._subscribe(subscription, create=True)
                mine = set(await publish(bus, *range(dice.randint(1, 5))))
                seen: set[str] = set()
                while not mine <= seen:
                    batch = await receive(bus, subscription, 4)
                    seen |= {one.message_id for one in batch}
                    await bus._ack(batch)

    def run(number: int) -> None:
        try:
            asyncio.run(life(number))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert problems == []


@pytest.mark.parametrize("process", [False, True], ids=["other bus", "other process"])
async def test_log_and_database_do_not_grow_with_what_passed_through(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], process: bool
) -> None:
    await flow(bus, another(process=process), batches=30, size=500)


@pytest.mark.faults
@pytest.mark.parametrize("process", [False, True], ids=["other bus", "other process"])
async def test_log_and_database_do_not_grow_with_a_hundred_thousand(
    bus: LocalMessageBus, another: Callable[..., LocalMessageBus], process: bool, figure: Any
) -> None:
    biggest = await flow(bus, another(process=process), batches=200, size=500)
    figure(
        f"100,000 messages of 1 kB pass through ({'two writers' if process else 'one'})",
        f"{biggest >> 20} MiB on disk",
    )


async def flow(bus: LocalMessageBus, publisher: LocalMessageBus, *, batches: int, size: int) -> int:
    biggest = 0
    data = {"text": "x" * 1000}
    for _ in range(batches):
        await publisher.publish_messages(POSTS, [TotoMessage(type="number", data=data) for _ in range(size)])
        assert await bus._ack(await receive_exactly(bus, size)) == [None] * size
        biggest = max(biggest, sum(file.stat().st_size for file in bus._root.iterdir()))
    assert biggest < 64 << 20, "two logs of 8 MiB, twice over, and what was on its way"
    return biggest
