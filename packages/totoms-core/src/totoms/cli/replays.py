"""Replay and purge dead letters in batches, at a rate, and show the progress."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

_LARGEST_BATCH: Final = 100
_PATIENCE: Final = 1.0
"""Seconds after which the progress is shown."""


async def in_batches(
    work: Callable[[str, Sequence[str]], Awaitable[int]],
    subscription: str,
    letter_ids: Sequence[str],
    done: Callable[[Sequence[str], int], None],
    *,
    size: int,
    rate: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Replay or purge dead letters in batches.

    Args:
        work: `MessageBus.replay_dead_letters` or `MessageBus.purge_dead_letters`.
        subscription: The name of the subscription.
        letter_ids: Which ones.
        done: Called after each batch with its ids and how many of them there were.
        size: The size of a batch.
        rate: At most so many in a second.
        clock: Returns a time in seconds.
        sleep: Waits.

    Raises:
        BackendError: Of `work`. What `done` was called with is done.
    """
    due = clock()
    for start in range(0, len(letter_ids), size):
        batch = letter_ids[start : start + size]
        if (wait := due - clock()) > 0:
            await sleep(wait)
        due = max(due, clock()) + len(batch) / rate  # lost time is not made up for
        done(batch, await work(subscription, batch))


def batch_size(rate: float) -> int:
    """Return how many are replayed at once, so that the rate holds within each second."""
    return max(1, min(int(rate), _LARGEST_BATCH))


class Progress:
    """Shows on a terminal how many of `total` are done, once it takes over a second.

    Attributes:
        count: How many are done.
    """

    def __init__(self, verb: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._verb = verb
        self._total = total
        self._clock = clock
        self._begun = clock()
        self._shown = False

    def add(self, number: int) -> None:
        """Count `number` more, and show the sum."""
        self.count += number
        if sys.stderr.isatty() and (self._shown or self._clock() - self._begun > _PATIENCE):
            self._shown = True
            sys.stderr.write(f"\r{self._verb} {self.count} of {self._total} ")
            sys.stderr.flush()

    def end(self) -> None:
        """End the line."""
        if self._shown:
            sys.stderr.write("\n")
