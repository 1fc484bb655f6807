"""The backend of a `TestMicroservice`: the local backend in a temporary folder, with its own clock and secrets.

It is registered as the hyperscaler `testing`, which no setting chooses, and reads nothing from the machine.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from pydantic import Field

from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, NotFound, Unsupported
from totoms.local.configuration import LocalConfiguration
from totoms.local.messages.bus import LocalMessageBus
from totoms.local.messages.dead_letters import LocalDeadLetters
from totoms.local.messages.receiver import LocalReceiver
from totoms.local.messages.writer import Writer
from totoms.local.secrets import JWT_KEY_SECRET, LocalSecretsManager
from totoms.local.storage.storage import LocalCloudStorage
from totoms.logging.masking import forget_secrets
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.events import TotoEvent
from totoms.messages.message import DataT, MessageDestination, TotoMessage, decode_message
from totoms.messages.outgoing import Outgoing
from totoms.messages.publishes import Publishable
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription
from totoms.plugins import loader as plugins
from totoms.plugins.configuration import HyperscalerConfiguration
from totoms.plugins.hookspecs import hookimpl
from totoms.secrets import manager as secret_caches

HYPERSCALER: Final = "testing"


@dataclass(slots=True)
class PublishedMessage(TotoMessage[DataT]):
    """A message as the service under test published it. The data of an event is an event of the same class.

    Attributes:
        topic: The logical name of the topic, or None.
        queue: The name of the queue, or None.
        message_id: The id that `publish_message` returned.
        attributes: The attributes sent with the body.
        ordering_key: The ordering key, or None.
        delay: The delay in seconds.
    """

    topic: str | None = None
    queue: str | None = None
    message_id: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    ordering_key: str | None = None
    delay: float = 0.0


class TestBackend:
    """The clock, secrets and published messages of one environment.

    Args:
        secrets: The secrets by name. Without a ``jwt-signing-key`` it creates one.

    Attributes:
        secrets: The secrets; a change takes effect at the next read.
        now: The time of the message bus, in seconds since the epoch. It stands still.
        published: The published messages, in order.
        settled: Called after a message was settled.
        environment: The environment.
    """

    __test__ = False  # pytest must not collect it

    def __init__(self, secrets: Mapping[str, str | bytes] | None = None) -> None:
        self.secrets: MutableMapping[str, str | bytes] = {JWT_KEY_SECRET: new_cid() + new_cid(), **(secrets or {})}
        self.now = time.time()
        self.published: list[PublishedMessage[Any]] = []
        self.settled: Callable[[], None] = lambda: None
        self.root = Path(tempfile.gettempdir()) / f"totoms-{new_cid()}"  # the backend creates it, for its owner only
        _provide()
        # With both given, neither is read from environment variables.
        configuration = TestBackendConfiguration(root=self.root, environment="test", backend=self)
        self.environment = TotoEnvironment(HYPERSCALER, configuration)

    def clock(self) -> float:
        """Return the time of the message bus."""
        return self.now

    def remove(self) -> None:
        """Delete the folder. Blocks."""
        shutil.rmtree(self.root, ignore_errors=True)
        with secret_caches._caches_lock:
            for key in [key for key in secret_caches._caches if key[1] == self.environment]:
                del secret_caches._caches[key]
        forget_secrets(self.environment)


class TestBackendConfiguration(LocalConfiguration):
    """Settings of the local backend, with the `TestBackend`."""

    __test__ = False

    backend: Any = Field(repr=False, exclude=True)


def _backend_of(environment: TotoEnvironment) -> TestBackend:
    return cast(TestBackend, environment.hyperscaler_configuration.backend)


class TestBackendSecretsManager(LocalSecretsManager):
    """Returns the secrets of the test."""

    __test__ = False

    def _fetch(self, name: str, version: str | None) -> bytes:
        if version is not None:
            raise Unsupported("The secrets of a TestMicroservice have no versions.", resource=name)
        value = _backend_of(self.environment).secrets.get(name)
        if value is None:
            raise NotFound(f"No secret {name!r}: give it with TestMicroservice(..., secrets={{...}}).", resource=name)
        return value.encode() if isinstance(value, str) else value


class _Receiver(LocalReceiver):
    """Calls `settled` after each settled message."""

    def __init__(self, receiver: LocalReceiver, backend: TestBackend) -> None:
        super().__init__(receiver._feed, receiver._writer)
        self._backend = backend

    async def ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        results = await super().ack(batch)
        self._backend.settled()
        return results

    async def nack(self, received: Received, delay: float) -> None:
        await super().nack(received, delay)
        self._backend.settled()

    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        letter_id = await super().dead_letter(received, reason)
        self._backend.settled()
        return letter_id


class _DeadLetters(LocalDeadLetters):
    """Calls `settled` after a pushed message was dead-lettered."""

    def __init__(self, subscription: str, writer: Callable[[], Writer], backend: TestBackend) -> None:
        super().__init__(subscription, writer)
        self._backend = backend

    async def keep(self, received: Received, reason: DeadLetterReason) -> str | None:
        letter_id = await super().keep(received, reason)
        self._backend.settled()
        return letter_id


class TestBackendMessageBus(LocalMessageBus):
    """The local bus with the clock of the `TestBackend`, which records what is published."""

    __test__ = False

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        self._events: dict[str, TotoEvent] = {}

    def _get_writer(self) -> Writer:
        writer = super()._get_writer()
        writer.clock = _backend_of(self.environment).clock
        return writer

    def _outgoing(
        self, destination: MessageDestination, message: Publishable, ordering_key: str | None, delay: float
    ) -> Outgoing:
        outgoing = super()._outgoing(destination, message, ordering_key, delay)
        data = message.data if isinstance(message, TotoMessage) else message
        if isinstance(data, TotoEvent):
            self._events[outgoing.message_id] = data.model_copy(deep=True)
        return outgoing

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        results = await super()._publish(batch)
        names = {identifier: name for name, identifier in self.topics.items()}
        for outgoing, error in zip(batch, results, strict=True):
            event = self._events.pop(outgoing.message_id, None)
            if error is None:
                _backend_of(self.environment).published.append(_published(outgoing, names, event))
        return results

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> LocalReceiver:
        receiver = await super()._subscribe(subscription, create=create)
        return _Receiver(receiver, _backend_of(self.environment))

    def _dead_letters(self, subscription: str) -> LocalDeadLetters:
        return _DeadLetters(subscription, self._get_writer, _backend_of(self.environment))

    async def busy(self) -> int:
        """Return how many messages of this bus's subscriptions are being handled, or are due."""
        return int(await self._ask("SELECT count(*) FROM deliveries WHERE (token OR (NOT behind AND due <= ?))") or 0)

    async def next_due(self) -> float | None:
        """Return when the next waiting message of this bus's subscriptions is due, or None."""
        found: float | None = await self._ask(
            "SELECT min(due) FROM deliveries WHERE NOT token AND NOT behind AND due > ?"
        )
        return found

    async def deliver_due(self) -> None:
        """Deliver the messages that are due now."""
        self._get_writer().nudge()

    async def _ask(self, sql: str) -> Any:
        rows = [feed.row for feed in self._feeds]
        if not rows:
            return None
        sql += f" AND subscription IN ({','.join('?' * len(rows))})"
        now = _backend_of(self.environment).now
        return await self._do(lambda connection: connection.execute(sql, (now, *rows)).fetchone()[0])


