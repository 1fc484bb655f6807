"""What tests of Pub/Sub share: Google's emulator, and the harness of the contract on a server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from emulators import require
from fault_proxy import FaultProxy
from pubsub import PubSubStandIn
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.testing import MessageBusHarness
from totoms_gcp.bus import PubSubMessageBus
from totoms_gcp.configuration import GCPConfiguration

REMEDY = "gcloud components install pubsub-emulator, or apt-get install google-cloud-cli-pubsub-emulator"
_START_SECONDS = 60.0


@contextmanager
def emulator() -> Iterator[int]:
    """Run Google's emulator; give its port. Without it the tests are skipped: there is the stand-in of our own."""
    java = require("java", remedy=f"a Java runtime, and {REMEDY}", optional=True)
    gcloud = require("gcloud", remedy=REMEDY, optional=True)
    folder = Path(gcloud).resolve().parents[1] / "platform" / "pubsub-emulator" / "lib"
    jars = sorted(folder.glob("cloud-pubsub-emulator-*-all.jar"))
    if not jars:
        require("cloud-pubsub-emulator", remedy=REMEDY, optional=True)
    port = _free_port()
    # Not through gcloud, which leaves the virtual machine running when it is ended.
    command = [java, "-Xmx512m", "-jar", str(jars[-1]), "--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def stand_in() -> Iterator[PubSubStandIn]:
    """Run the stand-in of our own."""
    with PubSubStandIn() as server:
        yield server


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Return when a gRPC server answers there."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=_START_SECONDS)


class Operator:
    """Administers a server as its operator would, whatever becomes of the proxy.

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


class Broker:
    """A stand-in, and buses on it, for a test of our own. Use it with ``async with``.

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
        self._buses: list[PubSubMessageBus] = []
        os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{self.server.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses))
        self.operator.close()
        await asyncio.to_thread(self.server.__exit__)
        os.environ.pop("PUBSUB_EMULATOR_HOST")

    def bus(self, topic: str = "posts-topic", **settings: str) -> PubSubMessageBus:
        """Return a bus that knows `topic` as ``posts``."""
        impatient = type("ImpatientBus", (PubSubMessageBus,), {"look_seconds": 0.2, "letters_patience": 0.3})
        environment = TotoEnvironment("gcp", GCPConfiguration(project_id=self.project, **settings))
        made: PubSubMessageBus = impatient(environment, {"posts": topic})
        self._buses.append(made)
        return made

    def made(self, name: str) -> Any:
        """Return a subscription as it was made."""
        return self.server.subscriptions[f"projects/{self.project}/subscriptions/{name}"].config

    def change(self, name: str, **fields: Any) -> None:
        """Set fields of a subscription, as its operator."""
        for field, value in fields.items():
            setattr(self.made(name), field, value)


class PubSubHarness(MessageBusHarness):
    """Buses in a project of the test's own, behind a proxy that can be killed.

    Args:
        port: Where the server listens.
    """

    lease_seconds = 3.0
    patience = 20.0
    bus_class: ClassVar[type[PubSubMessageBus]] = PubSubMessageBus

    def __init__(self, port: int) -> None:
        self.project = f"project-{new_cid()[:16]}"
        self.operator = Operator(port, self.project)
        self.proxy = FaultProxy(port)
        self.buses: list[PubSubMessageBus] = []
        self._impatient = type(
            "ImpatientBus", (self.bus_class,),
            {"lease_seconds": int(self.lease_seconds), "look_seconds": 0.3, "letters_patience": 0.5},
        )  # fmt: skip

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
        bus: PubSubMessageBus = self._impatient(self.environment(), topics)
        self.buses.append(bus)
        return bus

    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        await asyncio.to_thread(self.operator.publish, topic, body, attributes)

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
