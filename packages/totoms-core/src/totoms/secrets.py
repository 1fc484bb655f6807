"""Secrets: what services use, and the one operation that a backend fills in."""

from __future__ import annotations

import asyncio
from abc import ABC
from typing import Any

from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.operations import backend_operation


class SecretsManager(ABC):
    """Reads secrets. ``SecretsManager()`` gives the current environment's implementation.

    Args:
        environment: Where the service runs; by default the current one.
    """

    def __new__(cls, environment: TotoEnvironment | None = None) -> SecretsManager:
        if cls is SecretsManager:
            cls = implementation(SecretsManager, environment or current_environment())
        return super().__new__(cls)

    def __init__(self, environment: TotoEnvironment | None = None) -> None:
        self.environment = environment or current_environment()

    def get_secret(self, name: str, *, version: str | None = None) -> str:
        return self.get_secret_bytes(name, version=version).decode()

    async def get_secret_async(self, name: str, *, version: str | None = None) -> str:
        return await asyncio.to_thread(self.get_secret, name, version=version)

    def get_secret_bytes(self, name: str, *, version: str | None = None) -> bytes:
        return self._fetch(name, version)

    async def get_secret_bytes_async(self, name: str, *, version: str | None = None) -> bytes:
        return await asyncio.to_thread(self.get_secret_bytes, name, version=version)

    def get_secret_json(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        raise NotImplementedError

    async def get_secret_json_async(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        raise NotImplementedError

    def topic_identifier(self, secret: str, logical_name: str) -> str:
        """Return the provider's identifier of a topic: the value of `secret`."""
        return self.get_secret(secret)

    async def topic_identifier_async(self, secret: str, logical_name: str) -> str:
        return await self.get_secret_async(secret)

    @backend_operation
    def _fetch(self, name: str, version: str | None) -> bytes:
        """Read one secret from the store, the latest version unless `version` is given."""
        raise NotImplementedError
