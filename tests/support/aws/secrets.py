"""Secrets Manager under the secrets contract: a ministack, behind a server that denies secrets and goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from standins.aws.errors import FaultyAWS, Request
from support.aws import kit as aws_kit
from totoms.environment import TotoEnvironment
from totoms.errors import Unsupported
from totoms.testing import SecretsManagerHarness
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.secrets import identifier_of


class AWSSecretsHarness(SecretsManagerHarness):
    """Secrets of a ministack.

    Args:
        configuration: Its settings.
        faults: What stands before it.
    """

    def __init__(self, configuration: AWSConfiguration, faults: FaultyAWS) -> None:
        super().__init__()
        self._configuration, self._faults = configuration, faults

    @property
    def environment(self) -> TotoEnvironment:
        return aws_kit.environment(self._configuration)

    async def set_secret(self, name: str, value: bytes | None) -> str | None:
        return await asyncio.to_thread(set_secret, self._configuration, name, value)

    async def deny(self, name: str) -> None:
        identifier = identifier_of(name, self._configuration)

        def is_asked_for(request: Request) -> bool:
            return request.operation == "GetSecretValue" and json.loads(request.body)["SecretId"] == identifier

        self._faults.rule(matches=is_asked_for, status=400, code="AccessDeniedException")

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self._faults.away = True
        try:
            yield
        finally:
            self._faults.away = False

    async def close(self) -> None:
        """Secrets stay until the server ends."""


def set_secret(configuration: AWSConfiguration, name: str, value: bytes | None) -> str | None:
    """Put a secret, or a new version of it, and return the version's id; None deletes it."""
    store: Any = aws_kit.sdk("secretsmanager", configuration)
    identifier = identifier_of(name, configuration)
    if value is None:
        store.delete_secret(SecretId=identifier, ForceDeleteWithoutRecovery=True)
        return None
    if not value:
        raise Unsupported("Secrets Manager keeps no empty secret.")
    try:
        given: dict[str, Any] = {"SecretString": value.decode()}
    except UnicodeDecodeError:
        given = {"SecretBinary": value}
    try:
        version: str = store.create_secret(Name=identifier, **given)["VersionId"]
    except store.exceptions.ResourceExistsException:
        version = store.put_secret_value(SecretId=identifier, **given)["VersionId"]
    return version
