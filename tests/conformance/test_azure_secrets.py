"""The secrets contract on Key Vault: a stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.azure.secrets import AzureSecretsHarness, secrets_of_a_test
from totoms.testing import SecretsManagerContract


@pytest.mark.quick
class TestAzureSecrets(SecretsManagerContract):
    backend = "azure"
    capabilities = frozenset({"versions", "cache"})
    arrangement = "stand-in"

    @pytest.fixture
    async def harness(self) -> AsyncIterator[AzureSecretsHarness]:
        with secrets_of_a_test() as made:
            yield made
