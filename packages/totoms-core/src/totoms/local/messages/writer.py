"""The one thread of a process that uses the database: it commits the queued operations together.

A commit costs one flush of the disk for one message or a thousand (group commit); operations queue up during a commit
and share the next. Each statement releases and takes Python's global interpreter lock, so a transaction is a few
statements with many rows.

If a consumer in this process waits for a message, it is inserted as leased and handed over after the commit without
being read: one insert and, with its ack, one delete.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from totoms.errors import BackendError, Closed
from totoms.local.messages import rows
from totoms.local.messages.database import Database
from totoms.local.messages.errors import translate
from totoms.local.messages.feed import Feed
from totoms.local.messages.operations import Handover, Operation, wake
from totoms.local.messages.transactions import Transactions
from totoms.logging.logger import TotoLogger
from totoms.messages.receiver import Received
from totoms.telemetry import state as telemetry

_MOST_OPERATIONS: Final = 4000
_ACK_WAIT: Final = 0.001
"""How long acks wait, while the process publishes, to share the commit of the next publication."""
_IDLE_CHECK_SECONDS: Final = 5.0
"""How often a process that only publishes checks whether a checkpoint is due."""
_POLL_SECONDS: Final = (0.005, 0.1)
"""The shortest and the longest pause between checks for other processes' commits; it grows while there are none."""


