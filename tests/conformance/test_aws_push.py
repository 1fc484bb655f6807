"""The contract of the push endpoint, held against SNS: both versions of its signatures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from standins.aws.sns_certificates import CertificateServer
from support.aws import kit as aws_kit
from support.aws.push import HOST, SNSPushHarness
from totoms.messages.driver import ORDERING
from totoms.testing import PushContract
from totoms_aws.messages.bus import AWSMessageBus


class _SNSPush(PushContract):
    __test__ = False
    version: ClassVar[str]

    @pytest.fixture
    async def harness(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[SNSPushHarness]:
        with CertificateServer(HOST, tmp_path) as server:
            for name, value in server.variables.items():
                monkeypatch.setenv(name, value)
            with aws_kit.settings(monkeypatch, aws_kit.server()) as configuration:
                monkeypatch.setenv("AWS_CA_BUNDLE", server.variables["AWS_CA_BUNDLE"])
                made = SNSPushHarness(configuration, server, self.version)
                yield made
                await made.close()


class TestSNSPushSignedBySHA1(_SNSPush):
    __test__ = True
    backend = "aws"
    capabilities = AWSMessageBus.capabilities - {ORDERING}
    arrangement = "signature version 1"
    version = "1"


@pytest.mark.quick
class TestSNSPushSignedBySHA256(_SNSPush):
    __test__ = True
    backend = "aws"
    capabilities = AWSMessageBus.capabilities - {ORDERING}
    arrangement = "signature version 2"
    version = "2"
