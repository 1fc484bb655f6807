"""Google's emulator, a stand-in, and the harness of the message bus contract on either."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from standins.gcp.pubsub import Entry, PubSubStandIn
from standins.ports import free_port
from support.emulators import kept, require
from support.faults.proxy import FaultProxy
from support.messages.by_name import ByName
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription
from totoms.testing import MessageBusHarness
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.messages.bus import PubSubMessageBus

REMEDY = "gcloud components install pubsub-emulator, or apt-get install google-cloud-cli-pubsub-emulator"
SUBSCRIPTION = Subscription("shop-posts", "posts-topic", "posts")
REASON = DeadLetterReason("attempts_exhausted", "ValueError", "it did not work", 5)
_START_SECONDS = 120.0


@contextmanager
def emulator() -> Iterator[int]:
    """Run Google's emulator; yield its port. Without it the tests are skipped: the stand-in runs the same contract."""
    java = require("java", remedy=f"a Java runtime, and {REMEDY}", optional=True)
    gcloud = require("gcloud", remedy=REMEDY, optional=True)
    folder = Path(gcloud).resolve().parents[1] / "platform" / "pubsub-emulator" / "lib"
    jars = sorted(folder.glob("cloud-pubsub-emulator-*-all.jar"))
    if not jars:
        require("cloud-pubsub-emulator", remedy=REMEDY, optional=True)
    port = free_port()
    # Not through gcloud, which leaves the virtual machine running when it is ended.
    command = [java, "-Xmx512m", "-jar", str(jars[-1]), "--host=127.0.0.1", f"--port={port}"]
    with kept(command):
        wait_for(port)
        yield port


@contextmanager
def stand_in() -> Iterator[PubSubStandIn]:
    """Run the stand-in."""
    with PubSubStandIn() as server:
        yield server


