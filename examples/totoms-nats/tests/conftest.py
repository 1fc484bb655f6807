"""One nats-server for the whole run, and for each test an installation of its own on it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext, api
from totoms_nats.background import background
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.names import Names, key
from totoms_nats.server import PROGRAM, NatsServer

from emulators import require
from totoms import CloudStorage, MessageBus, SecretsManager, TotoEnvironment
from totoms.envelope import Subscription

LEASE = 2.0


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    require(PROGRAM, remedy="apt-get install nats-server")
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server
        background.close()


class Installation:
    """What an operator set up for one test: a prefix, topics, buckets, secrets."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.prefix = f"t{secrets.token_hex(6)}"
        self.settings = NatsConfiguration(url=server.url, prefix=self.prefix, lease_seconds=LEASE)
        self.environment = TotoEnvironment("nats", self.settings)
        self.names = Names(self.prefix)
        self.buses: list[MessageBus] = []
        self._topics = 0

    def operate(self, work: Callable[[JetStreamContext], Awaitable[Any]]) -> Any:
        """Do something with JetStream's own interface."""
        return background.run(background.connection(self.settings).call(work, "The operator failed", "operator"))

    def topic(self, *others: str) -> str:
        self._topics += 1
        name = f"{self.prefix}-topic{self._topics}"
        subjects = [name, *(f"{name}.{other}" for other in others)]
        self.operate(lambda js: js.add_stream(name=name, subjects=subjects, retention=api.RetentionPolicy.INTEREST))
        return name

    def bucket(self, name: str) -> CloudStorage:
        self.operate(lambda js: js.create_object_store(self.names.bucket(name)))
        return CloudStorage(name, environment=self.environment)

    def secret(self, name: str, value: bytes) -> int:
        async def put(js: JetStreamContext) -> int:
            bucket = await js.create_key_value(bucket=self.names.secrets, history=10)
            return await bucket.put(key(name), value)

        return int(self.operate(put))

    def secrets(self) -> SecretsManager:
        return SecretsManager(self.environment)

    def bus(self, topic: str = "") -> MessageBus:
        bus = MessageBus(self.environment, {"posts": topic} if topic else {})
        self.buses.append(bus)
        return bus

    def subscription(self, topic: str, name: str = "blog-posts") -> Subscription:
        return Subscription(name, topic, "posts")


@pytest.fixture
async def installation(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in ("NATS_URL", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "NATS_PREFIX", "HYPERSCALER"):
        monkeypatch.delenv(name, raising=False)
    made = Installation(nats_server)
    yield made
    for bus in made.buses:
        await bus.close()
