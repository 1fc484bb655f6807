"""Measure how long an event loop was blocked, without the time that other programs had the processor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from types import TracebackType
from typing import Final

_INTERVAL: Final = 0.01


class StallMeter:
    """Wakes every 10 ms while the block runs, and measures how late each wake-up was.

    It subtracts the time for which the thread was ready to run but had no processor, as counted by Linux.

    Attributes:
        longest: The longest stall so far, in seconds.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._task: asyncio.Task[None] | None = None
        self._schedule = -1

    async def __aenter__(self) -> StallMeter:
        """Start measuring the running loop."""
        with contextlib.suppress(OSError):  # not on Linux: other programs' time counts too
            path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
            self._schedule = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._task = asyncio.create_task(self._measure())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop measuring, after one more interval."""
        await asyncio.sleep(_INTERVAL)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._schedule >= 0:
            os.close(self._schedule)

    def _waited(self) -> float:
        if self._schedule < 0:
            return 0.0
        return int(os.pread(self._schedule, 256, 0).split()[1]) / 1e9

    async def _measure(self) -> None:
        while True:
            began, waited = time.perf_counter(), self._waited()
            await asyncio.sleep(_INTERVAL)
            late = time.perf_counter() - began - _INTERVAL - (self._waited() - waited)
            self.longest = max(self.longest, late)
