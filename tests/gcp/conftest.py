"""A broker and a bucket: stand-ins in this process for Pub/Sub and Cloud Storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from standins.gcp.gcs import GCSStandIn
from standins.gcp.gcs_objects import Store
from support.gcp.messages import Broker
from support.gcp.storage import settings
from totoms import CloudStorage, TotoEnvironment
from totoms_gcp import clients
from totoms_gcp.configuration import GCPConfiguration


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GCSStandIn]:
    # What is tried again is tried again at once.
    monkeypatch.setattr(clients, "_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(clients, "RETRY", clients.RETRY.with_delay(0.01, 0.01).with_timeout(0.5))
    with GCSStandIn() as made, settings(made.address):
        made.store.buckets["a-bucket"] = {}
        yield made


@pytest.fixture
def store(server: GCSStandIn) -> Store:
    return server.store


@pytest.fixture
def bucket(server: GCSStandIn) -> CloudStorage:
    return CloudStorage("a-bucket", environment=TotoEnvironment("gcp", GCPConfiguration(project_id="project-one")))


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as made:
        yield made
