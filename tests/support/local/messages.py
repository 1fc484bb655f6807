"""What the contract of the message bus needs of the local backend, for it and for broken variants of it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from support.local.remote_bus import BusProcesses, RemoteBus
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError
from totoms.local.configuration import LocalConfiguration
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.bus import MessageBus
from totoms.messages.outgoing import Outgoing
from totoms.messages.subscription import Subscription
from totoms.testing import MessageBusHarness


class LocalMessageBusHarness(MessageBusHarness):
    """Buses on one folder, in one process."""

    def __init__(self, root: Path, bus_class: type[LocalMessageBus] = LocalMessageBus) -> None:
        self._root = root
        self._bus_class = bus_class
        self._buses: list[MessageBus] = []

    async def create_topic(self) -> str:
        return f"topic-{new_cid()}"

    async def missing_topic(self) -> None:
        return None

    async def connect(self, topics: Mapping[str, str]) -> MessageBus:
        made = self._make(topics)
        self._buses.append(made)
        return made

    def _make(self, topics: Mapping[str, str]) -> MessageBus:
        bus_class = type(self._bus_class.__name__, (self._bus_class,), {"lease_seconds": self.lease_seconds})
        made: MessageBus = bus_class(self._environment(), topics)
        return made

    def _environment(self) -> TotoEnvironment:
        return TotoEnvironment("local", LocalConfiguration(root=self._root))

    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        bus = await self.connect({})
        await bus._publish([Outgoing(body, new_cid(), attributes, topic)])

    def outage(self) -> AbstractAsyncContextManager[None]:
        return self._write_lock_held()

    @contextlib.asynccontextmanager
    async def _write_lock_held(self) -> AsyncIterator[None]:
        connection = sqlite3.connect(
            self._root / "bus.sqlite3", timeout=self.patience, isolation_level=None, check_same_thread=False
        )
        try:
            await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
        finally:
            await asyncio.to_thread(connection.close)

    async def delete_subscription(self, subscription: Subscription) -> bool:
        def delete() -> None:
            with contextlib.closing(sqlite3.connect(self._root / "bus.sqlite3", timeout=self.patience)) as connection:
                query = "DELETE FROM deliveries WHERE subscription = (SELECT id FROM subscriptions WHERE name = ?)"
                connection.execute(query, (subscription.name,))
                connection.execute("DELETE FROM subscriptions WHERE name = ?", (subscription.name,))
                connection.commit()

        await asyncio.to_thread(delete)
        return True

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses))


class VirtualHarness(LocalMessageBusHarness):
    """As above; the broker's clock stands still until it is moved."""

    virtual_clock = True
    lease_seconds = short_lease_seconds = 0.5

    def __init__(self, root: Path, bus_class: type[LocalMessageBus] = LocalMessageBus) -> None:
        super().__init__(root, bus_class)
        self._now = 1_000_000.0
        self._refused: set[bytes] = set()

    def _make(self, topics: Mapping[str, str]) -> MessageBus:
        made = super()._make(topics)
        assert isinstance(made, LocalMessageBus)
        made._get_writer().clock = lambda: self._now
        publish = made._publish

        async def refusing(batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
            bad = [any(marker in one.body for marker in self._refused) for one in batch]
            if any(bad) and getattr(made, "fails_whole", False):
                return [BackendError("Refused by the test.") for _ in batch]
            sent = iter(await publish([one for one, refused in zip(batch, bad, strict=True) if not refused]))
            return [BackendError("Refused by the test.") if refused else next(sent) for refused in bad]

        made._publish = refusing  # type: ignore[method-assign]
        return made

    async def refuse(self, marker: str) -> bool:
        self._refused.add(marker.encode())
        return True

    async def advance(self, seconds: float) -> None:
        self._now += seconds
        for bus in self._buses:
            if isinstance(bus, LocalMessageBus) and bus._writer is not None:
                bus._writer.nudge()


class ProcessesHarness(LocalMessageBusHarness):
    """Each bus in a process of its own, on one folder."""

    def __init__(self, root: Path, processes: BusProcesses) -> None:
        super().__init__(root)
        self._processes = processes

    def _make(self, topics: Mapping[str, str]) -> MessageBus:
        made = RemoteBus(self._environment(), topics)
        made.fork_from(self._processes, lease_seconds=self.lease_seconds)
        return made
