"""The queue between the writer thread and one consumer: how much it wants, and the messages leased for it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import deque
from typing import Final

from totoms.errors import BackendError, NotFound
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

NEVER: Final = float("inf")


class Feed:
    """Hands messages from the writer thread to a consumer on its event loop.

    The writer never leases more for it than it asked for: messages that are ready and messages that the writer is
    about to hand over count too.

    Args:
        row: The subscription's row in the database.
        subscription: The subscription.
        lease_seconds: How long its leases last.

    Attributes:
        token: Marks its leases in the database; other consumers have other tokens.
        leases: The messages it holds, by row. A stale handle is recognised by identity.
        backlog: Whether the database may have messages for it.
        loop: The consumer's event loop.
        next_due: When the next message that is delayed, in backoff or leased becomes due.
    """

    def __init__(self, row: int, subscription: Subscription, lease_seconds: float) -> None:
        self.row = row
        self.subscription = subscription
        self.lease_seconds = lease_seconds
        self.token = random.getrandbits(62) | 1  # 0 stands for "not leased"
        self.leases: dict[int, Received] = {}
        self.backlog = True
        self.next_due = NEVER
        self._lock = threading.Lock()
        self._ready: deque[Received] = deque()
        self._wanted = 0
        self._on_the_way = 0
        self._receiving = False
        self._abandoned = False
        self._stopped = False
        self._failure: BackendError | None = None
        self._gone: NotFound | None = None
        self.loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    # --- on the event loop ---

    async def receive(self, max_messages: int, wait: float) -> list[Received]:
        """Return up to `max_messages`; wait up to `wait` seconds for the first. If cancelled, call `abandon`.

        Raises:
            NotFound: The subscription was deleted.
            BackendError: The database could not be read or written.
        """
        with self._lock:
            self._receiving, self._abandoned, self._failure = True, False, self._gone
            self._wanted = max_messages - len(self._ready) - self._on_the_way
        try:
            if not self._ready and not self._stopped and self._failure is None:
                self._waiter = self.loop.create_future()
                timer = self.loop.call_later(wait, self.wake)
                try:
                    await self._waiter
                finally:
                    timer.cancel()
        finally:
            self._waiter = None
            with self._lock:
                self._wanted = 0
                self._receiving = False
        with self._lock:
            if self._failure is not None and not self._ready:
                raise self._failure
            return [self._ready.popleft() for _ in range(min(max_messages, len(self._ready)))]

    def surplus(self) -> list[Received]:
        """Return the messages that :meth:`receive` left behind: release them, because their leases are not extended."""
        with self._lock:
            return self._take_back()

    def abandon(self) -> list[Received]:
        """Accept nothing until the next :meth:`receive`; return the messages that were not received."""
        with self._lock:
            self._abandoned = True
            return self._take_back()

    def stop(self) -> None:
        """End the wait of :meth:`receive`, and of later calls."""
        self._stopped = True
        self.wake()

    def wake(self) -> None:
        """End the wait: messages are ready, or the time is up."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- on the writer's thread ---

    @property
    def wanted(self) -> int:
        """How many more messages the consumer accepts now."""
        return self._wanted

    def reserve(self, most: int) -> int:
        """Reserve room for up to `most` messages, to be handed over after the commit; return how many."""
        with self._lock:
            taken = min(most, max(self._wanted, 0))
            self._wanted -= taken
            self._on_the_way += taken
            return taken

    def hand_over(self, batch: list[Received], reserved: int) -> bool:
        """Hand over leased messages after the commit. Return False if the consumer is gone: then release the batch."""
        with self._lock:
            self._on_the_way -= reserved
            if self._receiving:
                self._wanted += reserved - len(batch)
            if self._stopped or self._abandoned or not self._receiving:
                return False
            self._ready.extend(batch)
            return True

    def fail(self, error: BackendError) -> None:
        """Have a waiting :meth:`receive` raise `error`."""
        with self._lock:
            if not self._receiving or self._stopped:
                return
            self._failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, so its consumer is gone
            self.loop.call_soon_threadsafe(self.wake)

    def vanish(self) -> None:
        """Have :meth:`receive` raise NotFound, now and later: the subscription was deleted."""
        name = self.subscription.name
        self._gone = NotFound(f"The subscription {name!r} was deleted.", resource=name)
        self.fail(self._gone)

    def _take_back(self) -> list[Received]:
        left, self._ready = list(self._ready), deque()
        return left
