"""Dead letters: where Service Bus keeps what was given up, and how it is delivered again.

They lie in the dead-letter queue of the subscription, in that of the queue by which letters are replayed to it, and,
where messages were pushed, in a queue of its own beside it. A letter's id tells which, and its number there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusReceiver

from totoms.envelope import DeadLetter, DeadLetterReason, Received
from totoms.errors import BackendError, NotFound, Unsupported
from totoms.messages import CONTENT_TYPE, ID_ATTRIBUTE
from totoms_azure import servicebus_sdk as sdk
from totoms_azure.servicebus_clients import Clients
from totoms_azure.servicebus_errors import translate
from totoms_azure.servicebus_messages import attributes_of, body_of
from totoms_azure.servicebus_names import DEAD, REPLAY, Entity, beneath, queue_name, subscription_name
from totoms_azure.servicebus_publishing import Publisher
from totoms_azure.servicebus_reasons import DESCRIPTION, REASON, Death, death_of
from totoms_azure.servicebus_topology import Topology, receiver_of

_PAGE: Final = 250
_PUSHED: Final = "p"


@dataclass(frozen=True, slots=True)
class _Box:
    """Where letters of a subscription lie.

    Attributes:
        mark: What their ids begin with.
        entity: Whose they are.
        dead: Whether they are in its dead-letter queue, and not in itself.
    """

    mark: str
    entity: Entity
    dead: bool = True


_Use = Callable[[_Box, ServiceBusReceivedMessage], Awaitable[None]]


class DeadLetters:
    """Keeps, lists, delivers again and deletes dead letters.

    Args:
        clients: Of the bus.
        topology: Looks for entities.
        publisher: Sends what is replayed.
        topics: The provider's identifiers of the topics that the bus knows.
        patience: Seconds without a letter after which there are no more.
    """

    def __init__(
        self, clients: Clients, topology: Topology, publisher: Publisher, topics: Mapping[str, str], patience: float
    ) -> None:
        self._clients = clients
        self._topology = topology
        self._publisher = publisher
        self._topics = topics
        self._patience = patience
        self._found: dict[str, Entity] = {}
        self._pushed: set[str] = set()

    def know(self, name: str, entity: Entity, *, pushed: bool = False) -> None:
        """Know where the subscription of that name is, and if it is pushed to: then it is none of Service Bus."""
        self._found[name] = entity
        if pushed:
            self._pushed.add(name)

    async def keep(self, received: Received, reason: DeadLetterReason, entity: Entity) -> None:
        """Keep a message that was pushed, with the reason, beside `entity`; the queue is made if it is missing."""
        why = {REASON: reason.reason, DESCRIPTION: str(Death(reason, time.time()))}
        message = _message(received.body, received.message_id, {**received.attributes, **why})
        (error,) = await self._publisher.send(entity.beside(DEAD), [message])
        if error is not None:
            raise error

    async def listed(self, subscription: str, limit: int) -> list[DeadLetter]:
        """Return the oldest letters of a subscription. They are looked at, and stay as they are."""

        async def look(box: _Box) -> list[DeadLetter]:
            try:
                return [_letter(subscription, box, one) async for one in self._peeked(box, limit)]
            except NotFound:
                if box.entity == entity and subscription not in self._pushed:
                    raise
                return []  # nothing was ever replayed, or pushed

        entity = await self._entity(subscription)
        found = await asyncio.gather(*(look(box) for box in await self._boxes(subscription)))
        letters = [letter for some in found for letter in some]
        return sorted(letters, key=lambda letter: (letter.dead_since, letter.letter_id))[:limit]

    async def replay(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        """Send letters to a queue that only this subscription's service takes from; return how many."""

        async def send(box: _Box, message: ServiceBusReceivedMessage) -> None:
            letter = _letter(subscription, box, message)
            again = _message(letter.body, letter.message_id, letter.attributes)
            if box.mark == _PUSHED:
                raise Unsupported("What was pushed cannot be replayed: have it published again.", resource=subscription)
            entity = await self._entity(subscription)
            to = entity.beside(REPLAY) if entity.topic else entity
            (error,) = await self._publisher.send(to, [again])
            if error is not None:
                raise error

        return await self._take(subscription, letter_ids, send)

    async def purge(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        """Delete letters for good; return how many."""

        async def nothing(_box: _Box, _message: ServiceBusReceivedMessage) -> None: ...

        return await self._take(subscription, letter_ids, nothing)

    async def _take(self, subscription: str, letter_ids: Sequence[str] | None, use: _Use) -> int:
        wanted = None if letter_ids is None else set(letter_ids)
        taken = 0
        for box in await self._boxes(subscription):
            mine = None if wanted is None else {one for one in wanted if one.startswith(f"{box.mark}-")}
            if mine is not None and not mine:
                continue
            try:
                taken += await self._take_from(box, mine, use)
            except NotFound as error:
                if error.resource != str(box.entity):
                    raise
        return taken

    async def _take_from(self, box: _Box, wanted: set[str] | None, use: _Use) -> int:
        taken = 0
        async with self._open(box) as receiver:
            others: list[ServiceBusReceivedMessage] = []
            try:
                while wanted is None or wanted:
                    messages = await receiver.receive_messages(max_message_count=_PAGE, max_wait_time=self._patience)
                    if not messages:
                        break
                    others += messages
                    for message in messages:
                        if wanted is not None and _id(box, message) not in wanted:
                            continue
                        await use(box, message)
                        await receiver.complete_message(message)
                        others.remove(message)
                        taken += 1
                        if wanted is not None:
                            wanted.discard(_id(box, message))
            finally:
                for message in others:
                    await sdk.release(receiver, message)
        return taken

    async def _peeked(self, box: _Box, limit: int) -> AsyncIterator[ServiceBusReceivedMessage]:
        async with self._open(box) as receiver:
            number = 1
            while limit > 0:
                page = await receiver.peek_messages(max_message_count=min(limit, _PAGE), sequence_number=number)
                if not page:
                    return
                for message in page:
                    yield message
                limit -= len(page)
                number = (page[-1].sequence_number or 0) + 1

    @asynccontextmanager
    async def _open(self, box: _Box) -> AsyncIterator[ServiceBusReceiver]:
        options: dict[str, Any] = {"sub_queue": ServiceBusSubQueue.DEAD_LETTER} if box.dead else {}
        receiver = receiver_of(self._clients, box.entity, **options)
        sdk.prepare(receiver)
        try:
            await sdk.connect(receiver)
            yield receiver
        except BackendError:
            raise
        except Exception as error:
            raise translate(error, "the dead letters of", str(box.entity)) from error
        finally:
            await receiver.close()

    async def _boxes(self, subscription: str) -> list[_Box]:
        entity = await self._entity(subscription)
        boxes = [_Box("s", entity)]
        if entity.topic:
            boxes.append(_Box("r", entity.beside(REPLAY)))
            boxes.append(_Box(_PUSHED, entity.beside(DEAD), dead=False))
        return boxes

    async def _entity(self, subscription: str) -> Entity:
        """Return the subscription of that name: one beneath a topic that is known, or any topic, or a queue."""
        found = self._found.get(subscription)
        if found is None:
            found = self._found[subscription] = await self._look_for(subscription)
        return found

    async def _look_for(self, subscription: str) -> Entity:
        topic, _, name = subscription.rpartition("/")
        topics = [topic] if topic else list(dict.fromkeys(self._topics.values()))
        candidates = [beneath(one, name) for one in topics]
        if not topic:
            candidates.append(Entity("", queue_name(subscription)))
        for entity in candidates:
            if await self._topology.exists(entity):
                return entity
            if entity.topic and await self._topology.exists(entity.beside(DEAD)):
                self._pushed.add(subscription)
                return entity
        found = None if topic else await self._topology.find_topic_of(subscription_name(subscription))
        if found is None:
            raise NotFound(f"There is no subscription {subscription!r}.", resource=subscription)
        return beneath(found, subscription)


def _message(body: bytes, message_id: str, attributes: Mapping[str, str]) -> ServiceBusMessage:
    properties: dict[str | bytes, Any] = {ID_ATTRIBUTE: message_id}
    properties.update((name, value) for name, value in attributes.items() if name != ID_ATTRIBUTE)
    return ServiceBusMessage(
        body, message_id=message_id or None, content_type=CONTENT_TYPE, application_properties=properties
    )


def _id(box: _Box, message: ServiceBusReceivedMessage) -> str:
    return f"{box.mark}-{message.sequence_number}"


def _letter(subscription: str, box: _Box, message: ServiceBusReceivedMessage) -> DeadLetter:
    attributes = dict(attributes_of(message))
    enqueued = message.enqueued_time_utc
    death = death_of(
        _property(message, REASON), _property(message, DESCRIPTION), message.delivery_count or 0,
        enqueued.timestamp() if enqueued else 0.0,
    )  # fmt: skip
    message_id = attributes.get(ID_ATTRIBUTE) or str(message.message_id or death.message_id)
    return DeadLetter(
        _id(box, message), message_id, subscription, body_of(message), attributes, death.reason, death.since
    )


def _property(message: ServiceBusReceivedMessage, name: str) -> str:
    properties = message.application_properties or {}
    value = properties.get(name.encode(), properties.get(name, ""))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
