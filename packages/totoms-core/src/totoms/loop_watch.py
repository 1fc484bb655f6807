"""Log when and where the event loop stands still.

While a handler or a delegate blocks the loop (a breakpoint, a long computation, a blocking call), no request is
answered and no lease is renewed: messages that are being handled are delivered again, and their attempts count. These
log lines are the only sign of why.
"""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

from totoms.logging.logger import TotoLogger

_MAX_SECONDS: Final = 2.0
_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_CORE: Final = str(Path(__file__).parent)


class LoopWatch:
    """Watches the running loop: a timer on the loop sets a time stamp, and a thread checks it.

    Args:
        logger: The service's logger.
        lease_seconds: How long leases last, for the log line; 0 if there are none.
        seconds: The shortest block to log; by default 2 s, or a third of a lease if that is less.
        handler_of: Returns the name of the message handler that a task runs; "" if it runs none.
    """

    def __init__(
        self,
        logger: TotoLogger,
        lease_seconds: float = 0.0,
        seconds: float | None = None,
        handler_of: Callable[[asyncio.Task[Any]], str] = lambda _task: "",
    ) -> None:
        self._logger = logger
        self._handler_of = handler_of
        self._where = ""
        self._lease = lease_seconds
        self._seconds = seconds or min(_MAX_SECONDS, lease_seconds / 3 if lease_seconds else _MAX_SECONDS)
        self._interval = min(1.0, self._seconds / 4)
        self._beat = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start to watch the running loop."""
        self._loop_thread = threading.get_ident()
        self._beat = time.monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._interval, self._tick, loop)
        threading.Thread(target=self._watch, args=(loop,), name="totoms watch", daemon=True).start()

    def stop(self) -> None:
        """Stop. Call it on the loop; it does not wait for the thread."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        late, self._beat = now - self._beat - self._interval, now
        self._timer = loop.call_later(self._interval, self._tick, loop)
        if late > self._seconds:
            leases = ""
            if self._lease:
                leases = f" Leases of {self._lease:g} s were not renewed: messages may be delivered again."
            where, self._where = self._where, ""
            self._logger.log("events", f"The event loop stood still for {late:.1f} s{where}.{leases}", "WARNING")

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        logged = -1.0
        while not self._stopped.wait(self._interval):
            if loop.is_closed():  # without stop()
                return
            beat = self._beat
            blocked = time.monotonic() - beat - self._interval
            if blocked > self._seconds and logged != beat:
                logged = beat
                task = asyncio.current_task(loop)
                handler = self._handler_of(task) if task is not None else ""
                place = _location(sys._current_frames().get(self._loop_thread))
                self._where = f" in handler {handler}, at {place}" if handler else f", at {place}"
                text = f"The event loop has stood still for {blocked:.1f} s{self._where}."
                self._logger.log("events", text, "WARNING")


def _location(frame: FrameType | None) -> str:
    # The innermost frame of the service, not of a library it calls, because that is the code to change.
    innermost = frame
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((*_LIBRARIES, _CORE, "<")):
            return _describe(frame)
        frame = frame.f_back
    return _describe(innermost) if innermost is not None else "an unknown place"


def _describe(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
