"""One consumer's way into a subscription: how much it asked for, and what it was handed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from typing import Final

from totoms.envelope import Received, Subscription

NEVER: Final = float("inf")


class Feed:
    """Between a consumer on its event loop and the writer thread.

    Never more is leased for it than it asked for: what it holds, what lies `ready` and what the writer is about to
    hand over count together.

    Args:
        row: The subscription's row in the database.
        subscription: What the core knows of it.
        lease_seconds: How long its leases last.

    Attributes:
        token: Fences its leases in the database against those of other consumers.
        leases: What it holds, by row. Its own stale handles are told from the current one by identity.
        backlog: Whether there may be messages in the database for it.
        loop: The consumer's event loop.
        next_due: When the next of those that wait (delayed, in backoff, leased by somebody) may be had.
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
        self.loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    # --- on the event loop ---

    async def receive(self, max_messages: int, wait: float) -> list[Received]:
        """Return up to `max_messages`, waiting up to `wait` seconds for the first. Cancelled, call `abandon`."""
        with self._lock:
            self._receiving, self._abandoned = True, False
            self._wanted = max_messages - len(self._ready) - self._on_the_way
        try:
            if not self._ready and not self._stopped:
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
            return [self._ready.popleft() for _ in range(min(max_messages, len(self._ready)))]

    def surplus(self) -> list[Received]:
        """Return what was handed over beyond what :meth:`receive` has returned; nobody would extend its lease."""
        with self._lock:
            return self._take_back()

    def abandon(self) -> list[Received]:
        """Take nothing until :meth:`receive` is called again; return what was handed over and not taken."""
        with self._lock:
            self._abandoned = True
            return self._take_back()

    def stop(self) -> None:
        """End the wait of :meth:`receive`, now and later."""
        self._stopped = True
        self.wake()

    def wake(self) -> None:
        """End the wait: something was handed over, or time is up."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- on the writer's thread ---

    @property
    def wanted(self) -> int:
        """How many more the consumer would take now."""
        return self._wanted

    def reserve(self, most: int) -> int:
        """Take up to `most` of what is wanted, to be handed over when the commit succeeds; return how many."""
        with self._lock:
            taken = min(most, max(self._wanted, 0))
            self._wanted -= taken
            self._on_the_way += taken
            return taken

    def hand_over(self, batch: list[Received], reserved: int) -> bool:
        """Hand over what is leased, durably. Return False when the consumer is gone: the batch must be released."""
        with self._lock:
            self._on_the_way -= reserved
            if self._receiving:
                self._wanted += reserved - len(batch)
            if self._stopped or self._abandoned or not self._receiving:
                return False
            self._ready.extend(batch)
            return True

    def _take_back(self) -> list[Received]:
        left, self._ready = list(self._ready), deque()
        return left
