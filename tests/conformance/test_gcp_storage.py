"""The storage contract on Cloud Storage: a stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.gcp.storage import GCSHarness, settings, stand_in, write_account
from totoms.testing import CloudStorageContract
from totoms_gcp.storage.storage import GCSCloudStorage


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_account(tmp_path_factory.mktemp("account") / "key.json")


@pytest.fixture(scope="module")
def port(account: Path) -> Iterator[int]:
    with stand_in("gcp.gcs", "--account", str(account)) as running:
        yield running


class TestGCSStorage(CloudStorageContract):
    backend = "gcp"
    capabilities = GCSCloudStorage.capabilities
    arrangement = "stand-in"

    @pytest.fixture
    async def harness(self, port: int, account: Path) -> AsyncIterator[GCSHarness]:
        address = f"http://127.0.0.1:{port}"
        with settings(address, account) as configuration:
            yield GCSHarness(address, configuration)
