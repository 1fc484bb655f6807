"""A bucket of Cloud Storage, for which a stand-in in this process stands in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gcp_storage_kit import settings
from gcs import GCSStandIn
from gcs_objects import Store
from totoms import CloudStorage, TotoEnvironment
from totoms_gcp import gcs_calls
from totoms_gcp.configuration import GCPConfiguration


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GCSStandIn]:
    # What is tried again is tried again at once.
    monkeypatch.setattr(gcs_calls, "_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(gcs_calls, "RETRY", gcs_calls.RETRY.with_delay(0.01, 0.01).with_timeout(0.5))
    with GCSStandIn() as made, settings(made.address):
        made.store.buckets["a-bucket"] = {}
        yield made


@pytest.fixture
def store(server: GCSStandIn) -> Store:
    return server.store


@pytest.fixture
def bucket(server: GCSStandIn) -> CloudStorage:
    return CloudStorage("a-bucket", environment=TotoEnvironment("gcp", GCPConfiguration(project_id="project-one")))
