"""The harness that the author of a backend writes for the storage contract."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping

import httpx

from totoms.environment import TotoEnvironment
from totoms.storage.storage import CloudStorage


class CloudStorageHarness(ABC):
    """Prepares the store for one test. Each test uses new buckets.

    Attributes:
        patience: The longest that a test waits for something, in seconds.
        missing_bucket: The name of a bucket that does not exist.
    """

    patience: float = 120.0
    missing_bucket: str = "totoms-no-such-bucket"

    @property
    @abstractmethod
    def environment(self) -> TotoEnvironment:
        """The environment of the tested backend."""

    @abstractmethod
    async def create_bucket(self) -> str:
        """Create an empty bucket with a new name; return its name."""

    def storage(self, bucket: str) -> CloudStorage:
        """Return a storage on a bucket."""
        return CloudStorage(bucket, environment=self.environment)

    async def store_encoded(self, bucket: str, key: str, content: bytes, encoding: str) -> None:
        """Store a file with a ``Content-Encoding``, with the provider's own client.

        Override this if files can have one. Here it stores `content` without.

        Args:
            bucket: The name of the bucket.
            key: The key of the file.
            content: The content, already encoded.
            encoding: The value of ``Content-Encoding``, such as ``gzip``.
        """
        await self.storage(bucket).upload_bytes_async(content, key)

    async def fetch(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a request to a signed URL, as a program without credentials would, without following redirects.

        Override this to run the server of the URLs, or to add a header that the store requires of every client.

        Args:
            method: The HTTP method.
            url: The URL.
            content: The body.
            headers: The request headers; without a ``Content-Type`` in them none is sent.
        """
        async with httpx.AsyncClient(timeout=self.patience, trust_env=False) as client:
            return await client.request(method, url, content=content, headers=headers)

    async def advance(self, seconds: float) -> None:
        """Wait, or move the store's clock, so that URLs expire."""
        await asyncio.sleep(seconds)

    @abstractmethod
    async def close(self) -> None:
        """Delete what the harness created."""
