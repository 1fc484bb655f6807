"""Blocking work off the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

_Result = TypeVar("_Result")


def _new_pool() -> ThreadPoolExecutor:
    # Not asyncio's default pool: that one is small and resolves host names too, which slow transfers would hold up.
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="totoms")


_pool = _new_pool()


async def run_in_thread(function: Callable[..., _Result], *args: object) -> _Result:
    """Call `function` in a worker thread that sees the caller's context variables.

    A caller that is cancelled goes on at once; the function runs to its end, unheard.
    """
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(_pool, lambda: context.run(function, *args))


def start_thread(function: Callable[[], _Result], name: str) -> Future[_Result]:
    """Call `function` in a thread of its own, for what may wait so long that it would starve the pool.

    The thread sees the caller's context variables, and does not keep the process alive. Nobody who waits for the
    result can cancel it for the others.
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
    # A forked child has none of its parent's threads, which the pool believes to be idle.
    global _pool
    _pool = _new_pool()


os.register_at_fork(after_in_child=_forget)
