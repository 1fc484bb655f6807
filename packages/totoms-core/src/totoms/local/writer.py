"""The one thread of a process that touches the database: it commits what has gathered, then wakes them all.

A commit costs one flush of the disk whether it carries one message or a thousand (group commit), so while one is
under way the next gathers by itself. A statement costs a hand-over of Python's global lock, so each transaction is a
handful of statements with many rows, not many statements.

A message that somebody in this process waits for is inserted as leased already and handed over after the commit
without being read back: one insert and, with its ack, one delete.
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
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from totoms.describe import where
from totoms.envelope import Outgoing, Received
from totoms.errors import BackendError, Closed, LeaseLost
from totoms.local import rows
from totoms.local.database import Database, translate
from totoms.local.feed import Feed
from totoms.logging import TotoLogger

_MOST_OPERATIONS: Final = 4000
_ACK_PATIENCE: Final = 0.001
"""While something is being published, how long acks alone wait for the next publication to share its commit."""
_POLL_SECONDS: Final = (0.005, 0.1)
"""How often another process's commits are looked for: soon after the last one, and when it was long quiet."""


@dataclass(slots=True, eq=False)
class Operation:
    """Something to be done in the next transaction, and who waits for it.

    Attributes:
        run: Gets the connection and returns the result; a BackendError it raises concerns itself alone.
        published: Messages to insert (then `run` is not called).
        acked: Messages to delete, all of `feed` (then `run` is not called).
        feed: Who holds the messages that it is about; None for what must be durable.
        settled: What `feed` holds no longer when the operation succeeds or its lease was lost, besides what is acked.
        loop: Where the waiter is, or None when nobody waits.
        future: The waiter.
    """

    run: Callable[[sqlite3.Connection], Any] | None = None
    published: Sequence[Outgoing] = ()
    acked: Sequence[Received] = ()
    feed: Feed | None = None
    settled: Sequence[Received] = ()
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | None = None
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Handover:
    feed: Feed
    reserved: int
    batch: list[Received] = field(default_factory=list)


