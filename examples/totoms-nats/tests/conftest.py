"""One nats-server for the whole run, and for each test an installation of its own on it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from support.emulators import require
from support.messages.by_name import ByName
from totoms import CloudStorage, MessageBus, SecretsManager, TotoEnvironment
from totoms.messages.subscription import Subscription
from totoms_nats.clients import clients
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.messages.bus import NatsMessageBus
from totoms_nats.naming import key
from totoms_nats.testing.operator import Operator
from totoms_nats.testing.server import PROGRAM, NatsServer

LEASE = 2.0


# Two accounts, which share nothing; a client without credentials is in the first.
ACCOUNTS = """
accounts {{ one {{ jetstream: enabled, users: [{{user: one, password: one, permissions: {{
                   publish: {{ allow: [">"], deny: [{denied}] }} }} }}] }}
            two {{ jetstream: enabled, users: [{{user: two, password: two}}] }} }}
no_auth_user: one
"""


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    require(PROGRAM, remedy="apt-get install nats-server")
    folder = tmp_path_factory.mktemp("nats")
    (folder / "config").write_text(ACCOUNTS.format(denied=""))
    with NatsServer(folder, arguments=("-c", str(folder / "config"))) as server:
        yield server
        clients.close()


class BusByName(ByName, NatsMessageBus):
    """A bus with the operations of its receivers."""


class Installation(Operator):
    """What an operator set up for one test, under a prefix of its own."""

    def __init__(self, server: NatsServer, prefix: str = "", user: str = "one") -> None:
        self.server = server
        self.prefix = prefix or f"t{secrets.token_hex(6)}"
        settings = NatsConfiguration(url=server.url, prefix=self.prefix, lease_seconds=LEASE, user=user, password=user)
        super().__init__(settings)
        self.environment = TotoEnvironment("nats", settings)
        self.buses: list[MessageBus] = []
        self._topics = 0

    def of_another_account(self) -> Installation:
        return Installation(self.server, self.prefix, "two")

    def delete_secret(self, name: str) -> None:
        async def purge(js: JetStreamContext) -> None:
            await (await js.key_value(self.names.secrets)).purge(key(name))

        self.do(purge)

    def deny_secret(self, name: str) -> None:
        """By permissions, as an operator would; this version does not take new ones while it runs."""
        subject = f"$JS.API.DIRECT.GET.KV_{self.names.secrets}.$KV.{self.names.secrets}.{key(name)}"
        config = self.server.folder / "config"
        config.write_text(ACCOUNTS.format(denied=f'"{subject}"'))
        self.server.stop()
        self.server.start()

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.server.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(self.server.start)

    def topic(self, *others: str) -> str:
        self._topics += 1
        name = f"{self.prefix}-topic{self._topics}"
        self.make_topic(name, *(f"{name}.{other}" for other in others))
        return name

    def bucket(self, name: str) -> CloudStorage:
        self.make_bucket(name)
        return CloudStorage(name, environment=self.environment)

    def secrets(self) -> SecretsManager:
        return SecretsManager(self.environment)

    def bus(self, topic: str = "") -> MessageBus:
        bus = BusByName(self.environment, {"posts": topic} if topic else {})
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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this machine answers at once or never."""
    monkeypatch.setattr("totoms_nats.clients.DEADLINE", 1.0)
    monkeypatch.setattr("totoms_nats.clients._TRY", 0.3)
