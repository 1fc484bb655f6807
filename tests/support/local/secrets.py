"""The local secrets under the secrets contract: environment variables, and a .env file."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import totoms  # noqa: F401 - tells the interfaces where to find the implementations
from totoms.environment import TotoEnvironment
from totoms.errors import Unavailable
from totoms.local.configuration import LocalConfiguration
from totoms.local.secrets import DOTENV, LocalSecretsManager
from totoms.plugins import loader as plugins
from totoms.plugins.configuration import HyperscalerConfiguration
from totoms.plugins.hookspecs import hookimpl
from totoms.secrets.manager import SecretsManager
from totoms.testing import SecretsManagerHarness


class _Plugin:
    """The local backend with another class for its secrets."""

    def __init__(self, secrets: type[SecretsManager]) -> None:
        self._secrets = secrets

    @hookimpl
    def totoms_configuration(self) -> type[HyperscalerConfiguration]:
        return LocalConfiguration

    @hookimpl
    def totoms_secrets_manager(self) -> type[SecretsManager]:
        return self._secrets


class LocalSecretsHarness(SecretsManagerHarness):
    """Secrets in the environment variables of this process.

    Args:
        folder: Becomes the working directory.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._patch = pytest.MonkeyPatch()
        self._patch.chdir(folder)

        away = self._away = [False]

        class Reachable(LocalSecretsManager):
            # The environment is never away, so the harness says that it is.
            def _fetch(self, name: str, version: str | None) -> bytes:
                if away[0]:
                    raise Unavailable(f"The store of {name!r} is away, as the test says.", resource=name)
                return super()._fetch(name, version)

        plugins.provide("local-secrets", _Plugin(Reachable))
        self._environment = TotoEnvironment("local-secrets", LocalConfiguration(root=folder / "root"))

    @property
    def environment(self) -> TotoEnvironment:
        return self._environment

    async def set_secret(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._patch.delenv(name)
        else:
            self._patch.setenv(name, value.decode(errors="surrogateescape"))

    async def deny(self, name: str) -> None:
        self._patch.delenv(name, raising=False)
        (self._folder / DOTENV).symlink_to("/proc/self/mem")  # what cannot be read, by the superuser neither

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self._away[0] = True
        try:
            yield
        finally:
            self._away[0] = False

    async def close(self) -> None:
        self._patch.undo()
