"""Networks with a mandatory proxy: AMQP over WebSockets, tokens and administration go through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from standins.azure.service_bus.server import NAMESPACE, ServiceBusStandIn
from standins.connect_proxy import ConnectProxy
from support.azure.messages import Namespace
from totoms.errors import Unavailable
from totoms_azure import clients

# The SDK gives the proxy's credentials to aiohttp in a form that aiohttp will drop with its version 4.
pytestmark = [
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'proxy_auth' parameter is deprecated:DeprecationWarning"),
    # Of a connection that breaks it leaves its own end open until that is collected.
    pytest.mark.filterwarnings("ignore:[Uu]nclosed:ResourceWarning"),
]

OVER_WEBSOCKETS = {"servicebus_transport": "websockets"}


@pytest.fixture
def proxy(server: ServiceBusStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    with ConnectProxy({NAMESPACE: server.port}) as made:
        monkeypatch.setenv("HTTPS_PROXY", made.url)
        monkeypatch.setattr(server, "websockets", 0)
        clients.CLIENTS.close()
        yield made
        clients.CLIENTS.close()


@pytest.fixture
async def behind(server: ServiceBusStandIn, proxy: ConnectProxy) -> AsyncIterator[Namespace]:
    async with Namespace(server) as made:
        yield made


def _named(server: ServiceBusStandIn) -> dict[str, str]:
    return {"servicebus_connection_string": server.named_connection_string, **OVER_WEBSOCKETS}


@pytest.mark.parametrize("ordered", [False, True])
async def test_messages_go_over_websockets_through_the_proxy(
    behind: Namespace, proxy: ConnectProxy, ordered: bool
) -> None:
    subscription = behind.ordered if ordered else behind.subscription
    bus = behind.bus(**_named(behind.server))

    await bus._subscribe(subscription, create=True)
    large = b"x" * 200_000
    outgoing = [behind.outgoing(b"small", "one"), behind.outgoing(large, "two")]
    assert await bus._publish(outgoing) == [None, None]
    received = await behind.received(bus, 2, subscription)

    assert sorted(one.body for one in received) == [b"small", large]
    assert await bus._ack(received) == [None, None]
    assert behind.server.websockets >= 2, "the sender and the receiver came by another way"
    assert set(proxy.asked) == {f"{NAMESPACE}:443"}
    await bus.close()
    assert behind.bodies() == []


async def test_connection_over_websockets_that_is_lost_is_opened_again(behind: Namespace) -> None:
    bus = behind.bus(**_named(behind.server))
    await bus._subscribe(behind.subscription, create=True)
    await behind.publish(b"before")
    assert [one.body for one in await behind.received(bus, 1)] == [b"before"]

    opened = behind.server.websockets
    await asyncio.to_thread(behind.server.kill_connections)
    await behind.publish(b"after")

    async with asyncio.timeout(60):
        bodies: list[bytes] = []
        while b"after" not in bodies:
            try:
                bodies += [one.body for one in await bus._receive(behind.subscription, 5, 2.0)]
            except Unavailable:
                continue
    assert behind.server.websockets > opened


@pytest.mark.parametrize("ordered", [False, True])
async def test_receive_over_websockets_that_waits_returns_when_its_consumer_stops(
    behind: Namespace, ordered: bool
) -> None:
    subscription = behind.ordered if ordered else behind.subscription
    bus = behind.bus(**_named(behind.server))
    await bus._subscribe(subscription, create=True)
    assert await bus._receive(subscription, 1, 0.1) == []

    receiving = asyncio.create_task(bus._receive(subscription, 10, 600.0))
    await asyncio.sleep(0)
    await bus._stop_receiving(subscription)
    assert await asyncio.wait_for(receiving, 120) == []
    await bus.close()

    await behind.until(lambda: not behind.server.connections, "no connection is left")
