"""S3 under the storage contract."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.testing import CloudStorageHarness
from totoms_aws.clients import client
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

    async def store_encoded(self, bucket: str, key: str, content: bytes, encoding: str) -> None:
        s3 = client("s3", self._configuration)
        await asyncio.to_thread(s3.put_object, Bucket=bucket, Key=key, Body=content, ContentEncoding=encoding)

    async def fetch(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        # ministack lets anybody read what is not signed; S3 does not.
        address = urlsplit(url)
        with FaultyAWS(f"http://{address.netloc}") as faults:
            faults.rule(matches=lambda request: "X-Amz-Signature=" not in request.path, status=403, code="AccessDenied")
            asked = f"{faults.address}{url.removeprefix(f'http://{address.netloc}')}"
            return await super().fetch(method, asked, content, {"host": address.netloc, **(headers or {})})

    async def close(self) -> None:
        """Buckets stay until the server ends."""
