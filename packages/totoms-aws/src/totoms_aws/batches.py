"""Gathering what many send at the same time into requests, without making the one who sends alone wait.

A message that finds nothing under way is sent at once. Those that come while requests are under way gather, and leave
together with the next. Nothing waits by the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from totoms.errors import BackendError, Unavailable
from totoms_aws.workers import PUBLISHING

MOST_ENTRIES: Final = 10
MOST_BYTES: Final = 256 * 1024
"""Of one request, for SNS (https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html); SQS takes more."""
_AT_ONCE: Final = 4
"""Requests under way to one destination before more gather."""
_FULL_AT_ONCE: Final = 16
"""The same, where there is enough to fill them."""
_PATIENCE: Final = 30.0
"""Seconds that a message waits while nothing before it gets through: when AWS is away, more come than can be tried."""

Entry = dict[str, Any]
Results = Sequence[BackendError | None]


@dataclass(slots=True, eq=False)
class _Waiting:
    entry: Entry
    size: int
    since: float
    done: asyncio.Future[BackendError | None]


class Line:
    """What is sent to one destination from one event loop.

    Args:
        send: Sends entries, at most `MOST_ENTRIES` of at most `MOST_BYTES`, and gives a result for each. It is called
            in a thread.
        in_order: Whether what was added first must be there first: then one request is under way at a time.
    """

    def __init__(self, send: Callable[[list[Entry]], Results], *, in_order: bool) -> None:
        self._send = send
        self._at_once = 1 if in_order else _AT_ONCE
        self._full_at_once = 1 if in_order else _FULL_AT_ONCE
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._sending: dict[int, list[_Waiting]] = {}
        self._scheduled = False
        self._through = float("-inf")

    def add(self, entry: Entry, size: int) -> asyncio.Future[BackendError | None]:
        """Have an entry of `size` bytes sent; the future tells how it ended, and never raises."""
        done: asyncio.Future[BackendError | None] = self._loop.create_future()
        self._waiting.append(_Waiting(entry, size, self._loop.time(), done))
        if not self._scheduled and len(self._sending) < self._full_at_once:
            # When those who run now have run: so that they leave together.
            self._scheduled = True
            self._loop.call_soon(self._leave)
        return done

    @property
    def pending(self) -> list[asyncio.Future[BackendError | None]]:
        """What waits to be sent, or has been sent and not answered."""
        return [one.done for batch in (self._waiting, *self._sending.values()) for one in batch if not one.done.done()]

    def _leave(self) -> None:
        self._scheduled = False
        self._give_up()
        while self._waiting and len(self._sending) < self._full_at_once:
            if len(self._sending) >= self._at_once and len(self._waiting) < MOST_ENTRIES:
                return
            batch = self._take()
            self._sending[id(batch)] = batch
            try:
                sending = PUBLISHING.submit(self._send, [one.entry for one in batch])
            except RuntimeError as error:  # no thread is to be had
                sending = Future()
                sending.set_exception(error)
            sending.add_done_callback(lambda sent, batch=batch: self._sent(batch, sent))  # type: ignore[misc]

    def _give_up(self) -> None:
        oldest = self._loop.time() - _PATIENCE
        while self._waiting and max(self._waiting[0].since, self._through) < oldest:
            one = self._waiting.popleft()
            if not one.done.done():
                one.done.set_result(Unavailable("The message was not published: AWS does not answer those before it."))

    def _take(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        size = batch[0].size
        while self._waiting and len(batch) < MOST_ENTRIES and size + self._waiting[0].size <= MOST_BYTES:
            size += self._waiting[0].size
            batch.append(self._waiting.popleft())
        return batch

    def _sent(self, batch: list[_Waiting], sent: Future[Results]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._tell, batch, sent)

    def _tell(self, batch: list[_Waiting], sent: Future[Results]) -> None:
        del self._sending[id(batch)]
        failure = sent.exception()
        results = sent.result() if failure is None else [_unanswered(failure) for _ in batch]
        if not all(isinstance(result, Unavailable) for result in results):
            self._through = self._loop.time()
        for one, result in zip(batch, results, strict=True):
            if not one.done.done():
                one.done.set_result(result)
        if not self._scheduled:
            self._leave()


def _unanswered(failure: BaseException) -> BackendError:
    # Nothing that is known raises there; but who publishes must not wait for ever.
    error = Unavailable(f"Whether the message was published is unknown: {type(failure).__name__}.")
    error.__cause__ = failure
    return error


def packed(sizes: Sequence[int], most_bytes: int = MOST_BYTES) -> list[range]:
    """Return which go together into requests, in order, when their sizes are these."""
    packs: list[range] = []
    start = size = 0
    for number, one in enumerate(sizes):
        if number > start and (number - start == MOST_ENTRIES or size + one > most_bytes):
            packs.append(range(start, number))
            start, size = number, 0
        size += one
    if sizes:
        packs.append(range(start, len(sizes)))
    return packs
