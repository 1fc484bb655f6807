"""The lifecycle contract, held against AWS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from support.aws import kit as aws_kit
from support.aws.messages import make_topic
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.messages.driver import ORDERING
from totoms.testing import LifecycleContract, LifecycleHarness
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.messages.bus import AWSMessageBus


class AWSLifecycleHarness(LifecycleHarness):
    """A ministack. Of accounts it has one, and buckets are the same in each region."""

    def __init__(self, configuration: AWSConfiguration) -> None:
        self._configuration = AWSConfiguration(configuration.region, f"test-{new_cid()[:16]}")

    def environment(self) -> TotoEnvironment:
        return aws_kit.environment(AWSConfiguration(**self._configuration.model_dump()))

    async def create_topic(self) -> str:
        return await asyncio.to_thread(make_topic, self._configuration)

    async def create_bucket(self) -> str:
        return await asyncio.to_thread(aws_kit.make_bucket, self._configuration)

    async def set_secret(self, name: str, value: str) -> None:
        await asyncio.to_thread(
            aws_kit.sdk("secretsmanager", self._configuration).create_secret,
            Name=f"{self._configuration.environment}/{name}",
            SecretString=value,
        )

    async def close(self) -> None: ...


@pytest.mark.quick
@pytest.mark.smoke
class TestAWSLifecycle(LifecycleContract):
    backend = "aws"
    capabilities = AWSMessageBus.capabilities - {ORDERING}

    @pytest.fixture
    async def harness(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AWSLifecycleHarness]:
        with aws_kit.settings(monkeypatch, aws_kit.server()) as configuration:
            made = AWSLifecycleHarness(configuration)
            yield made
            await made.close()
