"""Limit how many pushed messages are handled at a time, and how long and how many bytes of them wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from totoms.context import current_cid
from totoms.errors import Undecidable
from totoms.logging.logger import TotoLogger
from totoms.messages.push.bodies import Budget

_RETRY_AFTER: Final = 1
_LOG_INTERVAL: Final = 10.0
"""Seconds between two log lines about messages answered 503."""
_STOPPED: Final = "The service is shutting down."
_OVERHEAD: Final = 4096
"""Bytes that a waiting request takes in addition to its body."""


class Slots:
    """Slots for pushed messages: each takes one while it is handled.

    Args:
        most: The number of slots.
        patience: Seconds that a message waits for a slot.
        waiting: The budget of waiting messages.
        logger: The service's logger.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, most: int, patience: float, waiting: Budget, logger: TotoLogger, clock: Callable[[], float]
    ) -> None:
        self._most = most
        self._patience = patience
        self._waiting = waiting
        self._logger = logger
        self._clock = clock
        self._free = asyncio.Semaphore(most)
        self._queue: set[asyncio.Timeout] = set()
        self._stopped = False
        self._rejected = 0
        self._last_logged = float("-inf")

    def until(self) -> float:
        """Return until when a message that arrives now may wait, by the event loop's clock."""
        return asyncio.get_running_loop().time() + self._patience

    async def take(self, size: int, until: float) -> None:
        """Wait for a slot and take it. Return it with :meth:`give`.

        Args:
            size: The message's size in bytes.
            until: When to stop waiting, by the event loop's clock.

        Raises:
            Undecidable: No slot became free in time, too many messages wait, or the service is shutting down.
        """
        if self._stopped:
            raise Undecidable(_STOPPED)
        if self._free.locked():
            await self._wait(size + _OVERHEAD, until)
        else:
            await self._free.acquire()

    def give(self) -> None:
        """Return a slot."""
        self._free.release()

    def stop(self) -> None:
        """Refuse all waiting and further messages."""
        self._stopped = True
        for deadline in self._queue:
            if not deadline.expired():
                deadline.reschedule(0.0)

    async def _wait(self, size: int, until: float) -> None:
        if not self._waiting.take(size):
            raise self._full("Too many messages are waiting.")
        deadline = asyncio.timeout_at(until)
        try:
            async with deadline:
                self._queue.add(deadline)
                await self._free.acquire()
        except TimeoutError:
            if self._stopped:
                raise Undecidable(_STOPPED) from None
            raise self._full("All handlers are busy.") from None
        finally:
            self._queue.discard(deadline)
            self._waiting.give(size)

    def _full(self, why: str) -> Undecidable:
        self._rejected += 1
        if self._clock() >= self._last_logged + _LOG_INTERVAL:
            self._logger.log(
                current_cid.get(),
                f"{why} Answered {self._rejected} pushed messages with 503 since the last such line; "
                f"max_concurrency is {self._most}.",
                "WARNING",
            )
            self._last_logged, self._rejected = self._clock(), 0
        return Undecidable(why, retry_after=_RETRY_AFTER)