def wait_for(port: int) -> None:
    """Return when a gRPC server answers there."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=_START_SECONDS)


class Operator:
    """Administers a server as its operator would, without the proxy.

    Args:
        port: Where the server listens.
        project: The project.
    """

    def __init__(self, port: int, project: str) -> None:
        self.project = project
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        )
        self.topics = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self.subscriptions = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))

    def make_topic(self, name: str = "") -> str:
        """Make a topic; return its name."""
        name = name or f"topic-{new_cid()}"
        self.topics.create_topic(name=f"projects/{self.project}/topics/{name}")
        return name

    def publish(self, topic: str, body: bytes, attributes: Mapping[str, str], key: str = "") -> None:
        """Publish bytes."""
        message = types.PubsubMessage(data=body, attributes=dict(attributes), ordering_key=key)
        self.topics.publish(topic=f"projects/{self.project}/topics/{topic}", messages=[message])

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class BusByName(ByName, PubSubMessageBus):
    """A bus whose receivers are reached through the bus, and which soon finds what was replayed."""

    look_seconds = 0.2


class Broker:
    """A stand-in, and buses on it. Use it with ``async with``.

    Attributes:
        server: The stand-in.
        operator: Administers it.
        topic: The path of a topic.
    """

    project = "project-one"

    async def __aenter__(self) -> Broker:
        self.server = await asyncio.to_thread(PubSubStandIn().__enter__)
        self.operator = Operator(self.server.port, self.project)
        self.topic = f"projects/{self.project}/topics/{self.operator.make_topic('posts-topic')}"
        self._buses: list[BusByName] = []
        os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{self.server.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses))
        self.operator.close()
        await asyncio.to_thread(self.server.__exit__)
        os.environ.pop("PUBSUB_EMULATOR_HOST")

    def bus(self, topic: str = "posts-topic", **settings: str) -> BusByName:
        """Return a bus that knows `topic` as ``posts``."""
        environment = TotoEnvironment("gcp", GCPConfiguration(project_id=self.project, **settings))
        made = BusByName(environment, {"posts": topic})
        self._buses.append(made)
        return made

    def made(self, name: str) -> Any:
        """Return a subscription as it was made."""
        return self.server.subscriptions[f"projects/{self.project}/subscriptions/{name}"].config

    def entries(self, name: str) -> list[Entry]:
        """Return the messages of a subscription."""
        return self.server.subscriptions[f"projects/{self.project}/subscriptions/{name}"].entries

    def change(self, name: str, **fields: Any) -> None:
        """Set fields of a subscription, as its operator."""
        for field, value in fields.items():
            setattr(self.made(name), field, value)


async def subscribed(broker: Broker, *bodies: bytes, exactly_once: bool = False) -> tuple[BusByName, list[Received]]:
    """Return a bus that is subscribed, and what it has received: messages with `bodies`."""
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    broker.change("shop-posts", enable_exactly_once_delivery=exactly_once)
    for body in bodies:
        await asyncio.to_thread(broker.operator.publish, "posts-topic", body, {})
    got: list[Received] = []
    while len(got) < len(bodies):
        got += await bus._receive(SUBSCRIPTION, len(bodies) - len(got), 10.0)
    return bus, got


async def make_letters(broker: Broker, bus: BusByName, number: int) -> None:
    """Publish messages, receive and dead-letter them."""
    messages = [{"data": b"%d" % one} for one in range(number)]
    await asyncio.to_thread(broker.operator.topics.publish, topic=broker.topic, messages=messages)
    came: list[Received] = []
    while len(came) < number:
        batch = await bus._receive(SUBSCRIPTION, number - len(came), 10.0)
        await asyncio.gather(*(bus._dead_letter(one, REASON) for one in batch))
        came += batch


class PubSubHarness(MessageBusHarness):
    """Buses in a project of their own, behind a proxy that can be killed.

    Args:
        server: The stand-in, or the port on which Google's emulator listens.
    """

    short_lease_seconds = 4.0
    bus_class: ClassVar[type[PubSubMessageBus]] = PubSubMessageBus

    def __init__(self, server: PubSubStandIn | int) -> None:
        self._server = server
        port = server if isinstance(server, int) else server.port
        self.project = f"project-{new_cid()[:16]}"
        self.operator = Operator(port, self.project)
        self.proxy = FaultProxy(port)
        self.buses: list[PubSubMessageBus] = []

    async def start(self) -> None:
        """Begin: the buses find the server by the variable that Google's clients read."""
        await self.proxy.restore()
        os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{self.proxy.port}"

    async def create_topic(self) -> str:
        return await asyncio.to_thread(self.operator.make_topic)

    async def missing_topic(self) -> str:
        return f"topic-{new_cid()}"

    def environment(self, **settings: str) -> TotoEnvironment:
        return TotoEnvironment("gcp", GCPConfiguration(project_id=self.project, **settings))

    async def connect(self, topics: Mapping[str, str]) -> PubSubMessageBus:
        settings = {"lease_seconds": int(self.lease_seconds), "look_seconds": 2.0}
        bus: PubSubMessageBus = type("ImpatientBus", (self.bus_class,), settings)(self.environment(), topics)
        self.buses.append(bus)
        return bus

    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        await asyncio.to_thread(self.operator.publish, topic, body, attributes)

    async def refuse(self, marker: str) -> bool:
        if isinstance(self._server, int):
            return False
        self._server.refused.add(marker.encode())
        return True

    async def delete_subscription(self, subscription: Subscription) -> bool:
        path = f"projects/{self.project}/subscriptions/{subscription.name}"
        await asyncio.to_thread(self.operator.subscriptions.delete_subscription, subscription=path)
        return True

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        await self.proxy.kill()
        try:
            yield
        finally:
            await self.proxy.restore()

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self.buses))
        await self.proxy.kill()
        await asyncio.to_thread(self.operator.close)
        os.environ.pop("PUBSUB_EMULATOR_HOST", None)
