"""S3 under the storage contract."""

from __future__ import annotations

import asyncio

import aws_kit
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.testing import CloudStorageHarness
from totoms_aws.configuration import AWSConfiguration


class S3Harness(CloudStorageHarness):
    """Buckets of a ministack.

    Args:
        configuration: Its settings.
    """

    def __init__(self, configuration: AWSConfiguration) -> None:
        self._configuration = configuration
        self._environment = aws_kit.environment(configuration)
        self.missing_bucket = f"missing-{new_cid()}"

    @property
    def environment(self) -> TotoEnvironment:
        return self._environment

    async def create_bucket(self) -> str:
        return await asyncio.to_thread(aws_kit.make_bucket, self._configuration)

    async def close(self) -> None:
        """Buckets stay until the server ends."""
