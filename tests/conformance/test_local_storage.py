"""The storage contract, held against the local backend."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from local_storage_kit import LocalStorageHarness
from totoms.local.storage import LocalCloudStorage
from totoms.testing import CloudStorageContract


class TestLocalStorage(CloudStorageContract):
    backend = "local"
    arrangement = "one process"
    capabilities = LocalCloudStorage.capabilities

    @pytest.fixture
    async def harness(self, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStorageHarness]:
        made = LocalStorageHarness(tmp_path_factory.mktemp("root"))
        yield made
        await made.close()
