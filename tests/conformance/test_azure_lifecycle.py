"""The lifecycle contract on Azure: Azurite and stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from standins.azure.entra import EntraStandIn
from standins.azure.key_vault import KeyVaultStandIn
from standins.azure.service_bus.server import ServiceBusStandIn
from support.azure.messages import stand_in
from support.azure.secrets import AzureSecretsHarness, identity
from support.azure.storage import BlobHarness, azurite, run_azurite
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.testing import LifecycleContract, LifecycleHarness
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.messages.bus import AzureMessageBus


class AzureLifecycleHarness(LifecycleHarness):
    """Two namespaces and two accounts, and one vault.

    Args:
        namespaces: What stand in for Service Bus.
        accounts: Make containers.
        secrets: Holds secrets.
    """

    def __init__(
        self, namespaces: list[ServiceBusStandIn], accounts: list[BlobHarness], secrets: AzureSecretsHarness
    ) -> None:
        self._namespaces = namespaces
        self._accounts = accounts
        self._secrets = secrets

    def environment(self) -> TotoEnvironment:
        return self._environment(0)

    def second_environment(self) -> TotoEnvironment:
        return self._environment(1)

    def _environment(self, number: int) -> TotoEnvironment:
        account = self._accounts[number].environment.hyperscaler_configuration
        configuration = AzureConfiguration(
            key_vault_url=self._secrets.vault.url,
            storage_connection_string=account.storage_connection_string,
            servicebus_connection_string=self._namespaces[number].connection_string,
        )
        return TotoEnvironment("azure", configuration)

    async def create_topic(self) -> str:
        name = f"topic-{new_cid()}"
        for namespace in self._namespaces:
            await asyncio.to_thread(namespace.make_topic, name)
        return name

    async def create_bucket(self) -> str:
        name = f"bucket-{new_cid()}"
        for account in self._accounts:
            await asyncio.to_thread(account.operator.create_container, name)
        return name

    async def set_secret(self, name: str, value: str) -> None:
        await self._secrets.set_secret(name, value.encode())

    async def close(self) -> None:
        for account in self._accounts:
            await account.close()


@pytest.fixture(scope="module")
def namespaces() -> Iterator[list[ServiceBusStandIn]]:
    with stand_in() as one, stand_in() as other:
        yield [one, other]


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    with run_azurite() as one, run_azurite() as other:
        yield [one, other]


@pytest.mark.quick
@pytest.mark.smoke
class TestAzureLifecycle(LifecycleContract):
    backend = "azure"
    capabilities = AzureMessageBus.capabilities

    @pytest.fixture
    async def harness(
        self, namespaces: list[ServiceBusStandIn], ports: list[int], tmp_path: Path
    ) -> AsyncIterator[AzureLifecycleHarness]:
        with EntraStandIn() as entra, KeyVaultStandIn(entra) as vault:
            authorities = tmp_path / "authorities.pem"
            files = [vault.ca_file, *(one.ca_file for one in namespaces)]
            authorities.write_text("".join(Path(file).read_text() for file in files))
            with identity(entra, str(authorities)):
                accounts = [BlobHarness(azurite.connection_string(port)) for port in ports]
                made = AzureLifecycleHarness(namespaces, accounts, AzureSecretsHarness(vault, entra))
                yield made
                await made.close()
