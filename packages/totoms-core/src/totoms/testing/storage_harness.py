"""What the contract of the storage needs of a backend's author."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping

import httpx

from totoms.environment import TotoEnvironment
from totoms.storage import CloudStorage


class CloudStorageHarness(ABC):
    """One test's hold on a store. What a test makes, it does not share: buckets have new names each time.

    Attributes:
        patience: Seconds within which what must happen, happens.
        missing_bucket: The name of a bucket that is not there.
    """

    patience: float = 60.0
    missing_bucket: str = "totoms-no-such-bucket"

    @property
    @abstractmethod
    def environment(self) -> TotoEnvironment:
        """The tested backend, with its settings."""

    @abstractmethod
    async def create_bucket(self) -> str:
        """Make an empty bucket with a new name; return its name."""

    def storage(self, bucket: str) -> CloudStorage:
        """Return a storage on a bucket."""
        return CloudStorage(bucket, environment=self.environment)

    async def fetch(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Do a request to a signed URL, as a program without credentials would; redirects are not followed.

        Override it to run what serves the URLs, or to add a header that the store wants of every client.

        Args:
            method: The HTTP method.
            url: The URL.
            content: The body.
            headers: Request headers; there is no ``Content-Type`` beside what they say.
        """
        async with httpx.AsyncClient(timeout=self.patience, trust_env=False) as client:
            return await client.request(method, url, content=content, headers=headers)

    async def advance(self, seconds: float) -> None:
        """Let time pass for the store, for URLs that expire: wait, or move its clock."""
        await asyncio.sleep(seconds)

    @abstractmethod
    async def close(self) -> None:
        """Remove what was made."""
