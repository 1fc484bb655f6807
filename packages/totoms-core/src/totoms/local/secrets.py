"""Secrets of the local backend."""

from __future__ import annotations

import os
import re

from totoms.errors import NotFound, Unsupported
from totoms.secrets import SecretsManager


class LocalSecretsManager(SecretsManager):
    """Secrets from environment variables: the exact name, else in upper case (``api-key`` as ``API_KEY``)."""

    def topic_identifier(self, secret: str, logical_name: str) -> str:
        try:
            return self.get_secret(secret)
        except NotFound:
            return logical_name

    async def topic_identifier_async(self, secret: str, logical_name: str) -> str:
        try:
            return await self.get_secret_async(secret)
        except NotFound:
            return logical_name

    def _fetch(self, name: str, version: str | None) -> bytes:
        if version is not None:
            raise Unsupported("The local secrets manager has no versions.", resource=name)
        for candidate in (name, re.sub(r"[^A-Za-z0-9]", "_", name).upper()):
            if candidate in os.environ:
                return os.environ[candidate].encode()
        if name == "jwt-signing-key":
            from totoms.local.keys import signing_key

            return signing_key(self.environment.hyperscaler_configuration.root).encode()
        raise NotFound(f"No secret {name!r}.", resource=name)
