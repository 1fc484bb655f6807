"""Run blocking work off the event loop, in pools of daemon threads.

Each kind of work has a pool of its own, so that none waits for another:

- `run_in_thread`: short work of totoms itself, such as calls of an SDK.
- `run_transfer`: reading and writing files in storage.
- `run_delegate`: delegates written as ``def``; the size can be set.
- message handlers written as ``def``: the router has a pool as large as its concurrency.

asyncio's default pool is not used: it is small (six threads on two cores) and also resolves host names. Daemon threads
do not keep the process alive if a function never returns.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from functools import cache, partial, update_wrapper
from queue import SimpleQueue
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from weakref import WeakSet

from totoms.forks import in_forked_child

MOST_THREADS: Final = 256
"""The most threads of one pool."""

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")
_Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class Workers:
    """A pool of daemon threads, each started when it is first needed.

    Args:
        most: The most threads.
        name: The prefix of their names.
    """

    def __init__(self, most: int, name: str) -> None:
        self.most = most
        self._name = name
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads = 0
        self._outstanding = 0

    def submit(self, function: Callable[..., _Result], *args: Any) -> Future[_Result]:
        """Call `function` in a thread as soon as one is free, unless the future is cancelled before.

        Raises:
            RuntimeError: The system cannot start a thread, and the pool has none yet.
        """
        future: Future[_Result] = Future()
        with self._lock:
            self._outstanding += 1
            starting = self._outstanding > self._threads and self._threads < self.most
            self._threads += starting
            name = f"{self._name} {self._threads}"
        if starting:
            try:
                threading.Thread(target=self._run, args=(self._work,), name=name, daemon=True).start()
            except RuntimeError:
                with self._lock:
                    self._threads -= 1
                    if not self._threads:
                        self._outstanding -= 1
                        raise
        self._work.put((future, function, args))
        return future

    async def run(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Call `function` in a thread with the caller's context variables, and return its result.

        If cancelled, a function that has started still finishes and its result is dropped; one that has not started
        does not run.
        """
        return await asyncio.wrap_future(self.submit(copy_context().run, function, *args))

    def close(self) -> None:
        """End the threads once all submitted work is done."""
        with self._lock:
            threads, self._threads = self._threads, 0
            work, self._work = self._work, SimpleQueue()
        for _ in range(threads):
            work.put(None)

    def _run(self, queue: SimpleQueue[_Work | None]) -> None:
        while (work := queue.get()) is not None:
            future, function, args = work
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args)
                except StopIteration as error:  # an asyncio future does not accept it: the caller would wait forever
                    future.set_exception(
                        RuntimeError("the function raised StopIteration").with_traceback(error.__traceback__)
                    )
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            with self._lock:
                self._outstanding -= 1
            # A waiting thread must not keep these alive.
            del work, future, function, args


_pools: WeakSet[Workers] = WeakSet()
_short: Final = Workers(32, "totoms")
_transfers: Final = Workers(32, "totoms transfer")


@cache
def delegate_pool(most: int) -> Workers:
    """Return the pool of `most` threads for ``def`` delegates, shared by services with the same size."""
    return Workers(most, "totoms delegate")


delegate_threads: ContextVar[Workers | None] = ContextVar("delegate_threads", default=None)
"""The pool of the service whose request is being answered; None for the pool of `MOST_THREADS`."""


async def run_in_thread(function: Callable[..., _Result], *args: object) -> _Result:
    """Call `function`, which blocks for a short time, in a worker thread. See `Workers.run`."""
    return await _short.run(function, *args)


async def run_transfer(function: Callable[..., _Result], *args: object) -> _Result:
    """Call `function`, which reads or writes a file in storage, in a worker thread. See `Workers.run`."""
    return await _transfers.run(function, *args)


def in_transfer_thread(
    method: Callable[Concatenate[Any, _Params], _Result],
) -> Callable[Concatenate[Any, _Params], Coroutine[Any, Any, _Result]]:
    """Return the async form of a method that reads or writes files, such as ``copy_file_async`` for ``copy_file``.

    It calls the object's method of that name in a worker thread; see `run_transfer`.
    """
    name = method.__name__

    async def run(self: Any, /, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        blocking: Callable[_Params, _Result] = getattr(self, name)
        return await run_transfer(partial(blocking, *args, **kwargs))

    update_wrapper(run, method)
    run.__name__ = f"{name}_async"
    run.__qualname__ = f"{method.__qualname__}_async"
    return run


def current_delegate_pool() -> Workers:
    """Return the pool of the current service's delegates."""
    return delegate_threads.get() or delegate_pool(MOST_THREADS)


async def run_delegate(function: Callable[..., _Result], *args: object) -> _Result:
    """Call `function`, a delegate, in a thread of the current service's pool. See `Workers.run`."""
    return await current_delegate_pool().run(function, *args)


def start_thread(function: Callable[[], _Result], name: str) -> Future[_Result]:
    """Call `function` in a daemon thread of its own, for work that may wait so long that it would block a pool.

    The thread has the caller's context variables. The future cannot be cancelled, so several callers may wait for it.
    """
    future: Future[_Result] = Future()
    future.set_running_or_notify_cancel()
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _forget() -> None:
    # A forked child has none of its parent's threads.
    for pool in list(_pools):
        pool._begin()


in_forked_child(_forget)
