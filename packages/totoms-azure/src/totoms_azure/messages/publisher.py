"""Publishing: one sender for each topic or queue, and batches of what many publish at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.aio import ServiceBusSender
from azure.servicebus.exceptions import MessageSizeExceededError

from totoms.errors import AccessDenied, BackendError, Closed, NotFound, Unavailable
from totoms.plugin import Batcher, Outgoing
from totoms_azure.messages.clients import PUBLISH_SECONDS, Clients, translate
from totoms_azure.messages.encoding import message_of
from totoms_azure.messages.naming import Entity, queue_name, topic_name
from totoms_azure.messages.subscriptions import Subscriptions

_MOST_IN_BATCH: Final = 1000
_BATCH_BYTES: Final = 256 * 1024
_PROPERTY_BYTES: Final = 256
"""About what the properties of a message take."""
_ENVELOPE: Final = 1024
"""Bytes: the id and the session of a batch's first message are repeated on the batch, and the SDK does not count them
when it compares with the link's limit."""
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds between tries of a send that Service Bus could not take."""
_OF_ALL: Final = (Unavailable, NotFound, AccessDenied, Closed)
"""Errors that all messages have in common: to send them one by one would only take long."""

_Result = TypeVar("_Result")


class Destination:
    """Sends to one topic or queue, in the order of `send`.

    Args:
        clients: The bus's clients.
        entity: The topic, with an empty name, or the queue.
    """

    def __init__(self, clients: Clients, entity: Entity) -> None:
        self._clients = clients
        self._entity = entity
        self._what, self._name = ("the topic", entity.topic) if entity.topic else ("the queue", entity.name)
        self._batcher: Batcher[ServiceBusMessage] = Batcher(
            self._send_all, max_items=_MOST_IN_BATCH, max_bytes=_BATCH_BYTES
        )
        self._sender: ServiceBusSender | None = None
        self._mixes_sessions = True

    def send(self, messages: Sequence[ServiceBusMessage]) -> list[asyncio.Future[BackendError | None]]:
        """Queue messages; return the future result of each."""
        return [self._batcher.add(message, _size(message)) for message in messages]

    async def close(self) -> None:
        """Send what waits, and close the connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._batcher.flush()
        await self._batcher.close()
        await self._disconnect()

    async def _send_all(self, messages: Sequence[ServiceBusMessage]) -> list[BackendError | None]:
        results: list[BackendError | None] = []
        waiting = deque(messages)
        while waiting:
            some = [waiting.popleft()]
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await self._send_some(some, waiting)
                results += [None] * len(some)
            except Exception as error:
                mapped = self._mapped(error)
                if isinstance(error, TimeoutError):
                    await self._disconnect()  # it is unknown what its connection is doing
                if isinstance(mapped, _OF_ALL):
                    return [*results, *[mapped] * (len(some) + len(waiting))]
                results += await self._send_each(some) if len(some) > 1 else [mapped]
        return results

    async def _send_some(self, some: list[ServiceBusMessage], waiting: deque[ServiceBusMessage]) -> None:
        """Send a message, and those of `waiting` that fit into one batch with it, which are moved to `some`."""
        batch = await self._retrying(_new_batch) if waiting else None
        if batch is None or not _add(batch, some[0]):  # it may fit alone: the batch needs some room for itself
            await self._send_one(some[0])
            return
        while waiting and (self._mixes_sessions or waiting[0].session_id == some[0].session_id):
            if not _add(batch, waiting[0]):
                break
            some.append(waiting.popleft())
        await self._retrying(lambda sender: sender.send_messages(batch))

    async def _send_each(self, messages: Sequence[ServiceBusMessage]) -> list[BackendError | None]:
        """Send a batch that was refused one by one: one message is the reason, or that there are several sessions.

        A partitioned entity takes no batch of several sessions.
        """
        results: list[BackendError | None] = []
        for message in messages:
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await self._send_one(message)
                results.append(None)
            except Exception as error:
                results.append(self._mapped(error))
                if isinstance(results[-1], _OF_ALL):
                    return results + results[-1:] * (len(messages) - len(results))
        if not any(results):
            self._mixes_sessions = False
        return results

    async def _send_one(self, message: ServiceBusMessage) -> None:
        await self._retrying(lambda sender: sender.send_messages(message))

    async def _retrying(self, work: Callable[[ServiceBusSender], Awaitable[_Result]]) -> _Result:
        for pause in _PAUSES:
            try:
                return await work(self._connect())
            except Exception as error:
                if not isinstance(self._mapped(error), Unavailable):
                    raise
            await asyncio.sleep(pause)
        return await work(self._connect())

    def _mapped(self, error: Exception) -> BackendError:
        if isinstance(error, BackendError):
            return error
        mapped: BackendError
        if isinstance(error, TimeoutError):
            mapped = Unavailable(
                f"Sending to {self._what} {self._name!r} took too long; it may still arrive.", resource=self._name
            )
        else:
            mapped = translate(error, self._what, self._name)
        mapped.__cause__ = error
        return mapped

    def _connect(self) -> ServiceBusSender:
        if self._sender is None:
            client = self._clients.sending
            topic, queue = self._entity.topic, self._entity.name
            self._sender = client.get_topic_sender(topic) if topic else client.get_queue_sender(queue)
        return self._sender

    async def _disconnect(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await sender.close()


class Publisher:
    """Publishes to topics and queues.

    Args:
        clients: The bus's clients.
        subscriptions: Makes queues that are missing.
    """

    def __init__(self, clients: Clients, subscriptions: Subscriptions) -> None:
        self._clients = clients
        self._subscriptions = subscriptions
        self._destinations: dict[Entity, Destination] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def publish(self, batch: Sequence[Outgoing]) -> list[BackendError | None]:
        """Publish messages; return a result for each, in order.

        Raises:
            InvalidArgument: An ordering key is too long. Nothing was sent.
        """
        messages = [message_of(outgoing) for outgoing in batch]
        by_entity: dict[Entity, list[int]] = {}
        results: list[BackendError | None] = [None] * len(batch)
        for index, outgoing in enumerate(batch):
            try:
                by_entity.setdefault(_entity_of(outgoing), []).append(index)
            except NotFound as error:
                results[index] = error
        for entity, indexes in by_entity.items():
            sent = await self.send(entity, [messages[index] for index in indexes])
            for index, result in zip(indexes, sent, strict=True):
                results[index] = result
        return results

    async def send(self, entity: Entity, messages: Sequence[ServiceBusMessage]) -> list[BackendError | None]:
        """Send messages to one topic or queue. A queue that is missing is made, where that is allowed."""
        results = await self._send(entity, messages)
        missing = [index for index, error in enumerate(results) if isinstance(error, NotFound)]
        if missing and not entity.topic:
            try:
                await self._subscriptions.create_queue(entity.name)
            except BackendError as error:
                return [error if index in missing else result for index, result in enumerate(results)]
            for index, result in zip(missing, await self._send(entity, [messages[n] for n in missing]), strict=True):
                results[index] = result
        return results

    async def close(self) -> None:
        """Send what waits, and close the connections."""
        if self._loop is asyncio.get_running_loop():
            await asyncio.gather(*(destination.close() for destination in self._destinations.values()))

    async def _send(self, entity: Entity, messages: Sequence[ServiceBusMessage]) -> list[BackendError | None]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what was made on another loop cannot be used here
            self._loop, self._destinations = loop, {}
        destination = self._destinations.get(entity)
        if destination is None:
            destination = self._destinations[entity] = Destination(self._clients, entity)
        return [await done for done in destination.send(messages)]


async def _new_batch(sender: ServiceBusSender) -> ServiceBusMessageBatch:
    largest = await sender.create_message_batch()
    return await sender.create_message_batch(max_size_in_bytes=largest.max_size_in_bytes - _ENVELOPE)


def _add(batch: ServiceBusMessageBatch, message: ServiceBusMessage) -> bool:
    """Add a message to a batch if it has room, and return whether it has."""
    try:
        batch.add_message(message)
    except MessageSizeExceededError:
        return False
    return True


def _size(message: ServiceBusMessage) -> int:
    body: Any = message.body  # of messages that are made here, parts in bytes
    return _PROPERTY_BYTES + sum(len(part) for part in body)


def _entity_of(outgoing: Outgoing) -> Entity:
    if outgoing.topic is not None:
        return Entity(topic_name(outgoing.topic), "")
    return Entity("", queue_name(outgoing.queue or ""))
