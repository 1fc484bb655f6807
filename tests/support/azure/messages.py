"""What tests of Service Bus share: the stand-in, and the harness of the contract on it."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from standins.azure.service_bus import amqp
from standins.azure.service_bus.server import ServiceBusStandIn, stored
from support.faults.oracle import until
from support.messages.by_name import ByName
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.messages.outgoing import Outgoing
from totoms.messages.subscription import Subscription
from totoms.testing import MessageBusHarness
from totoms_azure import clients
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.messages.bus import AzureMessageBus
from totoms_azure.messages.naming import entity_of


class BusOfTests(ByName, AzureMessageBus):
    """A bus whose receivers and dead letters are reached by name."""


@contextmanager
def stand_in() -> Iterator[ServiceBusStandIn]:
    """Run the stand-in; the SDK trusts its authority while it runs."""
    with ServiceBusStandIn() as server:
        before = os.environ.get("REQUESTS_CA_BUNDLE")
        os.environ["REQUESTS_CA_BUNDLE"] = server.ca_file
        try:
            yield server
        finally:
            clients.CLIENTS.close()
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


def collect() -> None:
    """Have collected what is left over: of a connection that breaks the SDK leaves its own end open until then.

    Else that happens in the midst of some other test, which fails for the warning.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class ServiceBusHarness(MessageBusHarness):
    """Buses on topics of the test's own.

    Args:
        server: The stand-in.
    """

    short_lease_seconds = 5.0

    def __init__(self, server: ServiceBusStandIn) -> None:
        self.server = server
        self.buses: list[BusOfTests] = []

    async def create_topic(self) -> str:
        name = f"topic-{new_cid()}"
        await asyncio.to_thread(self.server.make_topic, name)
        return name

    async def missing_topic(self) -> str:
        return f"topic-{new_cid()}"

    async def connect(self, topics: Mapping[str, str]) -> BusOfTests:
        settings = {"lease_seconds": self.lease_seconds, "look_seconds": 2.0}
        bus: BusOfTests = type("ImpatientBus", (BusOfTests,), settings)(environment(self.server), topics)
        self.buses.append(bus)
        return bus

    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        await asyncio.to_thread(publish, self.server, topic, body, attributes)

    async def refuse(self, marker: str) -> bool:
        self.server.run(lambda: self.server.refused.add(marker.encode()))
        return True

    async def delete_subscription(self, subscription: Subscription) -> bool:
        name = entity_of(subscription).name
        await asyncio.to_thread(self.server.delete_subscription, subscription.topic, name)
        return True

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.server.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(self.server.start)

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self.buses))
        self.buses.clear()
        collect()


class Namespace:
    """A topic of the test's own on a stand-in that tests share; what a test changes of that is put right after it.

    Args:
        server: The stand-in.

    Attributes:
        topic: The topic's name.
        subscription: A subscription to it, which is not made yet.
        ordered: The same, and it keeps an order.
    """

    def __init__(self, server: ServiceBusStandIn) -> None:
        self.server = server
        self.topic = f"topic-{new_cid()}"
        self.subscription = Subscription("shop-posts", self.topic, "posts")
        self.ordered = replace(self.subscription, ordered=True)
        self.path = f"{self.topic}/subscriptions/shop-posts"
        self.buses: list[BusOfTests] = []

    async def __aenter__(self) -> Namespace:
        await asyncio.to_thread(self.server.make_topic, self.topic)
        self.server.admin_requests.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.denied.clear()
        self.server.admin_denied = self.server.busy = self.server.rejects_mixed_sessions = False
        self.server.delay = 0.0
        self.server.max_message_size = 262_144
        await asyncio.gather(*(bus.close() for bus in self.buses))
        self.buses.clear()
        collect()

    def bus(
        self, *, lease_seconds: float = 15.0, look_seconds: float = 30.0, topics: Any = None, **settings: Any
    ) -> BusOfTests:
        """Return a new bus; it is closed after the test."""
        quick = {"lease_seconds": lease_seconds, "look_seconds": look_seconds}
        kind = type("QuickBus", (BusOfTests,), quick)
        known = {"posts": self.topic} if topics is None else topics
        made: BusOfTests = kind(environment(self.server, **settings), known)
        self.buses.append(made)
        return made

    async def publish(self, *bodies: bytes, key: str | None = None) -> None:
        """Publish as another program would."""
        for body in bodies:
            await asyncio.to_thread(publish, self.server, self.topic, body, {}, session_id=key)

    async def received(self, bus: BusOfTests, number: int, subscription: Subscription | None = None) -> list[Any]:
        """Receive as many messages, which are there or come soon."""
        got: list[Any] = []
        async with asyncio.timeout(120):
            while len(got) < number:
                got += await bus._receive(subscription or self.subscription, number - len(got), 5.0)
        return got

    def outgoing(self, body: bytes, key: str | None = None, **about: Any) -> Outgoing:
        """Return a message to publish; to the topic, unless another, or a queue, is named."""
        where = about if about else {"topic": self.topic}
        message_id = new_cid()
        return Outgoing(body, message_id, {"messageId": message_id}, ordering_key=key, **where)

    def counts(self, path: str = "") -> list[int]:
        """Return how often each message has been delivered in vain."""
        return [message.delivery_count for message in self.server.messages(path or self.path)]

    def bodies(self, path: str = "") -> list[bytes]:
        """Return what there is."""
        found = self.server.messages(path or self.path)
        return [bytes(amqp.section_value(raw)) for one in found for code, raw in one.sections if code == amqp.DATA]

    def locked(self) -> int:
        """Return how many messages are locked."""
        return self.server.run(lambda: len(self.server.store.source(self.path).locked))

    def takes_back(self, body: bytes | None = None) -> None:
        """Have the broker end the locks of all messages, or of one."""

        def take_back() -> None:
            queue = self.server.store.source(self.path)
            for token, message in list(queue.locked.items()):
                if body is None or (amqp.DATA, body) in [
                    (code, bytes(amqp.section_value(raw))) for code, raw in message.sections if code == amqp.DATA
                ]:
                    queue.abandon(token)

        self.server.run(take_back)

    def ends_sessions(self) -> None:
        """Have the broker end the locks of all sessions."""

        def end() -> None:
            queue = self.server.store.source(self.path)
            for key, (owner, _) in list(queue.sessions.items()):
                queue.give_up(owner, key, failed=True)
                owner.lose_session()

        self.server.run(end)

    async def until(self, found: Callable[[], Any], what: str) -> None:
        """Wait for what happens at the broker."""
        await asyncio.to_thread(until, found, lambda: what, 20.0)
