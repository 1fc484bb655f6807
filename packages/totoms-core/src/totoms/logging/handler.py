"""A logging handler that writes in batches and never blocks the event loop.

A write and a flush for each line cost more than the rest of a request, so lines are batched for a few milliseconds. A
timer of the event loop writes them, in pieces that a pipe accepts without blocking. A thread writes them if there is
no loop, the loop has ended, or the reader of the pipe is slow. A line of WARNING or worse is written at once with the
batch before it, and so is everything at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import select
import stat
import sys
import threading
import time
import weakref
from typing import Any, Final

from totoms.forks import in_forked_child

INTERVAL: Final = 0.005
"""Seconds that a line may stay in the batch."""
BATCH_LINES: Final = 500
"""A batch of this many lines is written at once."""
MAX_LINES: Final = 50_000
"""The most lines in memory; more are dropped and counted."""
PIECE: Final = getattr(select, "PIPE_BUF", 512)
"""Characters to write at a time; a pipe that is ready accepts as many bytes without blocking."""
WATCH: Final = 0.25
"""Seconds after which the thread checks for lines that no loop has written."""
IDLE: Final = 20
"""Checks without a line after which the thread ends; the next line starts another."""
PATIENCE: Final = 1.0
"""Seconds that a flush waits for a write in progress."""


class BatchHandler(logging.Handler):
    """Writes records to a stream in batches.

    Args:
        stream: A text stream; by default what ``sys.stdout`` is when a batch is written.
    """

    def __init__(self, stream: Any = None) -> None:
        super().__init__()
        self._stream = stream
        self._finished = False
        self._reset()
        _handlers.add(self)

    def _reset(self) -> None:
        # Also called in a forked child: the parent writes its batch, its locks may be held, its thread does not exist.
        self._lines: list[str] = []
        self._dropped = 0
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record to the batch."""
        try:
            self.add(self.format(record), record.levelno)
        except Exception:  # report to stderr, as the standard library's handlers do
            self.handleError(record)

    def add(self, line: str, level: int) -> None:
        """Add a formatted line to the batch; write the batch at WARNING and above."""
        lines = self._lines
        waiting = len(lines)
        if waiting >= MAX_LINES:
            self._dropped += 1
            return
        lines.append(line)
        if level >= logging.WARNING or waiting == BATCH_LINES or self._finished:
            self._write()
        elif not waiting:
            self._schedule()

    def flush(self) -> None:
        """Write the batch, waiting for a slow reader."""
        self._write(PATIENCE)

    def close(self) -> None:
        """Write the batch. The handler still works afterwards: `logging.config` closes handlers that stay in use."""
        self._write(PATIENCE)
        super().close()

    def finish(self) -> None:
        """Write the batch, and from now on every line at once, because the process ends."""
        self._finished = True
        self._write(PATIENCE)
        self._wake.set()

    def _schedule(self) -> None:
        if self._thread is None and not self._start():
            self._write(PATIENCE)
            return
        try:
            asyncio.get_running_loop().call_later(INTERVAL, self._write)
        except RuntimeError:  # no loop runs in this thread, or it is closing
            self._wake.set()

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
        wake = self._wake
        idle = 0
        while not self._finished and wake is self._wake:
            if wake.wait(WATCH):
                wake.clear()
                time.sleep(INTERVAL)
            idle = 0 if self._lines else idle + 1
            if idle > IDLE:
                self._thread = None
                idle = 0 if self._lines else idle  # a line may have been added before `_thread` was None
                if not idle:
                    self._thread = threading.current_thread()
                else:
                    return
            self._write(PATIENCE)

    def _write(self, patience: float = 0.0) -> None:
        """Write the batch; without patience, what the stream accepts at once, and let the thread write the rest."""
        if not (self._writing.acquire(timeout=patience) if patience else self._writing.acquire(blocking=False)):
            self._wake.set()  # the thread that is writing may miss the newest line
            return
        try:
            stream = self._stream or sys.stdout
            pipe = None if patience else _pipe(stream)
            while self._lines or self._dropped:
                if pipe is not None and not _takes_more(pipe, self._lines):
                    self._wake.set()
                    return
                self._put(stream, self._piece(PIECE if pipe is not None else sys.maxsize))
        finally:
            self._writing.release()

    def _piece(self, most: int) -> str:
        # Lists allow this while other threads append.
        lines = self._lines
        if self._dropped and not lines:
            dropped, self._dropped = self._dropped, 0
            return f"{dropped} log lines were dropped: the reader of the output is too slow\n"
        count = len(lines)
        if most < sys.maxsize:
            count = min(count, BATCH_LINES)
            size = 0
            for place, line in enumerate(lines[:count]):
                size += len(line) + 1
                if place and size > most:
                    count = place
                    break
        text = "\n".join(lines[:count])
        del lines[:count]
        return text + "\n"

    def _put(self, stream: Any, text: str) -> None:
        # A closed pipe or stream must not stop the service.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            try:
                stream.write(text)
            except UnicodeEncodeError:
                stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
            stream.flush()


def _pipe(stream: Any) -> int | None:
    """Return the descriptor of a stream that is a pipe or a socket, else None."""
    try:
        descriptor: int = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):  # not a file, or closed
        return None
    return descriptor if hasattr(select, "poll") and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) else None


def _takes_more(pipe: int, lines: list[str]) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return bool(poll.poll(0)) and (not lines or len(lines[0]) < PIECE)


_handlers: Final[weakref.WeakSet[BatchHandler]] = weakref.WeakSet()


def _flush_all() -> None:
    for handler in list(_handlers):
        handler.finish()


def _after_fork() -> None:
    for handler in list(_handlers):
        handler._reset()


atexit.register(_flush_all)
in_forked_child(_after_fork)
