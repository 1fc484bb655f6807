"""How long an event loop was held up, by whatever blocked it; not by other programs that had the processor."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

_EVERY = 0.01


class StallMeter:
    """Wakes every 10 ms and notes how much too late that was.

    What the kernel counts as "ready to run, but another had the processor" is taken off: it is the machine's doing.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._task: asyncio.Task[None] | None = None
        self._schedule = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

    def start(self) -> None:
        """Begin, on the running loop and its thread."""
        self._task = asyncio.create_task(self._measure())

    def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    def _waited(self) -> float:
        try:
            return int(self._schedule.read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # not on Linux: then the machine's doing counts as well
            return 0.0

    async def _measure(self) -> None:
        while True:
            began, waited = time.perf_counter(), self._waited()
            await asyncio.sleep(_EVERY)
            late = time.perf_counter() - began - _EVERY - (self._waited() - waited)
            self.longest = max(self.longest, late)
