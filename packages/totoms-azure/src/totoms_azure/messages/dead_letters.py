"""Dead letters: where Service Bus keeps them, and how they are replayed.

Those of a subscription are in its own dead-letter queue, in that of the queue by which they are replayed to it, and,
where messages were pushed, in a queue that keeps nothing else. A letter's id says which, and its number there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from azure.servicebus import ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusReceiver

from totoms.errors import BackendError, NotFound
from totoms.plugin import (
    ID_ATTRIBUTE,
    DeadLetter,
    DeadLetterReason,
    DeadLetterStore,
    HeldLetter,
    Received,
    purge_letters,
    replay_letters,
)
from totoms_azure import private_api
from totoms_azure.messages.clients import Clients, translate
from totoms_azure.messages.encoding import (
    DESCRIPTION,
    REASON,
    Death,
    attributes_of,
    body_of,
    copy_of,
    death_of,
)
from totoms_azure.messages.naming import DEAD, REPLAY, Entity, entity_of, queue_name, subscription_to
from totoms_azure.messages.publisher import Publisher
from totoms_azure.messages.subscriptions import Subscriptions, open_receiver

_PAGE: Final = 250


@dataclass(frozen=True, slots=True)
class _Queue:
    """Where dead letters of a subscription are.

    Attributes:
        prefix: What their ids begin with.
        entity: Whose they are.
        dead: Whether they are in the dead-letter queue of `entity`, and not in `entity` itself.
    """

    prefix: str
    entity: Entity
    dead: bool = True


@dataclass(slots=True)
class _Handle:
    """A message that is locked, and the receiver that completes it."""

    receiver: ServiceBusReceiver
    message: ServiceBusReceivedMessage
    queue: _Queue
    completed: bool = False


class AzureDeadLetters(DeadLetterStore):
    """The dead letters of one subscription.

    Args:
        subscription: Its name; with ``topic/`` before it, that of the topic.
        clients: The bus's clients.
        subscriptions: Looks entities up.
        publisher: Sends what is replayed.
        topics: The identifiers of the topics that the bus knows.
        patience: Seconds without a letter after which there are no more.
    """

    def __init__(
        self,
        subscription: str,
        clients: Clients,
        subscriptions: Subscriptions,
        publisher: Publisher,
        topics: Mapping[str, str],
        patience: float,
    ) -> None:
        self._subscription = subscription
        self._clients = clients
        self._subscriptions = subscriptions
        self._publisher = publisher
        self._topics = topics
        self._patience = patience

    async def list(self, limit: int) -> list[DeadLetter]:
        """Return the oldest letters. They stay as they are."""

        async def read(queue: _Queue) -> list[DeadLetter]:
            return [letter async for letter in self._peek(queue, limit)]

        found = await asyncio.gather(*map(read, _queues(await self._find())))
        letters = [letter for some in found for letter in some]
        return sorted(letters, key=lambda letter: (letter.dead_since, letter.letter_id))[:limit]

    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        """Send letters to a queue that only this subscription's service receives from; return how many."""
        entity = await self._find()
        target = entity.queue(REPLAY) if entity.topic else entity

        async def publish(page: Sequence[HeldLetter]) -> Sequence[BackendError | None]:
            for held in page:
                letter = held.letter
                await self._send(target, letter.body, letter.message_id, letter.attributes)
            return [None] * len(page)

        return await replay_letters(self._pages(entity, letter_ids), letter_ids, publish, _complete)

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        """Delete letters for good; return how many."""
        return await purge_letters(self._pages(await self._find(), letter_ids), letter_ids, _complete)

    async def keep(self, received: Received, reason: DeadLetterReason) -> None:
        """Keep a pushed message, with the reason; the queue is made if it is missing."""
        why = {REASON: reason.reason, DESCRIPTION: str(Death(reason, time.time()))}
        target = entity_of(received.subscription).queue(DEAD)
        await self._send(target, received.body, received.message_id, {**received.attributes, **why})

    async def _send(self, target: Entity, body: bytes, message_id: str, attributes: Mapping[str, str]) -> None:
        (error,) = await self._publisher.send(target, [copy_of(body, message_id, attributes)])
        if error is not None:
            raise error

    async def _pages(
        self, entity: Entity, letter_ids: Sequence[str] | None
    ) -> AsyncGenerator[Sequence[HeldLetter], None]:
        """Yield each letter once, on a page of its own; at the end release those that were not completed."""
        for queue in _queues(entity):
            if letter_ids is not None and not any(one.startswith(f"{queue.prefix}-") for one in letter_ids):
                continue
            try:
                async with aclosing(self._pages_of(queue)) as pages:
                    async for page in pages:
                        yield page
            except NotFound as error:
                if error.resource != str(queue.entity):
                    raise

    async def _pages_of(self, queue: _Queue) -> AsyncGenerator[Sequence[HeldLetter], None]:
        async with self._open(queue) as receiver:
            held: list[_Handle] = []
            try:
                while messages := await receiver.receive_messages(
                    max_message_count=_PAGE, max_wait_time=self._patience
                ):
                    handles = [_Handle(receiver, message, queue) for message in messages]
                    held = [one for one in held if not one.completed] + handles
                    for handle in handles:
                        yield [HeldLetter(self._letter(queue, handle.message), handle)]
            finally:
                for handle in held:
                    if not handle.completed:
                        await private_api.release(receiver, handle.message)

    async def _peek(self, queue: _Queue, limit: int) -> AsyncIterator[DeadLetter]:
        """Give at most `limit` letters, oldest first. A queue that does not exist has none."""
        try:
            async with self._open(queue) as receiver:
                number = 1
                while limit > 0:
                    page = await receiver.peek_messages(max_message_count=min(limit, _PAGE), sequence_number=number)
                    if not page:
                        return
                    for message in page:
                        yield self._letter(queue, message)
                    limit -= len(page)
                    number = (page[-1].sequence_number or 0) + 1
        except NotFound as error:
            if error.resource != str(queue.entity):
                raise

    @asynccontextmanager
    async def _open(self, queue: _Queue) -> AsyncIterator[ServiceBusReceiver]:
        options: dict[str, Any] = {"sub_queue": ServiceBusSubQueue.DEAD_LETTER} if queue.dead else {}
        async with open_receiver(self._clients, queue.entity, "the dead letters of", **options) as receiver:
            private_api.shorten_gap(receiver)
            yield receiver

    async def _find(self) -> Entity:
        """Return the subscription: one to a topic that the bus knows, or else to any topic, or a queue."""
        topic, _, name = self._subscription.rpartition("/")
        topics = [topic] if topic else list(dict.fromkeys(self._topics.values()))
        candidates = [subscription_to(one, name) for one in topics]
        if not topic:
            candidates.append(Entity("", queue_name(name)))
        for entity in candidates:
            if await self._subscriptions.exists(entity):
                return entity
            if entity.topic and await self._subscriptions.exists(entity.queue(DEAD)):  # it is pushed to
                return entity
        found = None if topic else await self._subscriptions.find(name)
        if found is None:
            raise NotFound(f"There is no subscription {self._subscription!r}.", resource=self._subscription)
        return found

    def _letter(self, queue: _Queue, message: ServiceBusReceivedMessage) -> DeadLetter:
        attributes, death = attributes_of(message), death_of(message)
        letter_id = f"{queue.prefix}-{message.sequence_number}"
        message_id = attributes.get(ID_ATTRIBUTE) or str(message.message_id or death.message_id or letter_id)
        return DeadLetter(
            letter_id, message_id, self._subscription, body_of(message), attributes, death.reason, death.since
        )


async def _complete(page: Sequence[HeldLetter]) -> None:
    for held in page:
        handle: _Handle = held.handle
        try:
            await handle.receiver.complete_message(handle.message)
        except Exception as error:
            raise translate(error, "the dead letters of", str(handle.queue.entity)) from error
        handle.completed = True


def _queues(entity: Entity) -> tuple[_Queue, ...]:
    if not entity.topic:
        return (_Queue("s", entity),)
    return _Queue("s", entity), _Queue("r", entity.queue(REPLAY)), _Queue("p", entity.queue(DEAD), dead=False)
