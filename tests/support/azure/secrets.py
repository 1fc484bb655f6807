"""Key Vault under the secrets contract: the stand-in, and an identity for the service."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from standins.azure.entra import EntraStandIn
from standins.azure.key_vault import KeyVaultStandIn
from totoms.environment import TotoEnvironment
from totoms.errors import Unsupported
from totoms.testing import SecretsManagerHarness
from totoms_azure import clients, secrets
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.secrets import identifier_of


@contextlib.contextmanager
def identity(entra: EntraStandIn, ca_file: str = "") -> Iterator[pytest.MonkeyPatch]:
    """Have the SDK find the managed identity of `entra`, trust `ca_file`, and nothing of the developer's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "MSI_"))]:
            patch.delenv(name)
        patch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        for name, value in entra.variables.items():
            patch.setenv(name, value)
        if ca_file:
            patch.setenv("REQUESTS_CA_BUNDLE", ca_file)
        clients.CLIENTS.close()
        try:
            yield patch
        finally:
            clients.CLIENTS.close()


class AzureSecretsHarness(SecretsManagerHarness):
    """Secrets of a vault of the test's own."""

    def __init__(self, vault: KeyVaultStandIn, entra: EntraStandIn) -> None:
        super().__init__()
        self.vault = vault
        self.entra = entra
        self._environment = TotoEnvironment("azure", AzureConfiguration(key_vault_url=vault.url))

    @property
    def environment(self) -> TotoEnvironment:
        return self._environment

    async def set_secret(self, name: str, value: bytes | None) -> str | None:
        identifier = identifier_of(name)
        if value is None:
            del self.vault.secrets[identifier]
            return None
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise Unsupported("Key Vault holds text.") from None
        return self.vault.set(identifier, text)

    async def deny(self, name: str) -> None:
        self.vault.denied.add(identifier_of(name))

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self.vault.stop()
        try:
            yield
        finally:
            self.vault.start()

    async def close(self) -> None: ...


@contextlib.contextmanager
def secrets_of_a_test() -> Iterator[AzureSecretsHarness]:
    """Give a vault with its operator; it ends with the block."""
    with EntraStandIn() as entra, KeyVaultStandIn(entra) as vault, identity(entra, vault.ca_file) as patch:
        # Many of the contract's outages are met by each way to read: they need not all last as long.
        patch.setattr(secrets, "_OPTIONS", {**secrets._OPTIONS, "retry_total": 1, "retry_backoff_factor": 0.05})
        yield AzureSecretsHarness(vault, entra)
