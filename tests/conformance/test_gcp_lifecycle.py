"""The lifecycle contract on Google Cloud: stand-ins."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from standins.gcp.pubsub import PubSubStandIn
from support.gcp.messages import Operator
from support.gcp.messages import stand_in as pubsub_stand_in
from support.gcp.secrets import GCPSecretsHarness, secrets_of_a_test
from support.gcp.storage import PROJECT, GCSHarness, settings, stand_in, write_account
from totoms.environment import TotoEnvironment
from totoms.testing import LifecycleContract, LifecycleHarness
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.messages.bus import PubSubMessageBus


class GCPLifecycleHarness(LifecycleHarness):
    """One project: of buckets there is one of each name in all projects.

    Args:
        pubsub: The port of the stand-in for Pub/Sub.
        files: Makes buckets.
        secrets: Holds secrets.
    """

    def __init__(self, pubsub: int, files: GCSHarness, secrets: GCPSecretsHarness) -> None:
        self._operator = Operator(pubsub, PROJECT)
        self._files = files
        self._secrets = secrets

    def environment(self) -> TotoEnvironment:
        return TotoEnvironment("gcp", GCPConfiguration(project_id=PROJECT))

    async def create_topic(self) -> str:
        return await asyncio.to_thread(self._operator.make_topic)

    async def create_bucket(self) -> str:
        return await self._files.create_bucket()

    async def set_secret(self, name: str, value: str) -> None:
        await self._secrets.set_secret(name, value.encode())

    async def close(self) -> None:
        self._operator.close()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_account(tmp_path_factory.mktemp("account") / "key.json")


@pytest.fixture(scope="module")
def files(account: Path) -> Iterator[str]:
    with stand_in("gcp.gcs", "--account", str(account)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def messages() -> Iterator[PubSubStandIn]:
    with pubsub_stand_in() as server:
        yield server


@pytest.mark.quick
@pytest.mark.smoke
class TestGCPLifecycle(LifecycleContract):
    backend = "gcp"
    capabilities = PubSubMessageBus.capabilities

    @pytest.fixture
    async def harness(
        self, messages: PubSubStandIn, files: str, account: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[GCPLifecycleHarness]:
        monkeypatch.setitem(os.environ, "PUBSUB_EMULATOR_HOST", f"127.0.0.1:{messages.port}")
        with secrets_of_a_test() as secrets, settings(files, account) as configuration:
            made = GCPLifecycleHarness(messages.port, GCSHarness(files, configuration), secrets)
            yield made
            await made.close()
