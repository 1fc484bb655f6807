"""Service Bus without a protocol: topics, queues, locks, counts, sessions. All of it on one event loop."""

from __future__ import annotations

import asyncio
import heapq
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

DEAD_LETTERS = "$deadletterqueue"
EXPIRED = "MaxDeliveryCountExceeded"


class LockLost(Exception):
    """Somebody else has the message or the session by now."""


class NoEntity(Exception):
    """There is none of that name."""


class Taker(Protocol):
    """Whoever receives: asked whether it takes one more message, and given it."""

    session_id: str | None

    def wants(self) -> bool: ...

    def give(self, message: Stored) -> None: ...


@dataclass(eq=False)
class Stored:
    """A message as it is kept: its sections as they came, and what the broker knows of it."""

    sections: list[tuple[int, bytes]]
    properties: dict[str, Any]
    message_id: Any = None
    session_id: str | None = None
    due: float = 0.0
    sequence: int = 0
    delivery_count: int = 0
    enqueued: float = 0.0
    token: bytes = b""
    locked_until: float = 0.0
    timer: asyncio.TimerHandle | None = None
    queue: Queue | None = None

    def __lt__(self, other: Stored) -> bool:
        return self.sequence < other.sequence

    def copy(self) -> Stored:
        """Return one for another subscription."""
        return Stored(self.sections, dict(self.properties), self.message_id, self.session_id, self.due)