class Writer:
    """Owns a database and its thread. Shared by all buses of one root folder in this process.

    Args:
        database: Not opened yet; it is, on the thread, with the first operation.
    """

    def __init__(self, database: Database) -> None:
        self.clock: Callable[[], float] = time.time
        self.users = 0
        self._process = os.getpid()
        self._database = database
        self._operations: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._feeds: list[Feed] = []
        self._topics: dict[str, list[int]] = {}
        self._queues: dict[str, int] = {}
        self._next_row = 0
        self._open = False
        self._closing = False
        self._ended = False
        self._known = False
        self._publishing = False
        self._untold: set[str] = set()
        self._logger = TotoLogger.get_instance()
        self._thread = threading.Thread(target=self._work, name="totoms bus", daemon=True)
        self._thread.start()

    # --- for the buses ---

    async def do(self, operation: Operation) -> Any:
        """Have it done in the next transaction and return its result after the commit.

        Raises:
            BackendError: The operation, or the whole transaction, failed; nothing of it was done.
        """
        loop = asyncio.get_running_loop()
        operation.loop, operation.future = loop, loop.create_future()
        self.put(operation)
        return await operation.future

    def put(self, operation: Operation) -> None:
        """Have it done in the next transaction; nobody waits unless the operation says so."""
        if self._closing:
            raise Closed("The message bus is closed.")
        self._operations.put(operation)
        if self._ended:  # the thread ended between the two: nobody else would answer
            self._refuse_all()

    def nudge(self) -> None:
        """Have the writer look at the feeds and the clock."""
        self._operations.put(None)

    def add(self, feed: Feed) -> None:
        """Serve a feed."""
        self._feeds = [*self._feeds, feed]
        self.nudge()

    def remove(self, feed: Feed) -> None:
        """Serve a feed no longer; what it was handed and did not take is released."""
        feed.stop()
        self._feeds = [other for other in self._feeds if other is not feed]
        self.release(feed, feed.abandon())

    def release(self, feed: Feed, batch: Sequence[Received]) -> None:
        """Give messages back that no handler has begun; nobody waits for it."""
        if batch:
            run = partial(rows.release, feed=feed, batch=batch)
            self._operations.put(Operation(run, feed=feed, settled=batch))

    def stop(self) -> None:
        """Take no more operations, do those that were asked for and close the database; does not wait for it."""
        if not self._closing:
            self._closing = True
            self._operations.put(None)

    def close(self) -> None:
        """Stop, and wait until the database is closed. Blocks; call it in a thread."""
        self.stop()
        self._thread.join()

    def is_running(self) -> bool:
        """Whether it takes operations."""
        return not self._closing and not self.forked()

    def forked(self) -> bool:
        """Whether this process was forked from the one that made it: then its thread and connection are not ours."""
        return self._process != os.getpid()

    def disown(self) -> None:
        """In a forked child: hold nothing of the parent's."""
        self._database.disown()

    # --- the thread ---

    def _work(self) -> None:
        pause = _POLL_SECONDS[0]
        while True:
            operations = self._gather(self._timeout(pause))
            if self._closing and not operations:
                break
            pause = _POLL_SECONDS[0] if operations else min(pause * 1.5, _POLL_SECONDS[1])
            if operations or self._feeds_to_fill():
                self._transact(operations)
        with contextlib.suppress(BackendError):
            self._database.close()
        self._ended = True
        self._refuse_all()

    def _refuse_all(self) -> None:
        refused: list[Operation] = []
        with contextlib.suppress(queue.Empty):
            while True:
                operation = self._operations.get_nowait()
                if operation is not None:
                    operation.error = Closed("The message bus is closed.")
                    refused.append(operation)
        self._tell(refused, [])

    def _gather(self, timeout: float | None) -> list[Operation]:
        gathered: list[Operation] = []
        with contextlib.suppress(queue.Empty):
            self._take(gathered, timeout)
            if self._publishing and gathered and all(operation.acked for operation in gathered):
                self._publishing = False
                self._take(gathered, _ACK_PATIENCE)
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
        if self._closing:  # what woke us to see it may have been taken already, together with an operation
            return 0.0
        if not self._feeds:
            return None
        now = self.clock()
        waits = [max(0.0, feed.next_due - now) for feed in self._feeds if feed.wanted > 0]
        return min([pause, *waits])

    def _feeds_to_fill(self) -> list[Feed]:
        """The feeds that want more and for which there is something, by a look that takes no lock."""
        if not self._open:
            return [feed for feed in self._feeds if feed.wanted > 0]
        try:
            if self._database.changed():
                for feed in self._feeds:
                    feed.backlog = True
            now = self.clock()
            found = []
            for feed in self._feeds:
                if feed.wanted > 0 and (feed.backlog or feed.next_due <= now):
                    feed.next_due = rows.next_due(self._database.connection, feed)
                    feed.backlog = feed.next_due <= now
                    if feed.backlog:
                        found.append(feed)
            return found
        except Exception:  # told by the operation that meets it as well; the thread must go on
            return []

    def _transact(self, operations: list[Operation]) -> None:
        handovers: list[_Handover] = []
        try:
            # What happens to a message that is held may be lost in a power cut: it is still there, and comes again.
            # All else, publishing above all, is on the disk before anybody is told.
            self._prepare(durable=any(operation.feed is None for operation in operations))
            self._delete(operations)
            # Settled before anything is leased anew: a row may be used again, and an old handle must not mean the new
            # message; and what is renewed, given back or subscribed by now counts for what follows.
            for operation in operations:
                if operation.run is not None:
                    self._run(operation)
            if not self._known:
                self._read_subscriptions()
            self._insert(operations, handovers)
            self._fill(handovers)
            self._database.commit()
        except (BackendError, sqlite3.Error, OSError) as error:
            self._undo(operations, handovers, translate(error, self._database.path))
        except BaseException as error:
            # A defect of ours must not end the thread: all who wait would wait for ever.
            self._logger.log("bus", f"The transaction failed: {where(error)}", "ERROR")
            self._undo(operations, handovers, BackendError("The message bus failed."))
        else:
            for handover in handovers:
                handover.feed.leases.update((received.lease, received) for received in handover.batch)
            self._forget_settled(operations)
            self._database.merge_sometimes(
                sum(len(one.body) for operation in operations for one in operation.published)
            )
        self._tell(operations, handovers)

    def _undo(self, operations: list[Operation], handovers: list[_Handover], error: BackendError) -> None:
        if self._open:
            self._database.rollback()
        self._known = False
        for operation in operations:
            operation.error = operation.error or error
        for handover in handovers:
            handover.batch = []
            handover.feed.backlog = True

    def _prepare(self, *, durable: bool) -> None:
        if not self._open:
            self._database.open()
            self._open = True
        changed = self._database.begin(durable=durable)
        if changed or not self._known:
            self._read_subscriptions()

    def _read_subscriptions(self) -> None:
        self._topics, self._queues = rows.read_subscriptions(self._database.connection)
        self._next_row = rows.last_row(self._database.connection) + 1
        for feed in self._feeds:
            feed.backlog = True
        self._known = True

    # --- publishing ---

    def _insert(self, operations: list[Operation], handovers: list[_Handover]) -> None:
        values: list[Any] = []
        now = self.clock()
        for operation in operations:
            for outgoing in operation.published:
                self._place(outgoing, now, values, handovers)
        rows.insert(self._database.connection, values)

    def _place(self, outgoing: Outgoing, now: float, values: list[Any], handovers: list[_Handover]) -> None:
        if outgoing.topic is not None:
            targets = self._topics.get(outgoing.topic, [])
            if not targets and outgoing.topic not in self._untold:
                self._untold.add(outgoing.topic)
                self._logger.log(
                    "bus", f"Nobody is subscribed to {outgoing.topic!r}: what is published is not kept.", "WARNING"
                )
        else:
            assert outgoing.queue is not None
            if outgoing.queue not in self._queues:
                row = rows.add_subscription(self._database.connection, outgoing.queue, None, ordered=False)
                self._queues[outgoing.queue] = row
            targets = [self._queues[outgoing.queue]]
        for target in targets:
            row, self._next_row = self._next_row, self._next_row + 1
            due, attempt, token = now + outgoing.delay, 0, 0
            for feed in self._feeds:
                if feed.row != target:
                    continue
                if outgoing.delay or feed.backlog or (outgoing.ordering_key is not None and feed.subscription.ordered):
                    feed.backlog = True
                elif feed.reserve(1):
                    due, attempt, token = now + feed.lease_seconds, 1, feed.token
                    handover = self._handover(feed, handovers)
                    handover.batch.append(rows.received(outgoing, row, feed))
                    handover.reserved += 1
                    self._expect(target, due)
                    break
                else:
                    feed.backlog = True
            values.append((row, target, outgoing, due, attempt, token))

    @staticmethod
    def _handover(feed: Feed, handovers: list[_Handover]) -> _Handover:
        for handover in handovers:
            if handover.feed is feed:
                return handover
        handovers.append(_Handover(feed, 0))
        return handovers[-1]

    # --- receiving ---

    def _fill(self, handovers: list[_Handover]) -> None:
        now = self.clock()
        connection = self._database.connection
        for feed in self._feeds:
            if feed.wanted <= 0 or not (feed.backlog or feed.next_due <= now):
                continue
            handover = self._handover(feed, handovers)
            reserved = feed.reserve(feed.wanted)
            handover.reserved += reserved
            batch, damaged = rows.lease(connection, feed, reserved, now)
            handover.batch += batch
            self._expect(feed.row, now + feed.lease_seconds)
            for row in damaged:
                self._logger.log("bus", f"A stored message of {feed.subscription.name} is damaged: row {row}.", "ERROR")
            feed.backlog = len(batch) + len(damaged) == reserved
            if not feed.backlog:
                feed.next_due = rows.next_due(connection, feed)

    # --- settling ---

    def _delete(self, operations: list[Operation]) -> None:
        by_feed: dict[Feed, list[Operation]] = {}
        for operation in operations:
            if operation.acked and operation.feed is not None:
                by_feed.setdefault(operation.feed, []).append(operation)
                operation.result = [None] * len(operation.acked)
        connection = self._database.connection
        for feed, acks in by_feed.items():
            held = [one for ack in acks for one in ack.acked if feed.leases.get(one.lease) is one]
            if not rows.delete(connection, feed, held) or len(held) < sum(len(ack.acked) for ack in acks):
                # Rare: a lease was lost. This is the first of the transaction, so it can be begun again.
                self._database.rollback()
                self._known = False
                self._prepare(durable=True)
                self._delete_owned(by_feed)
                return
            if feed.subscription.ordered:
                self._look_again(feed.row)  # the next of the same key may follow

    def _delete_owned(self, by_feed: dict[Feed, list[Operation]]) -> None:
        connection = self._database.connection
        for feed, acks in by_feed.items():
            self._look_again(feed.row)
            owned = rows.owned(connection, feed, [one for ack in acks for one in ack.acked])
            rows.delete(connection, feed, list(owned))
            for ack in acks:
                ack.result = [None if one in owned else rows.lease_lost(one) for one in ack.acked]

    @staticmethod
    def _forget_settled(operations: list[Operation]) -> None:
        for operation in operations:
            if operation.feed is not None and (operation.error is None or isinstance(operation.error, LeaseLost)):
                leases = operation.feed.leases
                for received in (*operation.acked, *operation.settled):
                    if leases.get(received.lease) is received:
                        del leases[received.lease]

    def _run(self, operation: Operation) -> None:
        connection = self._database.connection
        connection.execute("SAVEPOINT one")
        try:
            assert operation.run is not None
            operation.result = operation.run(connection)
            if operation.feed is not None:
                self._look_again(operation.feed.row)
        except BackendError as error:
            operation.error = error
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:  # such as text that cannot be stored: the others have nothing to do with it
            self._logger.log("bus", f"An operation failed: {where(error)}", "ERROR")
            operation.error = BackendError(f"The message bus cannot do this: {type(error).__name__}.")
        if operation.error is not None:
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _look_again(self, row: int) -> None:
        # Every consumer of the subscription in this process: of its own commits SQLite tells a connection nothing.
        for feed in self._feeds:
            if feed.row == row:
                feed.backlog = True

    def _expect(self, row: int, due: float) -> None:
        for feed in self._feeds:
            if feed.row == row:
                feed.next_due = min(feed.next_due, due)

    def refresh(self) -> None:
        """Read the subscriptions again before anything is published. For operations on the thread."""
        self._known = False
        for feed in self._feeds:
            feed.backlog = True

    # --- telling ---

    def _tell(self, operations: list[Operation], handovers: list[_Handover]) -> None:
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
                loop.call_soon_threadsafe(_wake, done, feeds)
            except RuntimeError:  # that loop has ended; nobody waits any more, and nobody takes what was handed over
                for feed in feeds:
                    self._feeds = [other for other in self._feeds if other is not feed]
                    self.release(feed, feed.abandon())


def _wake(done: list[Operation], feeds: list[Feed]) -> None:
    for feed in feeds:
        feed.wake()
    for operation in done:
        future = operation.future
        if future is not None and not future.done():
            if operation.error is not None:
                future.set_exception(operation.error)
            else:
                future.set_result(operation.result)
