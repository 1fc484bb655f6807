"""The local storage under the storage contract, with a service on a real socket that serves its signed URLs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

import totoms  # noqa: F401 - tells the interfaces where to find the implementations
from support.http.app import Service
from totoms.auth.authenticator import Authenticator
from totoms.context import new_cid
from totoms.declaration.api import APIConfiguration
from totoms.environment import TotoEnvironment
from totoms.http.app import create_app
from totoms.http.server.server import Server, bind, uvicorn_config
from totoms.local.configuration import LocalConfiguration
from totoms.local.storage import signed_urls
from totoms.local.storage.storage import LocalCloudStorage
from totoms.plugins import loader as plugins
from totoms.plugins.configuration import HyperscalerConfiguration
from totoms.plugins.hookspecs import hookimpl
from totoms.storage.storage import CloudStorage
from totoms.testing import CloudStorageHarness

_ADDRESS = "http://127.0.0.1:8080"


class _Plugin:
    """The local backend with another class for its storage."""

    def __init__(self, storage: type[CloudStorage]) -> None:
        self._storage = storage

    @hookimpl
    def totoms_configuration(self) -> type[HyperscalerConfiguration]:
        return LocalConfiguration

    @hookimpl
    def totoms_cloud_storage(self) -> type[CloudStorage]:
        return self._storage


class LocalStorageHarness(CloudStorageHarness):
    """Buckets in a folder.

    Args:
        root: The folder.
        storage: The class under test.
    """

    def __init__(self, root: Path, storage: type[CloudStorage] = LocalCloudStorage) -> None:
        name = "local"
        if storage is not LocalCloudStorage:
            name = f"local-{storage.__name__}"
            plugins.provide(name, _Plugin(storage))
        self._environment = TotoEnvironment(name, LocalConfiguration(root=root))
        self.missing_bucket = f"missing-{new_cid()}"
        self._listener: socket.socket | None = None
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._patch = pytest.MonkeyPatch()

    @property
    def environment(self) -> TotoEnvironment:
        return self._environment

    async def create_bucket(self) -> str:
        return f"bucket-{new_cid()}"

    async def fetch(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        if self._listener is None:
            self._listener = bind("127.0.0.1", 0)
            service = Service(environment=self._environment)
            api = APIConfiguration(max_body_bytes=16 * 1024 * 1024)
            service.authenticator = Authenticator(service.config, api)
            self._server = Server(uvicorn_config(create_app(service, api), 1), on_signal=lambda: None)
            self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        assert url.startswith(_ADDRESS)
        address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        return await super().fetch(method, address + url.removeprefix(_ADDRESS), content, headers)

    async def advance(self, seconds: float) -> None:
        now = signed_urls._clock
        self._patch.setattr(signed_urls, "_clock", lambda: now() + seconds)

    async def close(self) -> None:
        self._patch.undo()
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        if self._listener is not None:
            self._listener.close()