@dataclass(eq=False)
class Queue:
    """What messages are received from: a queue, a subscription, or the dead letters of one."""

    path: str
    requires_session: bool = False
    lock_seconds: float = 60.0
    max_delivery_count: int = 10
    dead: Queue | None = None
    available: dict[str | None, list[Stored]] = field(default_factory=dict)
    locked: dict[bytes, Stored] = field(default_factory=dict)
    scheduled: set[Stored] = field(default_factory=set)
    takers: dict[Taker, None] = field(default_factory=dict)
    sessions: dict[str, tuple[Any, float]] = field(default_factory=dict)
    waiting: dict[Any, Callable[[str], None]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)
    _numbers: int = 0

    def __post_init__(self) -> None:
        if not self.path.endswith(DEAD_LETTERS):
            self.dead = Queue(f"{self.path}/{DEAD_LETTERS}", lock_seconds=self.lock_seconds)

    # --- what comes in ---

    def put(self, message: Stored) -> None:
        """Take a message in, now or when it is due."""
        wait = message.due - time.time()
        if wait > 0:
            self.scheduled.add(message)
            asyncio.get_running_loop().call_later(wait, self._arrive, message)
        else:
            self._arrive(message)

    def _arrive(self, message: Stored) -> None:
        self.scheduled.discard(message)
        self._numbers += 1
        message.sequence, message.enqueued, message.queue = self._numbers, time.time(), self
        if self.requires_session and message.session_id is None:
            self.bury(message, "Session id is null.", "")
        else:
            self._offer(message)

    def _offer(self, message: Stored) -> None:
        key = message.session_id if self.requires_session else None
        heapq.heappush(self.available.setdefault(key, []), message)
        if self.requires_session and key is not None and key not in self.sessions and self.waiting:
            taker = next(iter(self.waiting))
            self.waiting.pop(taker)(key)
        self.hand_over()

    # --- what goes out ---

    def hand_over(self) -> None:
        """Give what is available to those who want it, by turns."""
        for taker in list(self.takers):
            heap = self.available.get(taker.session_id if self.requires_session else None)
            if heap and taker in self.takers and taker.wants():
                self.takers[taker] = self.takers.pop(taker)  # the next time the others come first
                self._lock(heapq.heappop(heap), taker)
                asyncio.get_running_loop().call_soon(self.hand_over)

    def _lock(self, message: Stored, taker: Taker) -> None:
        message.token = uuid.uuid4().bytes
        self.locked[message.token] = message
        if not self.requires_session:
            self._keep(message)
        else:
            message.locked_until = self.sessions[message.session_id or ""][1]
        taker.give(message)

    def _keep(self, message: Stored) -> None:
        if message.timer is not None:
            message.timer.cancel()
        message.locked_until = time.time() + self.lock_seconds
        message.timer = asyncio.get_running_loop().call_later(self.lock_seconds, self._expire, message, message.token)

    def _expire(self, message: Stored, token: bytes) -> None:
        if self.locked.get(token) is message:
            self.abandon(token)

    def renew(self, token: bytes) -> float:
        """Renew a lock; return until when it lasts."""
        message = self._held(token)
        self._keep(message)
        return message.locked_until

    # --- settling ---

    def complete(self, token: bytes) -> None:
        self._taken(token)

    def abandon(self, token: bytes) -> None:
        message = self._taken(token)
        message.delivery_count += 1
        if message.delivery_count >= self.max_delivery_count and self.dead is not None:
            self.bury(message, EXPIRED, "Message could not be consumed after so many delivery attempts.")
        else:
            self._offer(message)

    def release(self, token: bytes) -> None:
        self._offer(self._taken(token))

    def bury(self, message: Stored | bytes, reason: str, description: str) -> None:
        """Put a message among the dead letters."""
        if isinstance(message, bytes):
            message = self._taken(message)
        told = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
        message.properties = {**message.properties, **told}
        assert self.dead is not None
        self.dead._arrive(message)

    def _held(self, token: bytes) -> Stored:
        message = self.locked.get(token)
        if message is None:
            raise LockLost
        if self.requires_session and (message.session_id or "") not in self.sessions:
            raise LockLost
        return message

    def _taken(self, token: bytes) -> Stored:
        message = self._held(token)
        del self.locked[token]
        if message.timer is not None:
            message.timer.cancel()
            message.timer = None
        return message

    # --- sessions ---

    def accept(self, owner: Any, wanted: str | None, then: Callable[[str], None]) -> None:
        """Lock a session, the one that is wanted or the next with messages, for `owner`, maybe later."""
        free = [key for key, heap in self.available.items() if heap and key is not None and key not in self.sessions]
        key = wanted if wanted is not None else min(free, key=lambda one: self.available[one][0], default=None)
        if key is not None and key not in self.sessions:
            self._own(owner, key)
            then(key)
        elif wanted is None:

            def later(found: str) -> None:
                self._own(owner, found)
                then(found)

            self.waiting[owner] = later

    def _own(self, owner: Any, key: str) -> None:
        until = time.time() + self.lock_seconds
        self.sessions[key] = (owner, until)
        asyncio.get_running_loop().call_later(self.lock_seconds, self._expire_session, key, owner)

    def renew_session(self, owner: Any, key: str) -> float:
        """Renew the lock of a session; return until when it lasts."""
        if owner is None or self.sessions.get(key, (None, 0))[0] is not owner:
            raise LockLost
        self._own(owner, key)
        return self.sessions[key][1]

    def _expire_session(self, key: str, owner: Any) -> None:
        holder, until = self.sessions.get(key, (None, 0.0))
        if holder is owner and until <= time.time() + 0.001:
            self.give_up(owner, key, failed=True)
            owner.lose_session()

    def give_up(self, owner: Any, key: str, *, failed: bool = False) -> None:
        """End the lock of a session: what was handed out of it is available again.

        It counts when the lock ends by its time, not when the session is closed, as by a holder that dies:
        https://learn.microsoft.com/azure/service-bus-messaging/message-sessions#impact-of-delivery-count
        """
        if self.sessions.get(key, (None, 0))[0] is not owner:
            return
        for token, message in [(t, m) for t, m in self.locked.items() if m.session_id == key]:
            del self.locked[token]
            message.delivery_count += failed
            heapq.heappush(self.available.setdefault(key, []), message)
        del self.sessions[key]
        if self.available.get(key) and self.waiting:
            self.waiting.pop(next(iter(self.waiting)))(key)

    def each(self) -> Iterator[Stored]:
        """Give all messages, in order."""
        waiting = [message for heap in self.available.values() for message in heap]
        yield from sorted([*waiting, *self.locked.values()])


@dataclass(eq=False)
class Topic:
    """What is published to."""

    path: str
    subscriptions: dict[str, Queue] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def put(self, message: Stored) -> None:
        for subscription in self.subscriptions.values():
            subscription.put(message.copy())


class Store:
    """A namespace."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.topics: dict[str, Topic] = {}

    def destination(self, path: str) -> Queue | Topic:
        """Return what may be sent to."""
        name = path.lower()
        found = self.topics.get(name) or self.queues.get(name)
        if found is None:
            raise NoEntity(path)
        return found

    def source(self, path: str) -> Queue:
        """Return what may be received from."""
        name, dead = path.lower(), False
        if name.endswith(f"/{DEAD_LETTERS}"):
            name, dead = name[: -len(DEAD_LETTERS) - 1], True
        topic, _, subscription = name.partition("/subscriptions/")
        found = self.topics[topic].subscriptions.get(subscription) if topic in self.topics else self.queues.get(name)
        if found is None:
            raise NoEntity(path)
        if dead:
            assert found.dead is not None
            return found.dead
        return found
