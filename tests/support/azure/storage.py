"""Blob Storage under the storage contract: Azurite, and its account."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.storage.blob import BlobServiceClient, ContentSettings

from standins.ports import free_port
from support.emulators import kept
from totoms import CloudStorage
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.testing import CloudStorageHarness
from totoms_azure import clients
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.storage import storage as blob_storage

_PLACE = Path(__file__).parents[3] / "tools" / "azurite.py"
_SPEC = importlib.util.spec_from_file_location("azurite", _PLACE)
assert _SPEC is not None
assert _SPEC.loader is not None
azurite = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(azurite)
_START_SECONDS = 120.0


def require_azurite(port: int = 0) -> list[str]:
    """Return the command that runs it. Where it cannot be had the tests are skipped, or fail."""
    try:
        command: list[str] = azurite.command(port)
    except FileNotFoundError as error:
        told = f"NOT TESTED: {error}"
        if os.environ.get("TOTOMS_REQUIRE_EMULATORS") == "1":
            pytest.fail(told, pytrace=False)
        pytest.skip(told)
    return command


@contextmanager
def run_azurite() -> Iterator[int]:
    """Run Azurite; give its port."""
    port = free_port()
    with kept(require_azurite(port)):
        _wait_for(port)
        yield port


def _wait_for(port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("Azurite did not start.")


def hurried(patch: pytest.MonkeyPatch) -> None:
    """Have what is tried again tried again at once."""
    at_once = {"initial_backoff": 0, "increment_base": 0.01, "random_jitter_range": 0}
    patch.setattr(blob_storage, "_OPTIONS", {**blob_storage._OPTIONS, **at_once})


def files(name: str, **settings: Any) -> CloudStorage:
    """Return a container under settings of the test's own."""
    return CloudStorage(name, environment=TotoEnvironment("azure", AzureConfiguration(**settings)))


class BlobHarness(CloudStorageHarness):
    """Containers of an account.

    Args:
        connection_string: The service's.
        operator: The operator's, if it is another.
    """

    def __init__(self, connection_string: str, operator: str = "") -> None:
        configuration = AzureConfiguration(storage_connection_string=connection_string)
        self._environment = TotoEnvironment("azure", configuration)
        self.operator = BlobServiceClient.from_connection_string(operator or connection_string)
        self.missing_bucket = f"missing-{new_cid()}"

    @property
    def environment(self) -> TotoEnvironment:
        return self._environment

    async def create_bucket(self) -> str:
        name = f"bucket-{new_cid()}"
        await asyncio.to_thread(self.operator.create_container, name)
        return name

    async def store_encoded(self, bucket: str, key: str, content: bytes, encoding: str) -> None:
        blob = self.operator.get_blob_client(bucket, key)
        settings = ContentSettings(content_encoding=encoding)
        await asyncio.to_thread(blob.upload_blob, content, overwrite=True, content_settings=settings)

    async def fetch(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        # Blob Storage asks every client that uploads to say what kind of blob it shall be.
        kind = {"x-ms-blob-type": "BlockBlob"} if method == "PUT" else {}
        return await super().fetch(method, url, content, {**kind, **(headers or {})})

    async def close(self) -> None:
        self.operator.close()
        clients.CLIENTS.close()
