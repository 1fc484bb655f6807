"""The smallest complete plugin: messages, files and secrets in the memory of one process."""

import asyncio
import io
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO

from totoms import errors, plugin


@dataclass
class Message:
    body: bytes
    attributes: Mapping[str, str]
    due: float  # by time.monotonic; the end of the lease, while it is leased
    attempts: int = 0


@dataclass
class Queue(plugin.DeadLetterStore):
    """A queue, or one service's subscription to a topic, with its dead letters."""

    topic: str = ""
    messages: dict[str, Message] = field(default_factory=dict[str, Message])
    dead: dict[str, plugin.DeadLetter] = field(default_factory=dict[str, plugin.DeadLetter])

    async def keep(self, received: plugin.Received, reason: plugin.DeadLetterReason) -> str:
        name, letter_id, now = received.subscription.name, plugin.new_cid(), time.time()
        about = received.message_id, name, received.body, received.attributes
        self.dead[letter_id] = plugin.DeadLetter(letter_id, *about, reason, now)
        return letter_id

    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        letters = self._take(letter_ids)
        for one in letters:
            self.messages[one.message_id] = Message(one.body, one.attributes, time.monotonic())
        return len(letters)

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        return len(self._take(letter_ids))

    def _take(self, letter_ids: Sequence[str] | None) -> Sequence[plugin.DeadLetter]:
        chosen = [one for one in self.dead if letter_ids is None or one in letter_ids]
        return [self.dead.pop(one) for one in chosen]

    async def list(self, limit: int) -> list[plugin.DeadLetter]:
        return list(self.dead.values())[:limit]


queues: dict[str, Queue] = {}
files: dict[tuple[str, str], tuple[plugin.FileInfo, bytes]] = {}
secrets: dict[str, bytes] = {}
writing = threading.Lock()


class MemoryMessageBus(plugin.MessageBus):
    capabilities = frozenset({plugin.PULL, plugin.DELAY, plugin.QUEUES, plugin.DEAD_LETTERS})
    lease_range = 0.1, math.inf
    _lease_seconds = 30.0

    def _use_lease(self, seconds: float) -> None:
        self._lease_seconds = seconds

    async def _publish(self, batch: Sequence[plugin.Outgoing]) -> Sequence[errors.BackendError | None]:
        for one in batch:
            if one.queue is not None:
                targets = [queues.setdefault(one.queue, Queue())]
            else:
                targets = [queue for queue in queues.values() if queue.topic == one.topic]
            for queue in targets:
                queue.messages[one.message_id] = Message(one.body, one.attributes, time.monotonic() + one.delay)
        return [None] * len(batch)

    async def _subscribe(self, subscription: plugin.Subscription, *, create: bool) -> plugin.Receiver:
        if create:
            queues.setdefault(subscription.name, Queue(subscription.topic))
        return MemoryReceiver(subscription, self._dead_letters(subscription.name), self._lease_seconds)

    def _dead_letters(self, subscription: str) -> Queue:
        if subscription not in queues:
            raise errors.NotFound(f"There is no subscription {subscription!r}.", resource=subscription)
        return queues[subscription]


class MemoryReceiver(plugin.LeasingReceiver):
    def __init__(self, subscription: plugin.Subscription, queue: Queue, lease_seconds: float) -> None:
        super().__init__(subscription)
        self._queue, self._seconds = queue, lease_seconds

    async def _fetch(self, most: int, wait: float) -> list[plugin.Received]:
        end = time.monotonic() + wait
        while True:
            now = time.monotonic()
            if queues.get(self.subscription.name) is not self._queue:
                raise errors.NotFound("The subscription was deleted.", resource=self.subscription.name)
            due = [(key, one) for key, one in self._queue.messages.items() if one.due <= now][:most]
            if due or now >= end:
                return [self._lease(key, one, now) for key, one in due]
            await asyncio.sleep(0.01)

    def _lease(self, key: str, one: Message, now: float) -> plugin.Received:
        one.due, one.attempts = now + self._seconds, one.attempts + 1
        lease = plugin.Lease(one, self._seconds, now)
        return plugin.Received(one.body, key, one.attempts, self.subscription, one.attributes, lease)

    async def _ack(self, held: Sequence[plugin.Received]) -> Sequence[errors.BackendError | None]:
        for one in held:
            del self._queue.messages[one.message_id]
        return [None] * len(held)

    async def _nack(self, received: plugin.Received, delay: float) -> None:
        received.lease.handle.due = time.monotonic() + delay

    async def _release(self, held: Sequence[plugin.Received]) -> None:
        for one in held:
            one.lease.handle.due, one.lease.handle.attempts = time.monotonic(), one.attempt - 1

    async def _extend(self, held: Sequence[plugin.Received]) -> Sequence[errors.BackendError | None]:
        for one in held:
            one.lease.handle.due = time.monotonic() + self._seconds
        return [None] * len(held)

    async def _dead_letter(self, received: plugin.Received, reason: plugin.DeadLetterReason) -> str:
        return await self._queue.keep(received, reason)


class MemoryCloudStorage(plugin.CloudStorage):
    def _find(self, key: str) -> tuple[plugin.FileInfo, bytes]:
        if (self.bucket_name, key) not in files:
            raise self._no_file(key)
        return files[self.bucket_name, key]

    def _write(self, key: str, source: BinaryIO, options: plugin.WriteOptions) -> str:
        content, etag, now = source.read(), plugin.new_cid(), datetime.now(UTC)
        info = plugin.FileInfo(key, len(content), options.content_type, etag, now, options.metadata)
        with writing:
            before = files[self.bucket_name, key][0].etag if (self.bucket_name, key) in files else None
            if (options.if_absent and before) or options.if_match not in (None, before):
                raise errors.PreconditionFailed(f"{key!r} exists already, or has changed.", resource=key)
            files[self.bucket_name, key] = info, content
        return etag

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        return iter([self._find(key)[1][start:][:length]])

    def _stat(self, key: str) -> plugin.FileInfo:
        return self._find(key)[0]

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        keys = sorted(key for bucket, key in files if bucket == self.bucket_name and key.startswith(prefix))
        if delimiter:
            keys = [prefix + "".join(key[len(prefix) :].partition(delimiter)[:2]) for key in keys]
        yield from dict.fromkeys(keys)

    def _copy(self, source: str, destination: str) -> str:
        info, content = self._find(source)
        return self._write(destination, io.BytesIO(content), plugin.WriteOptions(info.content_type, info.metadata))

    def _delete(self, key: str) -> None:
        files.pop((self.bucket_name, key), None)


class MemorySecretsManager(plugin.SecretsManager):
    def _fetch(self, name: str, version: str | None) -> bytes:
        if version is not None:
            raise errors.Unsupported(f"The secret {name!r} has no versions in memory.", resource=name)
        if name not in secrets:
            raise errors.NotFound(f"There is no secret {name!r}.", resource=name)
        return secrets[name]


@plugin.hookimpl
def totoms_message_bus() -> type[plugin.MessageBus]:
    return MemoryMessageBus


@plugin.hookimpl
def totoms_cloud_storage() -> type[plugin.CloudStorage]:
    return MemoryCloudStorage


@plugin.hookimpl
def totoms_secrets_manager() -> type[plugin.SecretsManager]:
    return MemorySecretsManager
