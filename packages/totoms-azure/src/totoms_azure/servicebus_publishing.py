"""Publishing: one sender for each topic or queue, and batches of what many publish at once.

A message that is published alone goes at once. What is published while one request is on its way goes with the next,
in requests as large as the link takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.aio import ServiceBusSender
from azure.servicebus.exceptions import MessageSizeExceededError

from totoms.envelope import Outgoing
from totoms.errors import AccessDenied, BackendError, Closed, NotFound, Unavailable
from totoms_azure.servicebus_clients import PUBLISH_SECONDS, Clients
from totoms_azure.servicebus_errors import translate
from totoms_azure.servicebus_messages import to_send
from totoms_azure.servicebus_names import Entity, queue_name, topic_name
from totoms_azure.servicebus_topology import Topology

_MOST_IN_BATCH: Final = 1000
_ENVELOPE: Final = 1024
"""Bytes: the id and the session of a batch's first message stand on the batch as well, and the SDK does not count them
when it compares with what the link takes."""
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds between tries of a send that Service Bus could not take."""
_OF_ALL: Final = (Unavailable, NotFound, AccessDenied, Closed)
"""Errors that each message would meet: to send one after the other would only take long."""


_Result = TypeVar("_Result")


class Pending:
    """A message that waits to be sent.

    Args:
        message: The SDK's.
        done: Gets None, or the error that the message met.
    """

    __slots__ = ("done", "message")

    def __init__(self, message: ServiceBusMessage, done: asyncio.Future[BackendError | None]) -> None:
        self.message = message
        self.done = done

    def settle(self, error: BackendError | None) -> None:
        """Tell whoever published it."""
        if not self.done.done():
            self.done.set_result(error)


