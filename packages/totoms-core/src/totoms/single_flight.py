"""Make a call once for all that need its result at the same time, and not again before a cooldown has passed."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from totoms.threads import start_thread

_Result = TypeVar("_Result")


class SingleFlight(Generic[_Result]):
    """One call at a time, for any number of callers in threads and event loops.

    A caller that is cancelled does not cancel the call. Cooldowns are counted from the end of a call, so that a server
    that takes long to fail is left alone, too.

    Attributes:
        result: What the last successful call returned; None before.
        failed: Whether the last call failed.

    Args:
        cooldown: The least seconds between a successful call and the next.
        failed_cooldown: The least seconds between a failed call and the next.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, cooldown: float = 0.0, failed_cooldown: float = 0.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.result: _Result | None = None
        self.failed = False
        self._cooldowns = cooldown, failed_cooldown
        self._clock = clock
        self._lock = threading.Lock()
        self._running: Future[_Result] | None = None
        self._work: object = None  # the event loop holds its tasks only weakly
        self._succeeded = self._next = -math.inf

    @property
    def running(self) -> bool:
        """Whether a call is running."""
        return self._running is not None

    def age(self) -> float:
        """Return the seconds since `result` was returned; infinity without one."""
        return self._clock() - self._succeeded

    def cooldown_left(self) -> float:
        """Return the seconds until a call may start; 0 while one is running, which can be joined."""
        return max(0.0, self._next - self._clock())

    def keep(self, result: _Result) -> None:
        """Set `result`, as if a call had returned it now."""
        self.result, self.failed, self._succeeded = result, False, self._clock()
        self._next = self._succeeded + self._cooldowns[0]

    async def attempt(self, call: Callable[[], Awaitable[_Result]]) -> bool:
        """Join or start a call and wait for its end; return whether it succeeded. Return False within the cooldown."""
        if self.cooldown_left():
            return False
        flight = asyncio.wrap_future(self.in_task(call))
        return not isinstance((await asyncio.gather(flight, return_exceptions=True))[0], BaseException)

    def in_task(self, call: Callable[[], Awaitable[_Result]]) -> Future[_Result]:
        """Return the running call, or start one as a task of this event loop, whatever the cooldown."""

        async def run(flight: Future[_Result]) -> None:
            try:
                self._end(flight, await call())
            except BaseException as error:  # also a cancellation, because the loop is ending
                self._fail(flight, error)

        return self._join(lambda flight: asyncio.get_running_loop().create_task(run(flight)))

    def in_thread(self, call: Callable[[], _Result], name: str) -> Future[_Result]:
        """Return the running call, or start one in a daemon thread, whatever the cooldown.

        Raises:
            RuntimeError: The system cannot start a thread.
        """

        def run(flight: Future[_Result]) -> None:
            try:
                self._end(flight, call())
            except BaseException as error:
                self._fail(flight, error)

        return self._join(lambda flight: start_thread(lambda: run(flight), name))

    def abandon(self, flight: Future[_Result]) -> None:
        """Count a call that takes too long as failed. Its result is not kept: a later call may have a newer one."""
        with self._lock:
            if self._running is flight:
                self._running, self.failed, self._next = None, True, self._clock() + self._cooldowns[1]

    def _join(self, start: Callable[[Future[_Result]], object]) -> Future[_Result]:
        with self._lock:
            if self._running is None:
                flight: Future[_Result] = Future()
                flight.set_running_or_notify_cancel()  # from now on a caller cannot cancel it
                self._work = start(flight)
                self._running, self._next = flight, -math.inf
            return self._running

    def _end(self, flight: Future[_Result], result: _Result) -> None:
        with self._lock:
            if self._running is flight:
                self._running = None
                self.keep(result)
        flight.set_result(result)

    def _fail(self, flight: Future[_Result], error: BaseException) -> None:
        self.abandon(flight)
        flight.set_exception(error)
