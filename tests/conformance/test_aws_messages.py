"""The contract of the message bus, held against SNS and SQS: standard topics, and FIFO topics."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from support.aws.messages import SNSHarness
from totoms.messages.driver import ORDERING
from totoms.testing import MessageBusContract
from totoms_aws.messages.bus import AWSMessageBus


@pytest.mark.quick
class TestStandardTopics(MessageBusContract):
    backend = "aws"
    capabilities = AWSMessageBus.capabilities - {ORDERING}
    arrangement = "standard topics"

    @pytest.fixture
    async def harness(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SNSHarness]:
        with FaultyAWS(aws_kit.server()) as faults, aws_kit.settings(monkeypatch, faults.address) as configuration:
            made = SNSHarness(configuration, faults)
            yield made
            await made.close()


class TestFIFOTopics(MessageBusContract):
    backend = "aws"
    capabilities = AWSMessageBus.capabilities
    arrangement = "FIFO topics"

    @pytest.fixture
    async def harness(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SNSHarness]:
        with FaultyAWS(aws_kit.server()) as faults, aws_kit.settings(monkeypatch, faults.address) as configuration:
            made = SNSHarness(configuration, faults, fifo=True)
            yield made
            await made.close()
