"""Threads for calls of the SDK that wait: they end with the process, and are never waited for at its end.

Each kind of work has its own, so that long polls and slow publishing do not keep leases from being renewed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, TypeVar

_Result = TypeVar("_Result")


class Workers:
    """A pool of daemon threads, each started when it is first needed. Making it starts none.

    Args:
        most: How many threads at most.
        name: What they are called.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # threads are not there in a forked child

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self._threads = 0
        self._outstanding = 0

    def submit(self, function: Callable[..., _Result], *args: Any) -> Future[_Result]:
        """Call `function` in a thread, when one is free.

        Raises:
            RuntimeError: The system gives no thread, and there is none yet.
        """
        future: Future[_Result] = Future()
        with self._lock:
            self._outstanding += 1
            starting = self._outstanding > self._threads and self._threads < self._most
            self._threads += starting
            name = f"{self._name} {self._threads}"
        if starting:
            try:
                threading.Thread(target=self._run, name=name, daemon=True).start()
            except RuntimeError:
                with self._lock:
                    self._threads -= 1
                    if not self._threads:
                        self._outstanding -= 1
                        raise
        self._work.put((future, function, args))
        return future

    async def run(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Call `function` in a thread and wait for it. Who is cancelled goes on at once; the call goes on, unheard."""
        return await asyncio.wrap_future(self.submit(function, *args))

    def _run(self) -> None:
        while True:
            future, function, args = self._work.get()
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            with self._lock:
                self._outstanding -= 1
            del future, function, args


PUBLISHING: Final = Workers(16, "totoms-aws publishing")
POLLING: Final = Workers(256, "totoms-aws polling")
SETTLING: Final = Workers(16, "totoms-aws settling")
