"""The contract of the message bus, held against Pub/Sub: Google's emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gcp_messages_kit import PubSubHarness, emulator
from totoms.testing import MessageBusContract
from totoms_gcp.bus import PubSubMessageBus


@pytest.fixture(scope="module")
def google_emulator() -> Iterator[int]:
    with emulator() as port:
        yield port


class TestPubSubOnGooglesEmulator(MessageBusContract):
    backend = "gcp"
    capabilities = PubSubMessageBus.capabilities
    arrangement = "Google's emulator"

    @pytest.fixture
    async def harness(self, google_emulator: int) -> AsyncIterator[PubSubHarness]:
        made = PubSubHarness(google_emulator)
        await made.start()
        yield made
        await made.close()