class Destination:
    """Sends to one topic or queue.

    Args:
        clients: Of the bus.
        entity: The topic, with no name beneath it, or the queue.
    """

    def __init__(self, clients: Clients, entity: Entity) -> None:
        self._clients = clients
        self._entity = entity
        self._called = ("the topic", entity.topic) if entity.topic else ("the queue", entity.name)
        self._waiting: deque[Pending] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._sender: ServiceBusSender | None = None
        self._mixed = True

    def send(self, messages: Sequence[ServiceBusMessage]) -> list[asyncio.Future[BackendError | None]]:
        """Have messages sent, in their order; return what tells how each fared."""
        loop = asyncio.get_running_loop()
        pending = [Pending(message, loop.create_future()) for message in messages]
        self._waiting.extend(pending)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name=f"totoms send to {self._entity}")
        return [one.done for one in pending]

    async def close(self) -> None:
        """Send what waits, and close the connection."""
        if self._sending is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await asyncio.wait({self._sending})
            self._sending.cancel()
        await self._forget()
        while self._waiting:
            self._waiting.popleft().settle(Closed("The message bus is closed."))

    async def _send_all(self) -> None:
        while self._waiting:
            try:
                await self._send_some()
            except Exception as error:  # whatever it is: somebody waits for each of them
                self._fail([self._waiting.popleft() for _ in range(len(self._waiting))], error)

    async def _send_some(self) -> None:
        sending: list[Pending] = [self._waiting.popleft()]
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                if not self._waiting:
                    await self._trying(_sending(sending[0].message))
                else:
                    batch = await self._trying(_new_batch)
                    if _fits(batch, sending[0]):
                        while self._waiting and len(sending) < _MOST_IN_BATCH and self._go_together(sending[0]):
                            if not _fits(batch, self._waiting[0]):
                                break
                            sending.append(self._waiting.popleft())
                        await self._trying(lambda sender: sender.send_messages(batch))
                    else:
                        await self._trying(_sending(sending[0].message))
        except Exception as error:
            await self._failed(sending, error)
        except BaseException:  # closing: nobody sends them any more
            self._fail(sending, Closed("The message bus is closed."))
            raise
        else:
            for one in sending:
                one.settle(None)

    def _go_together(self, first: Pending) -> bool:
        return self._mixed or self._waiting[0].message.session_id == first.message.session_id

    async def _failed(self, sending: list[Pending], error: Exception) -> None:
        number = len(sending)
        told = self._told(error)
        if isinstance(error, TimeoutError):
            await self._forget()  # what its connection is at is not known
        if isinstance(told, _OF_ALL):
            self._fail([*sending, *self._waiting], told)
            self._waiting.clear()
            return
        if number == 1:
            self._fail(sending, told)
            return
        # One of them is to blame, or that there are several: a partitioned entity takes no batch of several sessions.
        succeeded = 0
        while sending:
            one = sending.pop(0)
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await self._trying(_sending(one.message))
            except Exception as alone:
                one.settle(self._told(alone))
                if isinstance(self._told(alone), _OF_ALL):
                    self._fail(sending, alone)
                    return
            except BaseException:
                self._fail([one, *sending], Closed("The message bus is closed."))
                raise
            else:
                succeeded += 1
                one.settle(None)
        if succeeded == number:
            self._mixed = False

    def _fail(self, pending: Sequence[Pending], error: Exception) -> None:
        for one in pending:
            one.settle(self._told(error))

    def _told(self, error: Exception) -> BackendError:
        what, name = self._called
        if isinstance(error, TimeoutError):
            told: BackendError = Unavailable(
                f"Sending to {what} {name!r} took too long; it may still arrive.", resource=name
            )
        else:
            told = translate(error, what, name)
        if told is not error:
            told.__cause__ = error
        return told

    async def _trying(self, work: Callable[[ServiceBusSender], Awaitable[_Result]]) -> _Result:
        for pause in _PAUSES:
            try:
                return await work(self._open())
            except Exception as error:
                if not isinstance(self._told(error), Unavailable):
                    raise
            await asyncio.sleep(pause)
        return await work(self._open())

    def _open(self) -> ServiceBusSender:
        if self._sender is None:
            client = self._clients.sending
            topic, queue = self._entity.topic, self._entity.name
            self._sender = client.get_topic_sender(topic) if topic else client.get_queue_sender(queue)
        return self._sender

    async def _forget(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await sender.close()


class Publisher:
    """Publishes to topics and queues.

    Args:
        clients: Of the bus.
        topology: Makes queues that are missing.
    """

    def __init__(self, clients: Clients, topology: Topology) -> None:
        self._clients = clients
        self._topology = topology
        self._destinations: dict[Entity, Destination] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def publish(self, batch: Sequence[Outgoing]) -> list[BackendError | None]:
        """Publish messages; return for each, in order, what it alone met.

        Raises:
            ValidationError: One has an ordering key that is too long. Nothing was sent.
        """
        messages = [to_send(outgoing) for outgoing in batch]
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
        """Send messages to one topic or queue; a queue that is missing is made, where that is allowed."""
        results = await self._send(entity, messages)
        missing = [index for index, error in enumerate(results) if isinstance(error, NotFound)]
        if missing and not entity.topic:
            try:
                await self._topology.make_queue(entity.name)
            except BackendError as error:
                return [error if index in missing else result for index, result in enumerate(results)]
            for index, result in zip(missing, await self._send(entity, [messages[n] for n in missing]), strict=True):
                results[index] = result
        return results

    async def close(self) -> None:
        """Send what waits, and close the connections."""
        await asyncio.gather(*(destination.close() for destination in self._destinations.values()))

    async def _send(self, entity: Entity, messages: Sequence[ServiceBusMessage]) -> list[BackendError | None]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what was made on another loop is of no use here
            self._loop, self._destinations = loop, {}
        destination = self._destinations.get(entity)
        if destination is None:
            destination = self._destinations[entity] = Destination(self._clients, entity)
        # A publisher that is cancelled takes nothing back: it may be on its way.
        return [await done for done in destination.send(messages)]


async def _new_batch(sender: ServiceBusSender) -> ServiceBusMessageBatch:
    whole = await sender.create_message_batch()
    return await sender.create_message_batch(max_size_in_bytes=whole.max_size_in_bytes - _ENVELOPE)


def _fits(batch: ServiceBusMessageBatch, pending: Pending) -> bool:
    """Add a message to a batch, if it has room for it."""
    try:
        batch.add_message(pending.message)
    except MessageSizeExceededError:
        return False
    return True


def _sending(message: ServiceBusMessage) -> Callable[[ServiceBusSender], Awaitable[None]]:
    return lambda sender: sender.send_messages(message)


def _entity_of(outgoing: Outgoing) -> Entity:
    if outgoing.topic is not None:
        return Entity(topic_name(outgoing.topic), "")
    return Entity("", queue_name(outgoing.queue or ""))
