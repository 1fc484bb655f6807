"""The contract of the message bus, held against the local backend: in one process, in several, by a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.local.messages import LocalMessageBusHarness, ProcessesHarness, VirtualHarness
from support.local.remote_bus import BusProcesses
from totoms.local.messages.bus import LocalMessageBus
from totoms.testing import MessageBusContract


@pytest.fixture(scope="module")
def processes() -> Iterator[BusProcesses]:
    made = BusProcesses()
    yield made
    made.close()


class TestLocalBus(MessageBusContract):
    backend = "local"
    capabilities = LocalMessageBus.capabilities
    arrangement = "one process"

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[LocalMessageBusHarness]:
        made = LocalMessageBusHarness(tmp_path / "root")
        yield made
        await made.close()


class TestLocalBusInSeveralProcesses(MessageBusContract):
    backend = "local"
    capabilities = LocalMessageBus.capabilities
    arrangement = "several processes"

    @pytest.fixture
    async def harness(self, tmp_path: Path, processes: BusProcesses) -> AsyncIterator[ProcessesHarness]:
        made = ProcessesHarness(tmp_path / "root", processes)
        yield made
        await made.close()


class TestLocalBusByAVirtualClock(MessageBusContract):
    backend = "local"
    capabilities = LocalMessageBus.capabilities
    arrangement = "virtual clock"

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[VirtualHarness]:
        made = VirtualHarness(tmp_path / "root")
        yield made
        await made.close()
