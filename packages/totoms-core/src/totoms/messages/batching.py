"""Batch the messages of concurrent publishers into few requests, without delaying a single publisher."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from totoms.errors import BackendError, Closed, Unavailable

Item = TypeVar("Item")
Results = Sequence[BackendError | None]


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item]):
    item: Item
    size: int
    since: float
    done: asyncio.Future[BackendError | None]


class Batcher(Generic[Item]):
    """Sends items to one destination, from one event loop.

    An item is sent at once if fewer than `flights` requests are in flight. Otherwise it waits, and the next request
    takes all that wait. There is no timer.

    Args:
        send: Sends items in one request and returns a result for each. An exception is the result of all.
        max_items: The most items of one request.
        max_bytes: The most bytes of one request.
        flights: How many requests may be in flight before items wait. 1 preserves the order.
        full_flights: The same for full requests; by default `flights`.
        patience: Seconds that an item waits while no request succeeds; then it fails with `Unavailable`.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Results]],
        *,
        max_items: int,
        max_bytes: int,
        flights: int = 1,
        full_flights: int | None = None,
        patience: float = 30.0,
    ) -> None:
        self._send = send
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._flights = flights
        self._full_flights = full_flights or flights
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting[Item]] = deque()
        self._in_flight: dict[asyncio.Task[None], list[_Waiting[Item]]] = {}
        self._scheduled = False
        self._last_success = float("-inf")

    def add(self, item: Item, size: int) -> asyncio.Future[BackendError | None]:
        """Queue an item of `size` bytes. The future resolves to None or to the error, and never raises.

        Cancelling the future does not withdraw the item.
        """
        done: asyncio.Future[BackendError | None] = self._loop.create_future()
        self._waiting.append(_Waiting(item, size, self._loop.time(), done))
        if not self._scheduled and len(self._in_flight) < self._full_flights:
            # After the callbacks that are ready now, so that one request takes all they add.
            self._scheduled = True
            self._loop.call_soon(self._send_waiting)
        return done

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._waiting and not self._in_flight

    async def flush(self) -> None:
        """Wait until every item has its result."""
        while pending := [one.done for batch in (self._waiting, *self._in_flight.values()) for one in batch]:
            await asyncio.wait(pending)
            await asyncio.sleep(0)  # the requests' tasks end after their items have results

    async def close(self) -> None:
        """Cancel the requests in flight. Items without a result fail with `Closed`."""
        requests = list(self._in_flight)
        for request in requests:
            request.cancel()
        if requests:
            await asyncio.wait(requests)
        while self._waiting:
            _resolve(self._waiting.popleft(), Closed("The message bus is closed."))

    def _send_waiting(self) -> None:
        self._scheduled = False
        self._expire()
        while self._waiting and len(self._in_flight) < self._full_flights:
            if len(self._in_flight) >= self._flights and len(self._waiting) < self._max_items:
                return
            batch = self._next_batch()
            request = self._loop.create_task(self._send_batch(batch))
            self._in_flight[request] = batch
            request.add_done_callback(self._request_done)

    def _expire(self) -> None:
        oldest = self._loop.time() - self._patience
        while self._waiting and max(self._waiting[0].since, self._last_success) < oldest:
            error = Unavailable("The message was not published: the broker does not answer.")
            _resolve(self._waiting.popleft(), error)

    def _next_batch(self) -> list[_Waiting[Item]]:
        batch = [self._waiting.popleft()]
        size = batch[0].size
        while self._waiting and len(batch) < self._max_items and size + self._waiting[0].size <= self._max_bytes:
            size += self._waiting[0].size
            batch.append(self._waiting.popleft())
        return batch

    async def _send_batch(self, batch: list[_Waiting[Item]]) -> None:
        try:
            results = await self._send([one.item for one in batch])
        except BackendError as error:
            results = [error] * len(batch)
        except asyncio.CancelledError:
            for one in batch:
                _resolve(one, Closed("The message bus was closed while the message was sent: it may still arrive."))
            raise
        except Exception as error:  # publishers wait for a result, whatever went wrong
            unknown = Unavailable(f"The message may or may not have been published: {type(error).__name__}.")
            unknown.__cause__ = error
            results = [unknown] * len(batch)
        if not all(isinstance(result, Unavailable) for result in results):
            self._last_success = self._loop.time()
        for one, result in zip(batch, results, strict=True):
            _resolve(one, result)

    def _request_done(self, request: asyncio.Task[None]) -> None:
        del self._in_flight[request]
        if not request.cancelled() and not self._scheduled:
            self._send_waiting()


def _resolve(waiting: _Waiting[Item], result: BackendError | None) -> None:
    if not waiting.done.done():
        waiting.done.set_result(result)
