"""The data of the console: recorded events, and what is read from the backend when a page is opened."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from totoms.console.recorder import Recorder
from totoms.console.views import Service, SpanView
from totoms.controller_config import JWT_KEY_SECRET
from totoms.environment import TotoEnvironment, for_development
from totoms.errors import BackendError, NotFound, TotoError, Unsupported
from totoms.logging.masking import mask
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetter
from totoms.messages.driver import BACKLOG
from totoms.messages.message import MessageDestination, TotoMessage
from totoms.messages.subscription import Backlog, Subscription
from totoms.secrets.manager import SecretsManager
from totoms.storage.storage import CloudStorage

MOST_LISTED: Final = 200
_MOST_SHOWN: Final = 64 * 1024
"""Bytes of a file that are shown."""
_PATIENCE: Final = 5.0


@dataclass(frozen=True)
class SubscriptionView:
    """A subscription and its backlog.

    Attributes:
        name: Its name.
        service: Whose it is.
        topic: The logical name of the topic.
        waiting: How many messages are not handled yet; None if that is not known.
        oldest: For how many seconds the oldest could have been handled; None if that is not known.
        problem: Why it is not known.
    """

    name: str
    service: str
    topic: str
    waiting: int | None
    oldest: float | None
    problem: str = ""


@dataclass(frozen=True)
class Connection:
    """An event that a service publishes or handles on a topic.

    Attributes:
        service: The service.
        topic: The logical name of the topic.
        event: The type of the event, with its version.
        publishes: Whether it publishes; otherwise it handles.
    """

    service: str
    topic: str
    event: str
    publishes: bool


@dataclass(frozen=True)
class SecretView:
    """A secret that a service needs.

    Attributes:
        name: Its name.
        services: Which services.
        present: Whether it exists; None if that cannot be read.
    """

    name: str
    services: tuple[str, ...]
    present: bool | None


@dataclass(frozen=True)
class Node:
    """A span in its trace.

    Attributes:
        span: The span.
        depth: How deep it is.
        offset: Where it begins, as a part of the trace, from 0 to 1.
        width: How long it takes, as a part of the trace, from 0 to 1.
    """

    span: SpanView
    depth: int
    offset: float
    width: float


class Console:
    """Reads data for the pages and for tools. It never receives messages, and changes data only if `write` is set.

    Args:
        recorder: What was seen.
        environment: Where the services run.
        write: Whether replaying, purging, publishing and calls that change something are allowed.
    """

    def __init__(self, recorder: Recorder, environment: TotoEnvironment, *, write: bool) -> None:
        self.recorder = recorder
        self.environment = environment
        self.write = write
        self.development = for_development(environment)
        self._bus: MessageBus | None = None

    @property
    def bus(self) -> MessageBus:
        """The console's own bus. It never receives, and publishes only what a user submits."""
        if self._bus is None:
            self._bus = MessageBus(self.environment, {})
        return self._bus

    async def close(self) -> None:
        """Close the bus."""
        if self._bus is not None:
            await self._bus.close()

    # --- services ---

    def connections(self) -> list[Connection]:
        """Return who publishes what, and who handles it."""
        found: set[Connection] = set()
        for service in self.recorder.services():
            every = [topic["name"] for topic in service.manifest["topics"]]
            for kind, publishes in (("published", True), ("consumed", False)):
                for event in service.manifest["events"][kind]:
                    version = f" v{event['version']}" if event["version"] not in (None, 1) else ""
                    for topic in event["topics"] or every:
                        found.add(Connection(service.name, topic, f"{event['type']}{version}", publishes))
        return sorted(found, key=lambda one: (one.topic, one.service, one.event, one.publishes))

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return the subscriptions of all services with their backlogs."""
        wanted = [
            (service, topic)
            for service in self.recorder.services()
            for topic in service.manifest["topics"]
            if topic["subscription"]
        ]
        return list(await asyncio.gather(*(self._subscription(service, topic) for service, topic in wanted)))

    async def _subscription(self, service: Service, topic: dict[str, Any]) -> SubscriptionView:
        name, logical = topic["subscription"], topic["name"]
        backlog: Backlog | None = None
        problem = ""
        try:
            if BACKLOG not in self.bus.capabilities:
                raise Unsupported(f"{self.environment.hyperscaler} does not say how many messages wait.")
            async with asyncio.timeout(_PATIENCE):
                identifier = await SecretsManager(self.environment).topic_identifier_async(topic["secret"], logical)
                backlog = await self.bus._backlog(Subscription(name, identifier, logical))
        except TimeoutError:
            problem = "The broker does not answer."
        except TotoError as error:
            problem = error.message
        return SubscriptionView(
            name,
            service.name,
            logical,
            backlog.messages if backlog else None,
            backlog.oldest_seconds if backlog else None,
            problem,
        )

    # --- dead letters ---

    async def dead_letters(self, subscription: str) -> list[DeadLetter]:
        """Return the dead letters of a subscription, the oldest first."""
        return await self.bus.list_dead_letters(subscription, MOST_LISTED)

    async def dead_letter(self, subscription: str, letter_id: str) -> DeadLetter:
        """Return one dead letter."""
        return await self.bus.show_dead_letter(subscription, letter_id)

    async def replay(self, subscription: str, letter_ids: list[str] | None) -> int:
        """Deliver dead letters again; None for all. Return how many."""
        self._must_write()
        return await self.bus.replay_dead_letters(subscription, letter_ids)

    async def purge(self, subscription: str, letter_ids: list[str] | None) -> int:
        """Delete dead letters for good; None for all. Return how many."""
        self._must_write()
        return await self.bus.purge_dead_letters(subscription, letter_ids)

    async def publish(self, topic: str, kind: str, data: Any) -> str:
        """Publish a new message to a topic that a service declares, and return its id."""
        self._must_write()
        for service in self.recorder.services():
            for one in service.manifest["topics"]:
                if one["name"] == topic:
                    manager = SecretsManager(self.environment)
                    identifier = await manager.topic_identifier_async(one["secret"], topic)
                    bus = MessageBus(self.environment, {topic: identifier})
                    try:
                        message = TotoMessage(type=kind, msg="from the console", data=data)
                        return await bus.publish_message(MessageDestination(topic=topic), message)
                    finally:
                        await bus.close()
        raise NotFound(f"No service declares the topic {topic!r}.")

    def _must_write(self) -> None:
        if not self.write:
            raise Unsupported("The console only shows: start it with --write to change something.")

    # --- files and secrets ---

    def buckets(self) -> list[str]:
        """Return the buckets that services declare."""
        return sorted({name for one in self.recorder.services() for name in one.manifest["resources"]["buckets"]})

    async def files(self, bucket: str, prefix: str) -> list[str]:
        """Return the first files of a declared bucket."""
        storage = self._storage(bucket)
        return await asyncio.to_thread(lambda: list(islice(storage.iter_files(prefix), MOST_LISTED)))

    async def file(self, bucket: str, key: str) -> tuple[str, int]:
        """Return the beginning of a file as text, and its size."""
        storage = self._storage(bucket)

        def read() -> tuple[str, int]:
            size = storage.stat(key).size
            if not size:
                return "", 0
            with storage.stream_file(key, 0, min(size, _MOST_SHOWN) - 1) as chunks:
                return mask(b"".join(chunks).decode("utf-8", "backslashreplace")), size

        return await asyncio.to_thread(read)

    def _storage(self, bucket: str) -> CloudStorage:
        if bucket not in self.buckets():
            raise NotFound(f"No service declares the bucket {bucket!r}.")
        return CloudStorage(bucket, environment=self.environment)

    async def secrets(self) -> list[SecretView]:
        """Return the names of the secrets that services declare, and whether they exist. Values are not kept."""
        wanted: dict[str, set[str]] = {}
        for service in self.recorder.services():
            names = [*service.manifest["resources"]["secrets"], JWT_KEY_SECRET]
            names += [topic["secret"] for topic in service.manifest["topics"]]
            for name in names:
                wanted.setdefault(name, set()).add(service.name)
        found = await asyncio.gather(*map(self._exists, wanted))
        return [
            SecretView(name, tuple(sorted(services)), present)
            for (name, services), present in sorted(zip(wanted.items(), found, strict=True))
        ]

    async def _exists(self, name: str) -> bool | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await SecretsManager(self.environment).get_secret_bytes_async(name)
        except NotFound:
            return False
        except (BackendError, TimeoutError):
            return None
        return True

    # --- traces ---

    def trace(self, trace: str) -> list[Node]:
        """Return the spans of a trace as a tree, from the top down."""
        spans = self.recorder.spans(trace)
        if not spans:
            return []
        begun = min(one.begun for one in spans)
        whole = max(max(one.begun + one.seconds for one in spans) - begun, 1e-9)
        known = {one.id for one in spans}
        children: dict[str, list[SpanView]] = {}
        for one in spans:
            children.setdefault(one.parent if one.parent in known else "", []).append(one)
        found: list[Node] = []
        waiting = [(one, 0) for one in reversed(children.get("", []))]
        while waiting:
            span, depth = waiting.pop()
            found.append(Node(span, depth, (span.begun - begun) / whole, max(span.seconds / whole, 0.002)))
            waiting += [(one, depth + 1) for one in reversed(children.pop(span.id, []))]
        return found
