"""The harness of the secrets contract on Secret Manager: a stand-in, and its operator."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport

from standins.gcp.secret_manager import SecretManagerStandIn
from totoms.environment import TotoEnvironment
from totoms.errors import Unsupported
from totoms.testing import SecretsManagerHarness
from totoms_gcp import clients, secrets
from totoms_gcp.clients import SECRETS_EMULATOR, registry
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.secrets import identifier_of

PROJECT = "project-one"


class GCPSecretsHarness(SecretsManagerHarness):
    """Secrets of a project in a stand-in of the test's own."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.server = SecretManagerStandIn()
        self.server.start()
        registry.close()
        # Many of the contract's outages are met by each way to read: they need not all last as long.
        patch.setattr(secrets, "_RETRY", secrets._RETRY.with_delay(0.05, 0.1).with_timeout(0.5))
        patch.setattr(
            clients, "_CHANNEL", [(name, 50) if "backoff" in name else (name, n) for name, n in clients._CHANNEL]
        )
        patch.setenv(SECRETS_EMULATOR, f"127.0.0.1:{self.server.port}")
        self._environment = TotoEnvironment("gcp", GCPConfiguration(project_id=PROJECT))
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")
        self.operator: Any = SecretManagerServiceClient(
            transport=SecretManagerServiceGrpcTransport(channel=self._channel, credentials=None)
        )

    @property
    def environment(self) -> TotoEnvironment:
        return self._environment

    def path(self, name: str) -> str:
        """Return what Google calls a secret."""
        return f"projects/{PROJECT}/secrets/{identifier_of(name)}"

    async def set_secret(self, name: str, value: bytes | None) -> str | None:
        path = self.path(name)
        if value is None:
            self.operator.delete_secret(name=path)
            return None
        if not value:
            raise Unsupported("Secret Manager holds no empty values.")
        if path not in self.server.secrets:
            self.operator.create_secret(parent=f"projects/{PROJECT}", secret_id=identifier_of(name), secret={})
        made = self.operator.add_secret_version(parent=path, payload={"data": value})
        return str(made.name.rpartition("/")[2])

    async def deny(self, name: str) -> None:
        self.server.denied.add(self.path(name))

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()

    async def close(self) -> None:
        registry.close()
        self._channel.close()
        self.server.stop()


@contextlib.contextmanager
def secrets_of_a_test() -> Iterator[GCPSecretsHarness]:
    """Give a stand-in with its operator; it ends with the block."""
    with pytest.MonkeyPatch.context() as patch:
        made = GCPSecretsHarness(patch)
        try:
            yield made
        finally:
            registry.close()
            made._channel.close()
            made.server.stop()
