"""A store of secrets with versions, a cache, permissions and outages, in memory: what mutants are made of."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from support.local.secrets import _Plugin
from totoms.environment import TotoEnvironment
from totoms.errors import AccessDenied, NotFound, Unavailable
from totoms.local.configuration import LocalConfiguration
from totoms.plugins import loader as plugins
from totoms.secrets.manager import SecretsManager
from totoms.testing import SecretsManagerHarness


class Store:
    """What the provider has."""

    def __init__(self) -> None:
        self.versions: dict[str, list[bytes]] = {}
        self.denied: set[str] = set()
        self.away = False


class StoredSecrets(SecretsManager):
    """Reads from the store of the test at hand. A version is its number, from 1."""

    store: Store

    def _fetch(self, name: str, version: str | None) -> bytes:
        store = self.store
        if store.away:
            raise Unavailable(f"The store is away, so {name!r} cannot be read.", resource=name)
        if name in store.denied:
            raise AccessDenied(f"May not read {name!r}.", resource=name)
        versions = store.versions.get(name, [])
        number = len(versions) if version is None else int(version) if version.isdecimal() else 0
        if not 0 < number <= len(versions):
            raise NotFound(f"No secret {name!r}, or no such version.", resource=name)
        return versions[number - 1]


class StoreHarness(SecretsManagerHarness):
    """The store, and the class that is to read from it."""

    def __init__(self, manager: type[StoredSecrets] = StoredSecrets) -> None:
        super().__init__()
        self.store = manager.store = Store()
        plugins.provide("store", _Plugin(manager))
        self._environment = TotoEnvironment("store", LocalConfiguration())

    @property
    def environment(self) -> TotoEnvironment:
        return self._environment

    async def set_secret(self, name: str, value: bytes | None) -> str | None:
        if value is None:
            del self.store.versions[name]
            return None
        versions = self.store.versions.setdefault(name, [])
        versions.append(value)
        return str(len(versions))

    async def deny(self, name: str) -> None:
        self.store.denied.add(name)

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self.store.away = True
        try:
            yield
        finally:
            self.store.away = False

    async def close(self) -> None: ...