def _published(outgoing: Outgoing, names: Mapping[str, str], event: TotoEvent | None) -> PublishedMessage[Any]:
    message = decode_message(outgoing.body)
    return PublishedMessage(
        message.timestamp,
        message.cid,
        message.id,
        message.type,
        message.msg,
        message.data if event is None else event,
        topic=names.get(outgoing.topic) if outgoing.topic else None,
        queue=outgoing.queue,
        message_id=outgoing.message_id,
        attributes=dict(outgoing.attributes),
        ordering_key=outgoing.ordering_key,
        delay=outgoing.delay,
    )


class _Plugin:
    """The hooks of the hyperscaler `testing`."""

    @hookimpl
    def totoms_configuration(self) -> type[HyperscalerConfiguration]:
        return TestBackendConfiguration

    @hookimpl
    def totoms_secrets_manager(self) -> type[LocalSecretsManager]:
        return TestBackendSecretsManager

    @hookimpl
    def totoms_cloud_storage(self) -> type[LocalCloudStorage]:
        return LocalCloudStorage

    @hookimpl
    def totoms_message_bus(self) -> type[LocalMessageBus]:
        return TestBackendMessageBus


_providing: Final = threading.Lock()


def _provide() -> None:
    with _providing:
        if HYPERSCALER not in plugins._backends:
            plugins.provide(HYPERSCALER, _Plugin())
