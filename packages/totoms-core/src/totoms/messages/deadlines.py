"""Deadlines of message handlers, with one timer for all, and the names of those that run."""

from __future__ import annotations

import asyncio
from typing import Any


class Deadlines:
    """Cancels tasks that take longer than `seconds`.

    Args:
        seconds: How long a task may take between :meth:`begin` and :meth:`end`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # In the order in which they began, so also by deadline.
        self._due: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._names: dict[asyncio.Task[Any], str] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: asyncio.Task[Any], name: str) -> None:
        """Start the deadline of `task`, the current one, which runs the handler `name`."""
        self._names[task] = name
        loop = asyncio.get_running_loop()
        self._due[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._expire, loop)

    def end(self, task: asyncio.Task[Any]) -> None:
        """Stop the deadline of `task`. If it had passed, undo the cancellation (`Task.uncancel`)."""
        self._names.pop(task, None)
        if self._due.pop(task, None) is None and task in self._expired:
            self._expired.remove(task)
            task.uncancel()

    def name_of(self, task: asyncio.Task[Any]) -> str:
        """Return the name of the handler that `task` runs; "" if it runs none. Any thread may call this."""
        return self._names.get(task, "")

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._timer = None
        for task, due in list(self._due.items()):
            if due > now:
                self._timer = loop.call_at(due, self._expire, loop)
                return
            del self._due[task]
            self._expired.add(task)
            task.cancel()
