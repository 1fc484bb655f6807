"""A namespace of Service Bus, and a container of Blob Storage behind a proxy that fails on command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from standins.azure.blob_proxy import BlobProxy
from standins.azure.service_bus.server import ServiceBusStandIn
from support.azure.messages import Namespace, collect, stand_in
from support.azure.storage import azurite, files, hurried, run_azurite
from totoms import CloudStorage
from totoms.context import new_cid
from totoms_azure import clients


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusStandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
async def namespace(server: ServiceBusStandIn) -> AsyncIterator[Namespace]:
    async with Namespace(server) as made:
        yield made


@pytest.fixture(scope="session")
def azurite_port() -> Iterator[int]:
    with run_azurite() as running:
        yield running


@pytest.fixture
def proxy(azurite_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobProxy]:
    hurried(monkeypatch)
    with BlobProxy(azurite_port) as made:
        yield made
    clients.CLIENTS.close()
    collect()


@pytest.fixture
def operator(azurite_port: int) -> Iterator[ContainerClient]:
    """The container, reached without the proxy."""
    with BlobServiceClient.from_connection_string(azurite.connection_string(azurite_port)) as service:
        yield service.create_container(f"bucket-{new_cid()}")


@pytest.fixture
def bucket(proxy: BlobProxy, operator: ContainerClient) -> CloudStorage:
    return files(operator.container_name, storage_connection_string=azurite.connection_string(proxy.port))
