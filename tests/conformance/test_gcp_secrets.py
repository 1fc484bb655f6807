"""The secrets contract on Secret Manager: a stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.gcp.secrets import GCPSecretsHarness, secrets_of_a_test
from totoms.testing import SecretsManagerContract


@pytest.mark.quick
class TestGCPSecrets(SecretsManagerContract):
    backend = "gcp"
    capabilities = frozenset({"versions", "cache"})
    arrangement = "stand-in"

    @pytest.fixture
    async def harness(self) -> AsyncIterator[GCPSecretsHarness]:
        with secrets_of_a_test() as made:
            yield made
