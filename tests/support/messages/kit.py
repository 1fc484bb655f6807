"""A backend in memory, at the seam: every lease, ack and outage is under the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from support.messages.by_name import Through, ThroughStore
from totoms.errors import BackendError, LeaseLost, Unauthorized, Unavailable
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetterReason, DeadLetterStore
from totoms.messages.driver import DEAD_LETTERS, DELAY, ORDERING, PULL, PUSH, QUEUES
from totoms.messages.message import ProcessingResponse, ProcessingStatus, TotoMessage, encode_message
from totoms.messages.outgoing import Outgoing
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received, Receiver
from totoms.messages.router import MessageRouter
from totoms.messages.subscription import RetryPolicy, Subscription

DEADLINE = 120.0


class MemoryBus(MessageBus):
    """Keeps messages in a list; `log` tells what the core asked for, in order."""

    capabilities = frozenset({PULL, PUSH, ORDERING, DELAY, QUEUES, DEAD_LETTERS})

    def __init__(self, environment: Any = None, topics: Any = None) -> None:
        super().__init__(environment or object(), topics)
        self.waiting: list[Received] = []
        self.leased: dict[str, Received] = {}
        self.log: list[tuple[str, str]] = []
        self.dead: list[tuple[Received, DeadLetterReason]] = []
        self.published: list[Outgoing] = []
        self.lost: set[str] = set()
        self.away = False
        self.lease_seconds = 0.0
        self.most_asked = 0
        self._changed = asyncio.Condition()
        self._stopped = False

    async def put(
        self, message: TotoMessage | bytes, subscription: Subscription, attempt: int = 1, **extra: Any
    ) -> Received:
        body = message if isinstance(message, bytes) else encode_message(message)
        number = len(self.waiting) + len(self.leased) + len(self.log)
        received = Received(body, f"m{number}", attempt, subscription, **extra)
        async with self._changed:
            self.waiting.append(received)
            self._changed.notify_all()
        return received

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it can change only where the core calls this bus."""
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(condition)

    async def back(self) -> None:
        self.away = False

    async def _note(self, what: str, received: Sequence[Received]) -> None:
        async with self._changed:
            self.log.extend((what, one.message_id) for one in received)
            self._changed.notify_all()

    def _check(self, received: Received) -> BackendError | None:
        return LeaseLost("gone") if received.message_id in self.lost else None

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        if self.away:
            raise Unavailable("the broker is away")
        self.published.extend(batch)
        return [None] * len(batch)

    async def _subscribe(self, subscription: Subscription, *, create: bool) -> Receiver:
        return Through(self, subscription)

    def _dead_letters(self, subscription: str) -> DeadLetterStore:
        return ThroughStore(self, subscription)

    def _lease_of(self, subscription: Subscription) -> float:
        return self.lease_seconds

    async def _receive(self, subscription: Subscription, max_messages: int, wait: float) -> list[Received]:
        self.most_asked = max(self.most_asked, max_messages)
        await self._note("receive", [])
        if self.away:
            self.log.append(("refused", ""))
            raise Unavailable("the broker is away")
        async with self._changed:
            await self._changed.wait_for(lambda: self.waiting or self._stopped)
            batch, self.waiting = self.waiting[:max_messages], self.waiting[max_messages:]
            self.leased.update({one.message_id: one for one in batch})
            return batch

    async def _stop_receiving(self, subscription: Subscription) -> None:
        async with self._changed:
            self._stopped = True
            self._changed.notify_all()

    async def _ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        await self._note("ack", batch)
        return [self._check(one) for one in batch]

    async def _nack(self, received: Received, delay: float) -> None:
        await self._note("nack", [received])

    async def _release(self, batch: Sequence[Received]) -> None:
        await self._note("release", batch)

    async def _extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        await self._note("extend", batch)
        return [self._check(one) for one in batch]

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        if self.away:
            raise Unavailable("the broker is away")
        self.dead.append((received, reason))
        await self._note("dead_letter", [received])
        return f"letter-{len(self.dead)}"

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        if self.away:
            raise Unavailable("keys out of reach")
        if request.headers.get("authorization") != "Bearer the-broker":
            raise Unauthorized("not the broker")
        if request.headers.get("x-handshake"):
            return PushReply(200, {"validationResponse": "yes"})
        body = await request.read(verified=True)
        message_id = request.headers.get("x-id", "pushed")
        attributes = {"schemaVersion": version} if (version := request.headers.get("x-version")) else {}
        return [Received(body, message_id, int(request.headers.get("x-attempt", "1")), SUBSCRIPTION, attributes)]


SUBSCRIPTION = Subscription("blog-posts", "posts-topic", "posts", retry=RetryPolicy(3, 0.0, 0.0))


class Handler:
    """Handles one type by a function given by the test. (The router needs no more than these two methods.)"""

    def __init__(self, process: Callable[[TotoMessage], Any], message_type: str = "postCreated") -> None:
        self._process, self._type = process, message_type
        self.seen: list[TotoMessage] = []

    def get_handled_message_type(self) -> str:
        return self._type

    async def process_message(self, message: TotoMessage) -> Any:
        self.seen.append(message)
        result = self._process(message)
        return await result if asyncio.iscoroutine(result) else result


def succeed(_message: TotoMessage) -> ProcessingResponse:
    return ProcessingResponse(ProcessingStatus.SUCCESS)


def make_router(*handlers: Any, timeout: float = 60.0, max_attempts: int = 3, **more: Any) -> MessageRouter:
    return MessageRouter(
        handlers, retry=RetryPolicy(max_attempts, 0.0, 0.0), timeout=timeout, logger=TotoLogger("blog"), **more
    )
