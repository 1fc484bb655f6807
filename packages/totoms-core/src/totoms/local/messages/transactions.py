"""The transactions of the local bus. Each one deletes acked messages, runs operations, inserts and leases."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final

from totoms.errors import BackendError, LeaseLost
from totoms.local.messages import rows
from totoms.local.messages.database import Database
from totoms.local.messages.errors import translate
from totoms.local.messages.feed import Feed
from totoms.local.messages.operations import Handover, Operation
from totoms.logging.logger import TotoLogger
from totoms.messages.outgoing import Outgoing

BLIP_SECONDS: Final = 1.0
"""For so long, leasing is only tried again; after that, consumers get the error."""


class Transactions:
    """Runs one transaction after another on the writer's thread, with a cache of the subscriptions.

    Args:
        database: The database; the first transaction opens it.
        feeds: Returns the current feeds.
        clock: Returns the time.
        logger: Logs what no caller gets as an error.

    Attributes:
        opened: Whether the database is open.
    """

    def __init__(
        self,
        database: Database,
        feeds: Callable[[], list[Feed]],
        clock: Callable[[], float],
        logger: TotoLogger,
    ) -> None:
        self.opened = False
        self._database = database
        self._feeds = feeds
        self._clock = clock
        self._logger = logger
        self._topics: dict[str, list[int]] = {}
        self._queues: dict[str, int] = {}
        self._next_row = 0
        self._loaded = False
        self._warned: set[str] = set()
        self._began: float | None = None  # the first try of what has not succeeded yet

    def run(self, operations: list[Operation], handovers: list[Handover]) -> None:
        """Run the operations in one transaction and commit it.

        Args:
            operations: The operations.
            handovers: Gets the messages leased for feeds.

        Raises:
            Exception: Nothing was committed. Call `undo`.
        """
        self._begin()
        # A power cut may undo what was done to a leased message: it is still there and is delivered again. Anything
        # else, such as publishing, is on the disk before its caller continues.
        self._prepare(durable=any(operation.feed is None for operation in operations))
        self._delete(operations)
        # Settle before leasing: a row number may be reused, and an old handle must not refer to the new message. And
        # inserting must see new subscriptions.
        for operation in operations:
            if operation.run is not None:
                self._run(operation)
        if not self._loaded:
            self._read_subscriptions()
        self._insert(operations, handovers)
        self._lease(handovers)
        self._database.commit()
        for handover in handovers:
            handover.feed.leases.update((received.lease, received) for received in handover.batch)
        self._forget_settled(operations)
        self._began = None

    def feeds_to_fill(self) -> list[Feed]:
        """Return the feeds that want messages and have some due. Takes no lock."""
        if not self.opened:
            return [feed for feed in self._feeds() if feed.wanted > 0]
        self._begin()
        try:
            if self._database.changed():
                self._queues = rows.read_subscriptions(self._database.connection)[1]
                self._find_vanished()
                for feed in self._feeds():
                    feed.backlog = True
            now = self._clock()
            found = []
            for feed in self._feeds():
                if feed.wanted > 0 and (feed.backlog or feed.next_due <= now):
                    feed.next_due = rows.next_due(self._database.connection, feed)
                    feed.backlog = feed.next_due <= now
                    if feed.backlog:
                        found.append(feed)
            if not found:
                self._began = None
            return found
        except Exception as error:  # the next operation fails with it too; the thread must continue
            self._fail(self._feeds(), translate(error, self._database.path))
            return []

    def undo(self, operations: list[Operation], handovers: list[Handover], error: BackendError) -> None:
        """Roll back, and fail the operations; without any, fail the consumers once leasing has failed for a while."""
        if self.opened:
            self._database.rollback()
        self._loaded = False
        for operation in operations:
            operation.error = operation.error or error
        for handover in handovers:
            handover.batch = []
            handover.feed.backlog = True
        if not operations:
            self._fail([feed for feed in self._feeds() if feed.backlog], error)

    def _begin(self) -> None:
        if self._began is None:
            self._began = time.monotonic()

    def _fail(self, feeds: list[Feed], error: BackendError) -> None:
        if self._began is not None and time.monotonic() - self._began >= BLIP_SECONDS:
            for feed in feeds:
                feed.fail(error)

    def _prepare(self, *, durable: bool) -> None:
        if not self.opened:
            self._database.open()
            self.opened = True
        changed = self._database.begin(durable=durable)
        if changed or not self._loaded:
            self._read_subscriptions()

    def _read_subscriptions(self) -> None:
        self._topics, self._queues = rows.read_subscriptions(self._database.connection)
        self._next_row = rows.last_row(self._database.connection) + 1
        self._find_vanished()
        for feed in self._feeds():
            feed.backlog = True
        self._loaded = True

    def _find_vanished(self) -> None:
        for feed in self._feeds():
            if self._queues.get(feed.subscription.name) != feed.row:
                feed.vanish()

    # --- publishing ---

    def _insert(self, operations: list[Operation], handovers: list[Handover]) -> None:
        values: list[Any] = []
        now = self._clock()
        for operation in operations:
            for outgoing in operation.published:
                self._route(outgoing, now, values, handovers)
        rows.insert(self._database.connection, values)

    def _route(self, outgoing: Outgoing, now: float, values: list[Any], handovers: list[Handover]) -> None:
        if outgoing.topic is not None:
            targets = self._topics.get(outgoing.topic, [])
            if not targets and outgoing.topic not in self._warned:
                self._warned.add(outgoing.topic)
                self._logger.log(
                    "bus", f"The topic {outgoing.topic!r} has no subscriptions: its messages are dropped.", "WARNING"
                )
        else:
            assert outgoing.queue is not None
            if outgoing.queue not in self._queues:
                row = rows.add_subscription(self._database.connection, outgoing.queue, None, ordered=False)
                self._queues[outgoing.queue] = row
            targets = [self._queues[outgoing.queue]]
        for target in targets:
            row, self._next_row = self._next_row, self._next_row + 1
            published = due = now + outgoing.delay
            attempt, token = 0, 0
            for feed in self._feeds():
                if feed.row != target:
                    continue
                if outgoing.delay or feed.backlog or (outgoing.ordering_key is not None and feed.subscription.ordered):
                    feed.backlog = True
                elif feed.reserve(1):
                    due, attempt, token = now + feed.lease_seconds, 1, feed.token
                    handover = self._handover(feed, handovers)
                    handover.batch.append(rows.received(outgoing, row, feed))
                    handover.reserved += 1
                    self._note_due(target, due)
                    break
                else:
                    feed.backlog = True
            values.append((row, target, outgoing, due, attempt, token, published))

    @staticmethod
    def _handover(feed: Feed, handovers: list[Handover]) -> Handover:
        for handover in handovers:
            if handover.feed is feed:
                return handover
        handovers.append(Handover(feed, 0))
        return handovers[-1]

    # --- receiving ---

    def _lease(self, handovers: list[Handover]) -> None:
        now = self._clock()
        connection = self._database.connection
        for feed in self._feeds():
            if feed.wanted <= 0 or not (feed.backlog or feed.next_due <= now):
                continue
            handover = self._handover(feed, handovers)
            reserved = feed.reserve(feed.wanted)
            handover.reserved += reserved
            batch, damaged = rows.lease(connection, feed, reserved, now)
            handover.batch += batch
            self._note_due(feed.row, now + feed.lease_seconds)
            for row in damaged:
                self._logger.log("bus", f"The stored message {row} of {feed.subscription.name} is damaged.", "ERROR")
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
                # Rare: a lease was lost. Deleting is the first step of the transaction, so start it over.
                self._database.rollback()
                self._loaded = False
                self._prepare(durable=True)
                self._delete_owned(by_feed)
                return
            if feed.subscription.ordered:
                self._expect_backlog(feed.row)  # the next message of the same key may be due

    def _delete_owned(self, by_feed: dict[Feed, list[Operation]]) -> None:
        connection = self._database.connection
        for feed, acks in by_feed.items():
            self._expect_backlog(feed.row)
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
                self._expect_backlog(operation.feed.row)
        except BackendError as error:
            operation.error = error
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:  # such as text that cannot be stored: the other operations must not fail
            self._logger.log("bus", "An operation failed", "ERROR", error)
            operation.error = BackendError(f"The message bus failed: {type(error).__name__}.")
        if operation.error is not None:
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _expect_backlog(self, row: int) -> None:
        # For every consumer of the subscription here: data_version does not change by a connection's own commits.
        for feed in self._feeds():
            if feed.row == row:
                feed.backlog = True

    def _note_due(self, row: int, due: float) -> None:
        for feed in self._feeds():
            if feed.row == row:
                feed.next_due = min(feed.next_due, due)

    def refresh(self) -> None:
        """Read the subscriptions again before the next insert. Operations call it, on the writer's thread."""
        self._loaded = False
        for feed in self._feeds():
            feed.backlog = True
