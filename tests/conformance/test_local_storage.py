"""The storage contract, held against the local backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from support.local.storage import LocalStorageHarness
from support.local.storage_processes import ProcessCloudStorage, StorageProcesses
from totoms.local.storage.storage import LocalCloudStorage
from totoms.testing import CloudStorageContract


@pytest.fixture(scope="module")
def processes() -> Iterator[StorageProcesses]:
    made = StorageProcesses(3)
    yield made
    made.close()


class TestLocalStorage(CloudStorageContract):
    backend = "local"
    arrangement = "one process"
    capabilities = LocalCloudStorage.capabilities

    @pytest.fixture
    async def harness(self, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStorageHarness]:
        made = LocalStorageHarness(tmp_path_factory.mktemp("root"))
        yield made
        await made.close()


class TestLocalStorageAmongProcesses(CloudStorageContract):
    backend = "local"
    arrangement = "several processes"
    capabilities = LocalCloudStorage.capabilities

    @pytest.fixture
    async def harness(
        self, tmp_path_factory: pytest.TempPathFactory, processes: StorageProcesses
    ) -> AsyncIterator[LocalStorageHarness]:
        ProcessCloudStorage.processes = processes
        made = LocalStorageHarness(tmp_path_factory.mktemp("root"), ProcessCloudStorage)
        yield made
        await made.close()
