"""The secrets contract, held against Secrets Manager."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import aws_kit
from aws_errors import FaultyAWS
from aws_secrets_kit import AWSSecretsHarness
from totoms.testing import SecretsManagerContract


@pytest.mark.quick
class TestSecretsManager(SecretsManagerContract):
    backend = "aws"
    capabilities = frozenset({"versions", "cache"})

    @pytest.fixture
    async def harness(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AWSSecretsHarness]:
        aws_kit.once(monkeypatch)
        with FaultyAWS(aws_kit.server()) as faults, aws_kit.settings(monkeypatch, faults.address) as configuration:
            made = AWSSecretsHarness(configuration, faults)
            yield made
            await made.close()
