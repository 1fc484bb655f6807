"""The secrets contract, held against Secrets Manager."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from support.aws.secrets import AWSSecretsHarness
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
