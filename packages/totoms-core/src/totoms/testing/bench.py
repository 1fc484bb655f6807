"""What a `TestMicroservice` runs on in place of a cloud: the local backend on a folder of its own, and a given clock.

It is a hyperscaler like any other, but no installed one: no setting chooses it, and nothing of the machine is read.
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

from totoms import plugins
from totoms import secrets as secret_caches
from totoms.context import new_cid
from totoms.envelope import DeadLetterReason, Outgoing, Received
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError, NotFound, Unsupported
from totoms.hookspecs import hookimpl
from totoms.hyperscaler import HyperscalerConfiguration
from totoms.local.bus import LocalMessageBus
from totoms.local.configuration import LocalConfiguration
from totoms.local.secrets import JWT_KEY_SECRET, LocalSecretsManager
from totoms.local.storage import LocalCloudStorage
from totoms.local.writer import Writer
from totoms.messages import TotoMessage, decode_message

HYPERSCALER: Final = "testing"


@dataclass(slots=True)
class PublishedMessage(TotoMessage):
    """A message as the service under test published it.

    Attributes:
        topic: The logical name of the topic, or None.
        queue: The name of the queue, or None.
        message_id: What `publish_message` returned.
        attributes: What travels beside the body.
        ordering_key: As given.
        delay: As given, in seconds.
    """

    topic: str | None = None
    queue: str | None = None
    message_id: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    ordering_key: str | None = None
    delay: float = 0.0


class Bench:
    """The state of one environment: its clock, its secrets, and what was published in it.

    Args:
        secrets: By name. ``jwt-signing-key`` is made if it is not given.

    Attributes:
        secrets: May be changed at any time; each reading gets what is there.
        now: The time of the message bus, in seconds since the epoch. It stands still.
        published: What was published, in order.
        settled: Called when a message was settled.
        environment: The environment.
    """

    def __init__(self, secrets: Mapping[str, str | bytes] | None = None) -> None:
        self.secrets: MutableMapping[str, str | bytes] = {JWT_KEY_SECRET: new_cid() + new_cid(), **(secrets or {})}
        self.now = time.time()
        self.published: list[PublishedMessage] = []
        self.settled: Callable[[], None] = lambda: None
        self.root = Path(tempfile.gettempdir()) / f"totoms-{new_cid()}"  # made by the backend, for its owner alone
        _provide()
        # Both are given, so that neither is looked for in the environment variables.
        configuration = BenchConfiguration(root=self.root, environment="test", bench=self)
        self.environment = TotoEnvironment(HYPERSCALER, configuration)

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def remove(self) -> None:
        """Remove what was stored. Blocks."""
        shutil.rmtree(self.root, ignore_errors=True)
        with secret_caches._caches_lock:
            for key in [key for key in secret_caches._caches if key[1] == self.environment]:
                del secret_caches._caches[key]


class BenchConfiguration(LocalConfiguration):
    """Settings of the local backend, with a bench."""

    bench: Any = Field(repr=False, exclude=True)


def _bench(environment: TotoEnvironment) -> Bench:
    return cast(Bench, environment.hyperscaler_configuration.bench)


class BenchSecretsManager(LocalSecretsManager):
    """Knows the secrets that the test gave."""

    def _fetch(self, name: str, version: str | None) -> bytes:
        if version is not None:
            raise Unsupported("The secrets of a test have no versions.", resource=name)
        value = _bench(self.environment).secrets.get(name)
        if value is None:
            raise NotFound(f"No secret {name!r}: give it with TestMicroservice(..., secrets={{...}}).", resource=name)
        return value.encode() if isinstance(value, str) else value


class BenchMessageBus(LocalMessageBus):
    """The local bus by the bench's clock. Tells the bench what is published, and when something was settled."""

    def _writer_of(self) -> Writer:
        writer = super()._writer_of()
        writer.clock = _bench(self.environment).clock
        return writer

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        results = await super()._publish(batch)
        names = {identifier: name for name, identifier in self.topics.items()}
        for outgoing, error in zip(batch, results, strict=True):
            if error is None:
                _bench(self.environment).published.append(_published(outgoing, names))
        return results

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        results = await super()._ack(batch)
        _bench(self.environment).settled()
        return results

    async def _nack(self, received: Received, delay: float) -> None:
        await super()._nack(received, delay)
        _bench(self.environment).settled()

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        await super()._dead_letter(received, reason)
        _bench(self.environment).settled()

    async def busy(self) -> int:
        """Return how many messages of this bus's subscriptions are at work, or could be."""
        return int(await self._ask("SELECT count(*) FROM deliveries WHERE (token OR (NOT behind AND due <= ?))") or 0)

    async def next_due(self) -> float | None:
        """Return when the next waiting message of this bus's subscriptions is due; None when none waits."""
        found: float | None = await self._ask(
            "SELECT min(due) FROM deliveries WHERE NOT token AND NOT behind AND due > ?"
        )
        return found

    async def look(self) -> None:
        """Deliver what is due by now."""
        self._writer_of().nudge()

    async def _ask(self, sql: str) -> Any:
        rows = [feed.row for feed in self._feeds.values()]
        if not rows:
            return None
        sql += f" AND subscription IN ({','.join('?' * len(rows))})"
        now = _bench(self.environment).now
        return await self._do(lambda connection: connection.execute(sql, (now, *rows)).fetchone()[0])


def _published(outgoing: Outgoing, names: Mapping[str, str]) -> PublishedMessage:
    message = decode_message(outgoing.body)
    return PublishedMessage(
        message.timestamp, message.cid, message.id, message.type, message.msg, message.data,
        topic=names.get(outgoing.topic) if outgoing.topic else None, queue=outgoing.queue,
        message_id=outgoing.message_id, attributes=dict(outgoing.attributes), ordering_key=outgoing.ordering_key,
        delay=outgoing.delay,
    )  # fmt: skip


class _Plugin:
    """The hooks."""

    @hookimpl
    def totoms_configuration(self) -> type[HyperscalerConfiguration]:
        return BenchConfiguration

    @hookimpl
    def totoms_secrets_manager(self) -> type[LocalSecretsManager]:
        return BenchSecretsManager

    @hookimpl
    def totoms_cloud_storage(self) -> type[LocalCloudStorage]:
        return LocalCloudStorage

    @hookimpl
    def totoms_message_bus(self) -> type[LocalMessageBus]:
        return BenchMessageBus


_providing: Final = threading.Lock()


def _provide() -> None:
    with _providing:
        if HYPERSCALER not in plugins._backends:
            plugins.provide(HYPERSCALER, _Plugin())
