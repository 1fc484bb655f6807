"""The lines in the log that say that the event loop stands still, where, and in which handler."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Iterator

import pytest
from fastapi import Request

from support.messages.kit import SUBSCRIPTION, Handler, MemoryBus, make_router
from totoms import (
    APIConfiguration,
    APIEndpoint,
    ExecutionContext,
    TotoMessage,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)
from totoms.logging.logger import TotoLogger
from totoms.loop_watch import LoopWatch
from totoms.testing import TestMicroservice

DEADLINE = 120.0


class Lines(logging.Handler):
    """Notes lines, and tells when one with a certain text has come, to whatever thread waits."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._news = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._news:
            self.lines.append(record.getMessage())
            self._news.notify_all()

    def wait_for(self, text: str) -> bool:
        with self._news:
            return self._news.wait_for(lambda: any(text in line for line in self.lines), DEADLINE)


@pytest.fixture
def lines() -> Iterator[Lines]:
    # Of a name of its own: a service of another test in this process may say the same.
    handler, logger = Lines(), logging.getLogger("totoms.watched")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def until_told(lines: Lines, text: str) -> None:
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.to_thread(lines.wait_for, text)


async def test_handler_that_blocks_the_loop_is_named_while_it_does_and_afterwards(lines: Lines) -> None:
    watch = LoopWatch(TotoLogger("watched"), lease_seconds=30.0, seconds=0.2)
    watch.start()

    def block_the_loop() -> None:
        assert lines.wait_for("has stood still")  # as a breakpoint does: nothing else runs on the loop meanwhile

    async def handler() -> None:
        block_the_loop()

    await handler()
    await until_told(lines, "loop stood still for")
    await until_told(lines, "Leases of 30 s were not renewed")
    watch.stop()
    for line in lines.lines:
        assert f"{__file__}:" in line
        assert "(Lines.wait_for)" in line, "the innermost code that is not a library's"
    assert ["has stood" in line for line in lines.lines] == [True, False]


async def test_message_handler_that_blocks_the_loop_is_named(bus: MemoryBus, lines: Lines) -> None:
    class AddToDigest(Handler): ...

    handler = AddToDigest(lambda _: lines.wait_for("has stood still"))
    router = make_router(handler)
    watch = LoopWatch(TotoLogger("watched"), seconds=0.2, handler_of=router.handler_of)
    watch.start()
    received = await bus.put(TotoMessage(type="postCreated"), SUBSCRIPTION)
    await asyncio.create_task(router.handle(received))
    await until_told(lines, "loop stood still for")
    watch.stop()
    for line in lines.lines:
        assert re.search(r"stood still for \d+\.\d s in handler AddToDigest, at .*test_watch\.py:\d+", line)


async def test_service_without_messages_is_watched(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("totoms.loop_watch._MAX_SECONDS", 0.2)

    @toto_delegate
    async def block(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> str:
        assert lines.wait_for("has stood still")
        return "done"

    api = APIConfiguration(api_endpoints=[APIEndpoint(method="GET", path="/block", delegate=block, public=True)])
    declared = TotoMicroserviceConfiguration(service_name="watched", api_configuration=api)
    # The process's logger, whatever its name is by now.
    monkeypatch.setattr(TotoLogger, "get_instance", lambda *_: TotoLogger("watched"))
    async with TestMicroservice(declared) as service:
        assert (await service.client_of(None).get("/block")).json() == "done"
        await until_told(lines, "loop stood still for")
    assert any("(Lines.wait_for)" in line for line in lines.lines)


async def test_standstill_without_leases_is_reported_without_them(lines: Lines) -> None:
    watch = LoopWatch(TotoLogger("watched"), seconds=0.2)
    watch.start()
    assert lines.wait_for("has stood still")
    await until_told(lines, "The event loop stood still for")
    watch.stop()
    assert "eases" not in "".join(lines.lines)


async def test_loop_that_turns_is_not_reported(lines: Lines) -> None:
    beats: list[float] = []
    watch = LoopWatch(TotoLogger("watched"), seconds=3600.0)
    watch.start()
    for _ in range(10):
        beats.append(time.monotonic())
        await asyncio.sleep(0)
    watch.stop()
    assert lines.lines == []


@pytest.mark.parametrize(("lease", "seconds"), [(0.0, 2.0), (30.0, 2.0), (3.0, 1.0)])
async def test_short_leases_are_watched_more_closely(lease: float, seconds: float) -> None:
    assert LoopWatch(TotoLogger("watched"), lease)._seconds == seconds
