"""What tests of Service Bus share: the stand-in, and the harness of the contract on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import amqp
from service_bus import ServiceBusStandIn, stored
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.testing import MessageBusHarness
from totoms_azure import clients
from totoms_azure.bus import AzureMessageBus
from totoms_azure.configuration import AzureConfiguration


@contextmanager
def stand_in() -> Iterator[ServiceBusStandIn]:
    """Run the stand-in; the SDK trusts its authority while it runs."""
    with ServiceBusStandIn() as server:
        before = os.environ.get("REQUESTS_CA_BUNDLE")
        os.environ["REQUESTS_CA_BUNDLE"] = server.ca_file
        try:
            yield server
        finally:
            clients.close_clients()
            os.environ.pop("REQUESTS_CA_BUNDLE")
            if before is not None:
                os.environ["REQUESTS_CA_BUNDLE"] = before


def environment(server: ServiceBusStandIn, **settings: Any) -> TotoEnvironment:
    """Return an environment whose namespace is the stand-in."""
    settings = {"servicebus_connection_string": server.connection_string, **settings}
    return TotoEnvironment("azure", AzureConfiguration(**settings))


def publish(server: ServiceBusStandIn, topic: str, body: bytes, attributes: Mapping[str, str], **about: Any) -> None:
    """Publish bytes as a program without totoms would."""
    parts = [amqp.section(amqp.PROPERTIES, [about.get("message_id"), *[None] * 9, about.get("session_id")])]
    if attributes:
        parts.append(amqp.section(amqp.APPLICATION_PROPERTIES, dict(attributes)))
    parts.append(amqp.section(amqp.DATA, body))
    message = stored(b"".join(parts))
    server.run(lambda: server.store.destination(topic).put(message))


class ServiceBusHarness(MessageBusHarness):
    """Buses on topics of the test's own.

    Args:
        server: The stand-in.
    """

    lease_seconds = 3.0
    patience = 20.0

    def __init__(self, server: ServiceBusStandIn) -> None:
        self.server = server
        self.buses: list[AzureMessageBus] = []
        self._impatient = type(
            "ImpatientBus", (AzureMessageBus,),
            {"lease_seconds": self.lease_seconds, "look_seconds": 2.0, "letters_patience": 0.3},
        )  # fmt: skip

    async def create_topic(self) -> str:
        name = f"topic-{new_cid()}"
        await asyncio.to_thread(self.server.make_topic, name)
        return name

    async def missing_topic(self) -> str:
        return f"topic-{new_cid()}"

    async def connect(self, topics: Mapping[str, str]) -> AzureMessageBus:
        bus: AzureMessageBus = self._impatient(environment(self.server), topics)
        self.buses.append(bus)
        return bus

    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        await asyncio.to_thread(publish, self.server, topic, body, attributes)

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.server.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(self.server.start)

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self.buses))
