"""The push contract on Event Grid and Service Bus: each schema, and each kind of credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from standins.azure.service_bus.server import ServiceBusStandIn
from support.azure.messages import stand_in
from support.azure.push import AzurePushHarness, EventGrid
from support.http.app import KeyServer, rsa_key
from totoms.auth import jwks
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.messages.bus import MessageBus
from totoms.testing import PushContract
from totoms_azure.messages.bus import AzureMessageBus


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusStandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture(scope="module")
def keys() -> tuple[RSAPrivateKey, RSAPrivateKey]:
    return rsa_key(), rsa_key()


@pytest.fixture
def key_server(keys: tuple[RSAPrivateKey, RSAPrivateKey], monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    monkeypatch.setattr(jwks, "FAILED_COOLDOWN", 0.0)
    made = KeyServer()
    made.keys["one"] = keys[0]
    with made.running():
        yield made


class EventGridContract(PushContract):
    backend = "azure"
    capabilities = AzureMessageBus.capabilities
    credential = "token"
    cloud_events = False

    @pytest.fixture
    async def harness(
        self, key_server: KeyServer, keys: tuple[RSAPrivateKey, RSAPrivateKey], server: ServiceBusStandIn
    ) -> AsyncIterator[AzurePushHarness]:
        topic = f"posts-{new_cid()}"
        grid = EventGrid(key_server, self.credential, cloud_events=self.cloud_events, topic=topic)
        await asyncio.to_thread(server.make_topic, topic)

        def make(environment: TotoEnvironment, topics: Mapping[str, str], keys_uri: str) -> MessageBus:
            options = {"keys_uri": keys_uri, "look_seconds": 2.0}
            bus: MessageBus = type("ImpatientBus", (AzureMessageBus,), options)(environment, topics)
            return bus

        made = AzurePushHarness(grid, keys[1], make, servicebus_connection_string=server.connection_string)
        yield made
        await made.close()


@pytest.mark.quick
class TestEventGridWithTokens(EventGridContract):
    arrangement = "Event Grid's schema, tokens"


class TestCloudEventsWithASecret(EventGridContract):
    arrangement = "CloudEvents, a secret"
    credential = "secret"
    cloud_events = True
