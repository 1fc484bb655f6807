"""Steps that tests of the local bus take, and its files as a killed process leaves them."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import totoms.plugins.loader  # noqa: F401 - tells the interfaces where to find the implementations
from support.messages.by_name import ByName
from totoms.environment import TotoEnvironment
from totoms.local.configuration import LocalConfiguration
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.message import MessageDestination, TotoMessage
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

DEADLINE = 120.0
LEASE = LocalMessageBus.lease_seconds
TOPIC = "posts-topic"
POSTS = MessageDestination(topic="posts")
BLOG = Subscription("blog-posts", TOPIC, "posts")
MAIL = Subscription("mail-posts", TOPIC, "posts")
FILES = ("bus.sqlite3", "bus.sqlite3-wal", "bus.sqlite3-shm", "bus.state")


class BusOfTests(ByName, LocalMessageBus):
    """The local bus, whose receivers are reached by their subscription."""


class Clock:
    """Stands still until it is advanced; then wakes the writers that go by it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self._buses: list[LocalMessageBus] = []

    def __call__(self) -> float:
        return self.now

    def drive(self, bus: BusOfTests) -> None:
        bus._get_writer().clock = self
        self._buses.append(bus)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for bus in self._buses:
            if bus._writer is not None:
                bus._writer.nudge()


def make_bus(root: Path | str, clock: Clock | None = None, cls: type[LocalMessageBus] | None = None) -> Any:
    """Make a bus on a folder. Buses of one folder share a writer; name the folder by a link to have another."""
    bus = (cls or BusOfTests)(TotoEnvironment("local", LocalConfiguration(root=Path(root))), {"posts": TOPIC})
    if clock is not None:
        clock.drive(bus)
    return bus


@asynccontextmanager
async def open_bus(root: Path | str, clock: Clock | None = None) -> AsyncIterator[BusOfTests]:
    bus = make_bus(root, clock)
    try:
        yield bus
    finally:
        await bus.close()


async def publish(bus: BusOfTests, *numbers: int, **options: Any) -> list[str]:
    """Publish a message for each number, one after another; return their ids."""
    return [
        await bus.publish_message(POSTS, TotoMessage(type="posted", data={"number": number}), **options)
        for number in numbers
    ]


def number_of(received: Received) -> int:
    return int(received.body.split(b'"number":')[1].split(b"}")[0])


async def receive(
    bus: BusOfTests, subscription: Subscription = BLOG, most: int = 10, *, wait: float = DEADLINE
) -> list[Received]:
    async with asyncio.timeout(DEADLINE + 1):
        return await bus._receive(subscription, most, wait)


async def receive_one(bus: BusOfTests, subscription: Subscription = BLOG) -> Received:
    (one,) = await receive(bus, subscription, 1)
    return one


async def receive_exactly(bus: BusOfTests, number: int, subscription: Subscription = BLOG) -> list[Received]:
    got: list[Received] = []
    while len(got) < number:
        batch = await receive(bus, subscription, number - len(got))
        assert batch, f"only {len(got)} came"
        got += batch
    return got


async def receive_numbers(bus: BusOfTests, wanted: int, subscription: Subscription = BLOG) -> list[int]:
    """Receive and ack until there were `wanted` messages; return their numbers in the order they came."""
    numbers: list[int] = []
    while len(numbers) < wanted:
        batch = await receive(bus, subscription, wanted - len(numbers))
        assert batch, f"only {numbers} came"
        assert await bus._ack(batch) == [None] * len(batch)
        numbers += map(number_of, batch)
    return numbers


async def receive_now(bus: BusOfTests, subscription: Subscription = BLOG, most: int = 1000) -> list[Received]:
    """Receive all messages that are due now, without waiting for more."""
    waiting = asyncio.ensure_future(bus._receive(subscription, most, DEADLINE))
    try:
        await settled(bus)
    finally:
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting})
    if waiting.cancelled():
        await settled(bus)
        return []
    return await waiting


async def nothing_comes(bus: BusOfTests, subscription: Subscription = BLOG) -> bool:
    """Whether nothing is to be had now."""
    batch = await receive_now(bus, subscription)
    if batch:
        await bus._release(batch)
    return not batch


async def settled(bus: BusOfTests) -> None:
    """Wait until the writer has done all that was asked of it, and what follows from that."""
    for _ in range(3):
        await bus._do(lambda _connection: None)
        await asyncio.sleep(0)


def rows_of(root: Path | str, sql: str) -> list[Any]:
    """What any other connection sees in the database: what is committed."""
    with closing(sqlite3.connect(Path(root) / "bus.sqlite3")) as connection:
        return connection.execute(sql).fetchall()


def crash_image(root: Path | str, to: Path) -> Path:
    """Copy the files as they are while the bus is at rest: what a process that is killed now leaves."""
    to.mkdir()
    for file in FILES:
        if (Path(root) / file).exists():
            shutil.copyfile(Path(root) / file, to / file)
    (to / "bus.sqlite3-shm").unlink(missing_ok=True)
    shutil.copyfile(Path(root) / "bus.sqlite3-shm", to / "bus.sqlite3-shm")
    return to
