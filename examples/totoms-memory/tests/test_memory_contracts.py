"""The contracts of totoms.testing, checked with the plugin in memory: a harness for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from totoms.errors import AccessDenied, Unavailable
from totoms.plugin import MessageBus, Outgoing, Subscription, TotoEnvironment, new_cid
from totoms.testing import (
    CloudStorageContract,
    CloudStorageHarness,
    LifecycleContract,
    LifecycleHarness,
    MessageBusContract,
    MessageBusHarness,
    SecretsManagerContract,
    SecretsManagerHarness,
)
from totoms_memory.plugin import (
    MemoryCloudStorage,
    MemoryMessageBus,
    MemoryReceiver,
    MemorySecretsManager,
    queues,
    secrets,
)

BUS = (MemoryMessageBus, ("_publish", "_subscribe"))
RECEIVER = (MemoryReceiver, ("receive", "_ack", "_nack", "_release", "_extend", "_dead_letter"))


async def fail(*_: Any, **__: Any) -> NoReturn:
    raise Unavailable("The memory is out of reach.")


def fail_to_fetch(_: MemorySecretsManager, name: str, version: str | None) -> NoReturn:
    raise Unavailable(f"The secret {name!r} is out of reach.", resource=name)


@asynccontextmanager
async def outage(failing: Callable[..., Any], *operations: tuple[type, tuple[str, ...]]) -> AsyncIterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for kind, names in operations:
            for name in names:
                patch.setattr(kind, name, failing)
        yield


class MemoryMessageBusHarness(MessageBusHarness):
    async def create_topic(self) -> str:
        return f"topic-{new_cid()}"

    async def missing_topic(self) -> None:
        return None  # a topic exists by being named

    async def connect(self, topics: Mapping[str, str]) -> MessageBus:
        bus = MessageBus(TotoEnvironment("memory"), topics)
        bus.use_lease(self.lease_seconds)
        return bus

    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        await MessageBus(TotoEnvironment("memory"))._publish([Outgoing(body, new_cid(), attributes, topic)])

    async def delete_subscription(self, subscription: Subscription) -> bool:
        del queues[subscription.name]
        return True

    def outage(self) -> AbstractAsyncContextManager[None]:
        return outage(fail, BUS, RECEIVER)

    async def close(self) -> None: ...


class TestMemoryMessages(MessageBusContract):
    backend = "memory"
    capabilities = MemoryMessageBus.capabilities

    @pytest.fixture
    def harness(self) -> MemoryMessageBusHarness:
        return MemoryMessageBusHarness()


class MemoryStorageHarness(CloudStorageHarness):
    @property
    def environment(self) -> TotoEnvironment:
        return TotoEnvironment("memory")

    async def create_bucket(self) -> str:
        return f"bucket-{new_cid()}"  # a bucket exists by being named

    async def close(self) -> None: ...


class TestMemoryStorage(CloudStorageContract):
    backend = "memory"
    capabilities = MemoryCloudStorage.capabilities

    @pytest.mark.xfail(reason="It keeps files in memory.")
    async def test_33_memory_stays_well_below_the_object(self, harness: CloudStorageHarness, tmp_path: Path) -> None:
        await super().test_33_memory_stays_well_below_the_object(harness, tmp_path)

    @pytest.fixture
    def harness(self) -> MemoryStorageHarness:
        return MemoryStorageHarness()


class MemorySecretsHarness(SecretsManagerHarness):
    def __init__(self, denied: set[str]) -> None:
        super().__init__()
        self._denied = denied

    @property
    def environment(self) -> TotoEnvironment:
        return TotoEnvironment("memory")

    async def set_secret(self, name: str, value: bytes | None) -> None:
        if value is None:
            secrets.pop(name, None)
        else:
            secrets[name] = value

    async def deny(self, name: str) -> None:
        self._denied.add(name)

    def outage(self) -> AbstractAsyncContextManager[None]:
        return outage(fail_to_fetch, (MemorySecretsManager, ("_fetch",)))

    async def close(self) -> None: ...


class TestMemorySecrets(SecretsManagerContract):
    backend = "memory"
    capabilities = frozenset({"cache"})

    @pytest.fixture
    def harness(self, monkeypatch: pytest.MonkeyPatch) -> MemorySecretsHarness:
        denied: set[str] = set()
        fetch = MemorySecretsManager._fetch

        def fetch_allowed(manager: MemorySecretsManager, name: str, version: str | None) -> bytes:
            if name in denied:
                raise AccessDenied(f"The secret {name!r} must not be read.", resource=name)
            return fetch(manager, name, version)

        monkeypatch.setattr(MemorySecretsManager, "_fetch", fetch_allowed)
        return MemorySecretsHarness(denied)


class MemoryLifecycleHarness(LifecycleHarness):
    def environment(self) -> TotoEnvironment:
        return TotoEnvironment("memory")

    async def create_topic(self) -> str:
        return f"topic-{new_cid()}"

    async def create_bucket(self) -> str:
        return f"bucket-{new_cid()}"

    async def set_secret(self, name: str, value: str) -> None:
        secrets[name] = value.encode()

    async def close(self) -> None: ...


class TestMemoryLifecycle(LifecycleContract):
    backend = "memory"
    capabilities = MemoryMessageBus.capabilities

    @pytest.fixture
    def harness(self) -> MemoryLifecycleHarness:
        return MemoryLifecycleHarness()
