"""The contracts of totoms.testing, held against NATS: a harness for each, and what the backend declares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from nats.js import JetStreamContext

from totoms import MessageBus, TotoEnvironment
from totoms.context import new_cid
from totoms.plugin import Subscription
from totoms.testing import (
    CloudStorageContract,
    CloudStorageHarness,
    LifecycleContract,
    LifecycleHarness,
    MessageBusContract,
    MessageBusHarness,
    PushContract,
    Pushed,
    PushHarness,
    SecretsManagerContract,
    SecretsManagerHarness,
)
from totoms_nats.messages.bus import NatsMessageBus
from totoms_nats.naming import token
from totoms_nats.storage.storage import NatsCloudStorage


class NatsMessageBusHarness(MessageBusHarness):
    """Topics of one installation, whose leases are short."""

    def __init__(self, installation: Any) -> None:
        self._installation = installation

    async def create_topic(self) -> str:
        return str(await asyncio.to_thread(self._installation.topic))

    async def missing_topic(self) -> str:
        return f"{self._installation.prefix}.nobody"

    async def connect(self, topics: Mapping[str, str]) -> MessageBus:
        settings = self._installation.settings.model_copy(update={"lease_seconds": self.lease_seconds})
        bus = MessageBus(TotoEnvironment("nats", settings), topics)
        self._installation.buses.append(bus)
        return bus

    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        headers = dict(attributes)
        await asyncio.to_thread(self._installation.do, lambda js: js.publish(topic, body, headers=headers))

    async def delete_subscription(self, subscription: Subscription) -> bool:
        async def delete(js: JetStreamContext) -> None:
            stream = await js.find_stream_name_by_subject(subscription.topic)
            for name in (stream, self._installation.names.queues):
                await js.delete_consumer(name, token(subscription.name))

        await asyncio.to_thread(self._installation.do, delete)
        return True

    def outage(self) -> AbstractAsyncContextManager[None]:
        return self._installation.outage()

    async def close(self) -> None: ...


class TestNatsMessages(MessageBusContract):
    backend = "nats"
    capabilities = NatsMessageBus.capabilities

    @pytest.fixture
    async def harness(self, installation: Any) -> NatsMessageBusHarness:
        return NatsMessageBusHarness(installation)


class NatsLifecycleHarness(LifecycleHarness):
    """Two accounts of one server."""

    def __init__(self, installation: Any) -> None:
        self._accounts = (installation, installation.of_another_account())

    def environment(self) -> TotoEnvironment:
        return TotoEnvironment("nats", self._accounts[0].settings)

    def second_environment(self) -> TotoEnvironment:
        return TotoEnvironment("nats", self._accounts[1].settings)

    async def create_topic(self) -> str:
        name = f"topic-{new_cid()}"
        await self._in_both("make_topic", name)
        return name

    async def create_bucket(self) -> str:
        name = f"bucket-{new_cid()}"
        await self._in_both("make_bucket", name)
        return name

    async def set_secret(self, name: str, value: str) -> None:
        await self._in_both("set_secret", name, value.encode())

    async def _in_both(self, what: str, *arguments: Any) -> None:
        for account in self._accounts:
            await asyncio.to_thread(getattr(account, what), *arguments)

    async def close(self) -> None: ...


@pytest.mark.quick
@pytest.mark.smoke
class TestNatsLifecycle(LifecycleContract):
    backend = "nats"
    capabilities = NatsMessageBus.capabilities

    @pytest.fixture
    async def harness(self, installation: Any) -> NatsLifecycleHarness:
        return NatsLifecycleHarness(installation)


class NatsStorageHarness(CloudStorageHarness):
    """Buckets of one installation."""

    def __init__(self, installation: Any) -> None:
        self._installation = installation

    @property
    def environment(self) -> TotoEnvironment:
        return TotoEnvironment("nats", self._installation.settings)

    async def create_bucket(self) -> str:
        name = f"bucket.{new_cid()}"
        await asyncio.to_thread(self._installation.make_bucket, name)
        return name

    async def close(self) -> None: ...


class TestNatsStorage(CloudStorageContract):
    backend = "nats"
    capabilities = NatsCloudStorage.capabilities

    @pytest.fixture
    async def harness(self, installation: Any) -> NatsStorageHarness:
        return NatsStorageHarness(installation)


class NatsSecretsHarness(SecretsManagerHarness):
    """The bucket of one installation."""

    def __init__(self, installation: Any) -> None:
        super().__init__()
        self._installation = installation

    @property
    def environment(self) -> TotoEnvironment:
        return TotoEnvironment("nats", self._installation.settings)

    async def set_secret(self, name: str, value: bytes | None) -> str | None:
        if value is None:
            await asyncio.to_thread(self._installation.delete_secret, name)
            return None
        return str(await asyncio.to_thread(self._installation.set_secret, name, value))

    async def deny(self, name: str) -> None:
        await asyncio.to_thread(self._installation.deny_secret, name)

    def outage(self) -> AbstractAsyncContextManager[None]:
        return self._installation.outage()

    async def close(self) -> None: ...


class TestNatsSecrets(SecretsManagerContract):
    backend = "nats"
    capabilities = frozenset({"versions", "cache"})

    @pytest.fixture
    async def harness(self, installation: Any, impatient: None) -> NatsSecretsHarness:
        return NatsSecretsHarness(installation)


class NatsPushHarness(PushHarness):
    """There is no push: the endpoint must be closed."""

    def __init__(self, installation: Any) -> None:
        super().__init__()
        self._installation = installation

    async def connect(self) -> MessageBus:
        bus: MessageBus = self._installation.bus(await asyncio.to_thread(self._installation.topic))
        return bus

    async def genuine(self, body: bytes, *, message_id: str = "m-1", attempt: int = 1) -> Pushed:
        return Pushed(body)

    async def forgeries(self, body: bytes) -> Mapping[str, Pushed | str]:
        return {}

    def keys_unreachable(self) -> str:
        return "There are no keys."

    async def close(self) -> None:
        await super().close()


class TestNatsPush(PushContract):
    backend = "nats"
    capabilities = NatsMessageBus.capabilities

    @pytest.fixture
    async def harness(self, installation: Any) -> AsyncIterator[NatsPushHarness]:
        made = NatsPushHarness(installation)
        yield made
        await made.close()
