"""The push contract on Pub/Sub."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from standins.gcp.pubsub import PubSubStandIn
from support.gcp.messages import stand_in
from support.gcp.push import PubSubPushHarness
from support.http.app import KeyServer, rsa_key
from totoms.auth import jwks
from totoms.testing import PushContract
from totoms_gcp.messages.bus import PubSubMessageBus


@pytest.fixture(scope="module")
def server() -> Iterator[PubSubStandIn]:
    with stand_in() as made:
        yield made


@pytest.fixture(scope="module")
def keys() -> tuple[RSAPrivateKey, RSAPrivateKey]:
    return rsa_key(), rsa_key()


@pytest.mark.quick
class TestPubSubPush(PushContract):
    backend = "gcp"
    capabilities = PubSubMessageBus.capabilities

    @pytest.fixture
    async def harness(
        self,
        server: PubSubStandIn,
        keys: tuple[RSAPrivateKey, RSAPrivateKey],
        monkeypatch: pytest.MonkeyPatch,
    ) -> AsyncIterator[PubSubPushHarness]:
        monkeypatch.setattr(jwks, "FAILED_COOLDOWN", 0.0)
        key_server = KeyServer()
        key_server.keys["one"] = keys[0]
        with key_server.running():
            made = PubSubPushHarness(server, key_server, keys[1])
            yield made
            await made.close()
