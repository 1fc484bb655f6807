"""The contract of the message bus on Service Bus: a stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from standins.azure.service_bus.server import ServiceBusStandIn
from support.azure.messages import ServiceBusHarness, stand_in
from totoms.testing import MessageBusContract
from totoms_azure.messages.bus import AzureMessageBus


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusStandIn]:
    with stand_in() as running:
        yield running


@pytest.mark.quick
class TestServiceBus(MessageBusContract):
    backend = "azure"
    capabilities = AzureMessageBus.capabilities
    arrangement = "stand-in"

    @pytest.fixture
    async def harness(self, server: ServiceBusStandIn) -> AsyncIterator[ServiceBusHarness]:
        made = ServiceBusHarness(server)
        yield made
        await made.close()
