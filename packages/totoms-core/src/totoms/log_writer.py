"""A logging handler that writes in batches, from a thread of its own.

A write and a flush per line cost more than the rest of a request, and block the event loop when the reader of
standard output is slow. So lines are gathered and written a few milliseconds later. What matters is not left in the
batch: a WARNING or worse is written before the call returns, and so is everything at exit.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import weakref
from typing import Any, Final

INTERVAL: Final = 0.005
"""Seconds that a line may wait."""
BATCH_LINES: Final = 500
"""A batch of this many lines is written at once."""
MAX_LINES: Final = 50_000
"""More than this, while nobody reads the output, is dropped and counted, so that memory stays bounded."""
PATIENCE: Final = 0.2
"""Seconds that a WARNING waits for a write that is under way."""


class BatchHandler(logging.Handler):
    """Writes records to a stream in batches.

    Args:
        stream: A text stream; by default what ``sys.stdout`` is when a batch is written.
    """

    def __init__(self, stream: Any = None) -> None:
        super().__init__()
        self._stream = stream
        self._closed = False
        self._reset()
        _handlers.add(self)

    def _reset(self) -> None:
        # Also runs in a forked child: the batch is the parent's to write, its locks may be held, its thread is gone.
        self._lines: list[str] = []
        self._dropped = 0
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._begun = threading.Event()
        self._full = threading.Event()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record to the batch."""
        try:
            self.add(self.format(record), record.levelno)
        except Exception:  # as the standard library's handlers do: tell stderr, and never fail who logs
            self.handleError(record)

    def add(self, line: str, level: int) -> None:
        """Add a formatted line to the batch; at WARNING and above write the batch."""
        lines = self._lines
        waiting = len(lines)
        if waiting >= MAX_LINES and level < logging.WARNING:
            self._dropped += 1
            return
        lines.append(line)
        if level >= logging.WARNING or self._closed:
            self._write(PATIENCE)
        elif not waiting:
            if self._thread is None and not self._start():
                self._write(PATIENCE)
                return
            self._begun.set()
        elif waiting == BATCH_LINES:
            self._full.set()

    def flush(self) -> None:
        """Write out the batch."""
        self._write(-1)

    def close(self) -> None:
        """Write out the batch; later records are written one by one."""
        self._closed = True
        self._write(PATIENCE)
        self._begun.set()
        super().close()

    def _start(self) -> bool:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="totoms-log", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is shutting down, or the system is out of threads
                    return False
                self._thread = thread
        return True

    def _run(self) -> None:
        begun, full = self._begun, self._full
        while not self._closed:
            begun.wait()
            full.wait(INTERVAL)
            begun.clear()
            full.clear()
            self._write(-1)

    def _write(self, patience: float) -> None:
        if not self._writing.acquire(timeout=patience):
            return  # the thread is stuck on a slow reader; it writes what was added as soon as it can
        try:
            lines = self._lines
            count = len(lines)
            dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(f"{dropped} log lines dropped: nobody read standard output")
                count += 1
            if not count:
                return
            text = "\n".join(lines[:count])
            del lines[:count]  # both in one step under the GIL's eyes: what was added meanwhile stays
            self._put(text + "\n")
        finally:
            self._writing.release()

    def _put(self, text: str) -> None:
        stream = self._stream or sys.stdout
        # A closed pipe or stream must not take the service with it; there is nowhere left to tell.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            try:
                stream.write(text)
            except UnicodeEncodeError:
                stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
            stream.flush()


_handlers: Final[weakref.WeakSet[BatchHandler]] = weakref.WeakSet()


def _flush_all() -> None:
    for handler in list(_handlers):
        handler.close()


def _after_fork() -> None:
    for handler in list(_handlers):
        handler._reset()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
