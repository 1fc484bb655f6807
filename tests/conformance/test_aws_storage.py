"""The storage contract, held against S3."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.aws import kit as aws_kit
from support.aws.storage import S3Harness
from totoms.testing import CloudStorageContract
from totoms_aws.storage.storage import S3CloudStorage


class TestS3(CloudStorageContract):
    backend = "aws"
    capabilities = S3CloudStorage.capabilities

    @pytest.fixture
    async def harness(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Harness]:
        with aws_kit.settings(monkeypatch, aws_kit.server()) as configuration:
            made = S3Harness(configuration)
            yield made
            await made.close()