class Writer:
    """Owns a database and its thread. All buses of one root folder in this process share it.

    Args:
        database: The database; the thread opens it for the first operation.
    """

    def __init__(self, database: Database) -> None:
        self.clock: Callable[[], float] = time.time
        self.users = 0
        self._process = os.getpid()
        self._database = database
        self._operations: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._feeds: list[Feed] = []
        self._closing = False
        self._ended = False
        self._publishing = False
        self._tidying = False
        self._logger = TotoLogger.get_instance()
        self._transactions = Transactions(database, lambda: self._feeds, lambda: self.clock(), self._logger)
        self._thread = threading.Thread(target=self._run, name="totoms bus", daemon=True)
        self._thread.start()

    # --- for the buses ---

    async def do(self, operation: Operation) -> Any:
        """Run an operation in the next transaction and return its result after the commit.

        Raises:
            BackendError: The operation, or the whole transaction, failed; it changed nothing.
        """
        loop = asyncio.get_running_loop()
        operation.loop, operation.future = loop, loop.create_future()
        self.put(operation)
        return await operation.future

    def put(self, operation: Operation) -> None:
        """Queue an operation for the next transaction, without waiting."""
        if self._closing:
            raise Closed("The message bus is closed.")
        self._operations.put(operation)
        if self._ended:  # the thread ended between the two lines, so this thread must fail the operation
            self._fail_queued()

    def nudge(self) -> None:
        """Have the thread check the feeds and the clock."""
        self._operations.put(None)

    def add(self, feed: Feed) -> None:
        """Start leasing messages for a feed."""
        self._feeds = [*self._feeds, feed]
        self.nudge()

    def remove(self, feed: Feed) -> None:
        """Stop leasing messages for a feed, and release those it has not received."""
        feed.stop()
        self._feeds = [other for other in self._feeds if other is not feed]
        self.release(feed, feed.abandon())

    def release(self, feed: Feed, batch: Sequence[Received]) -> None:
        """Release messages that no handler has, without waiting."""
        if batch:
            run = partial(rows.release, feed=feed, batch=batch)
            self._operations.put(Operation(run, feed=feed, settled=batch))

    def stop(self) -> None:
        """Refuse new operations. The thread runs the queued ones and closes the database; this does not wait."""
        if not self._closing:
            self._closing = True
            self._operations.put(None)

    def close(self) -> None:
        """Stop and wait until the database is closed. Blocks: call it in a thread."""
        self.stop()
        self._thread.join()

    def is_running(self) -> bool:
        """Return whether this accepts operations."""
        return not self._closing and not self.forked()

    def forked(self) -> bool:
        """Return whether this is a forked child of the process that owns the thread and the connection."""
        return self._process != os.getpid()

    def close_in_child(self) -> None:
        """Close the parent's files in a forked child."""
        self._database.close_in_child()

    # --- the thread ---

    def _run(self) -> None:
        pause = _POLL_SECONDS[0]
        while True:
            operations = self._gather(self._timeout(pause))
            if self._closing and not operations:
                break
            pause = _POLL_SECONDS[0] if operations else min(pause * 1.5, _POLL_SECONDS[1])
            if operations or self._transactions.feeds_to_fill():
                self._transact(operations)
                self._tidying = False
            elif self._transactions.opened:
                self._tidying = self._database.upkeep.when_idle()
        with contextlib.suppress(BackendError):
            self._database.close()
        self._ended = True
        self._fail_queued()

    def _fail_queued(self) -> None:
        failed: list[Operation] = []
        with contextlib.suppress(queue.Empty):
            while True:
                operation = self._operations.get_nowait()
                if operation is not None:
                    operation.error = Closed("The message bus is closed.")
                    failed.append(operation)
        self._notify(failed, [])

    def _gather(self, timeout: float | None) -> list[Operation]:
        gathered: list[Operation] = []
        with contextlib.suppress(queue.Empty):
            self._take(gathered, timeout)
            if self._publishing and gathered and all(operation.acked for operation in gathered):
                self._publishing = False
                self._take(gathered, _ACK_WAIT)
        self._publishing = self._publishing or any(operation.published for operation in gathered)
        return gathered

    def _take(self, gathered: list[Operation], timeout: float | None) -> None:
        operation = self._operations.get(timeout=timeout)
        with contextlib.suppress(queue.Empty):
            while True:
                if operation is not None:
                    gathered.append(operation)
                if len(gathered) >= _MOST_OPERATIONS:
                    return
                operation = self._operations.get_nowait()

    def _timeout(self, pause: float) -> float | None:
        if self._closing or self._tidying:  # `stop` wakes the thread only once
            return 0.0
        if not self._feeds:
            return _IDLE_CHECK_SECONDS if self._transactions.opened else None
        now = self.clock()
        waits = [max(0.0, feed.next_due - now) for feed in self._feeds if feed.wanted > 0]
        return min([pause, *waits])

    def _transact(self, operations: list[Operation]) -> None:
        handovers: list[Handover] = []
        try:
            self._transactions.run(operations, handovers)
        except (BackendError, sqlite3.Error, OSError) as error:
            self._transactions.undo(operations, handovers, translate(error, self._database.path))
        except BaseException as error:
            # A bug must not end the thread: the callers would wait forever.
            self._logger.log("bus", "The transaction failed", "ERROR", error)
            self._transactions.undo(operations, handovers, BackendError("The message bus failed."))
        else:
            self._database.upkeep.after_commit(
                sum(len(one.body) for operation in operations for one in operation.published)
            )
            if telemetry.active is not None:
                telemetry.active.instruments.service.committed(len(operations), self._database.upkeep.log_bytes())
        self._notify(operations, handovers)

    def refresh(self) -> None:
        """Read the subscriptions again before the next insert. Operations call it, on the thread."""
        self._transactions.refresh()

    # --- the callers ---

    def _notify(self, operations: list[Operation], handovers: list[Handover]) -> None:
        wakes: dict[asyncio.AbstractEventLoop, tuple[list[Operation], list[Feed]]] = {}
        for operation in operations:
            if operation.loop is not None:
                wakes.setdefault(operation.loop, ([], []))[0].append(operation)
        for handover in handovers:
            if not handover.feed.hand_over(handover.batch, handover.reserved):
                self.release(handover.feed, handover.batch)
            elif handover.batch:
                wakes.setdefault(handover.feed.loop, ([], []))[1].append(handover.feed)
        for loop, (done, feeds) in wakes.items():
            try:
                loop.call_soon_threadsafe(wake, done, feeds)
            except RuntimeError:  # the loop is closed, so its consumers are gone
                for feed in feeds:
                    self._feeds = [other for other in self._feeds if other is not feed]
                    self.release(feed, feed.abandon())
