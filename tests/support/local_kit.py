"""Buses of the local backend on one root folder, and a clock under the test's hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from totoms import MessageDestination, TotoMessage
from totoms.envelope import Received, Subscription
from totoms.environment import TotoEnvironment
from totoms.local.bus import LocalMessageBus
from totoms.local.configuration import LocalConfiguration

DEADLINE = 20.0
TOPICS = {"posts": "posts-topic", "likes": "likes-topic"}
POSTS = MessageDestination(topic="posts")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Kit:
    """Buses on one root folder, and the steps that every test takes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.buses: list[LocalMessageBus] = []

    def bus(self, *, own_writer: bool = False) -> LocalMessageBus:
        """A bus. With `own_writer` it shares nothing with the others but the files, as in a process of its own."""
        from totoms.local import bus as module
        from totoms.local.database import Database
        from totoms.local.writer import Writer

        configuration = LocalConfiguration(root=self.root)
        made = LocalMessageBus(TotoEnvironment("local", configuration), TOPICS)
        if own_writer:
            made._writer = Writer(Database(configuration.root))
            made._writer.users = 1
            assert module._writers.get(configuration.root) is not made._writer
        self.buses.append(made)
        made._writer_of().clock = self.clock
        return made

    @staticmethod
    def subscription(name: str = "blog-posts", topic: str = "posts-topic", *, ordered: bool = False) -> Subscription:
        return Subscription(name, topic, topic.removesuffix("-topic"), ordered=ordered)

    async def consumer(self, *, own_writer: bool = False, **options: Any) -> tuple[LocalMessageBus, Subscription]:
        bus, subscription = self.bus(own_writer=own_writer), self.subscription(**options)
        await bus._subscribe(subscription, create=True)
        return bus, subscription

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        for bus in self.buses:
            if bus._writer is not None:
                bus._writer.nudge()

    @staticmethod
    async def publish(bus: LocalMessageBus, *numbers: int, **options: Any) -> list[str]:
        return [
            await bus.publish_message(POSTS, TotoMessage(type="number", id=str(number), data={"n": number}), **options)
            for number in numbers
        ]

    @staticmethod
    async def get(bus: LocalMessageBus, subscription: Subscription, number: int = 1) -> list[Received]:
        """Receive exactly `number` messages."""
        got: list[Received] = []
        async with asyncio.timeout(DEADLINE):
            while len(got) < number:
                got += await bus._receive(subscription, number - len(got), DEADLINE)
        return got

    @staticmethod
    async def nothing(bus: LocalMessageBus, subscription: Subscription) -> bool:
        """Whether nothing is to be had now.

        First the writer does two transactions: in the first a waiting consumer may become known, in the second at the
        latest it is served.
        """
        waiting = asyncio.ensure_future(bus._receive(subscription, 100, DEADLINE))
        for _ in range(3):
            await asyncio.sleep(0)
            await bus._do(lambda connection: None)  # a transaction
        empty = not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return empty
