"""The dead letters of the local bus. The functions run on the writer's thread only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from totoms.errors import CorruptData, NotFound
from totoms.local.messages.operations import Operation
from totoms.local.messages.rows import checksum_of, find_subscription, is_whole, last_row, storable
from totoms.local.messages.writer import Writer
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason, DeadLetterStore
from totoms.messages.receiver import Received


class LocalDeadLetters(DeadLetterStore):
    """The dead letters of one subscription.

    Args:
        subscription: Its name.
        writer: Returns the writer of the bus.
    """

    def __init__(self, subscription: str, writer: Callable[[], Writer]) -> None:
        self._subscription = subscription
        self._writer = writer

    async def count(self) -> int:
        """Return how many there are; see `count`."""
        return int(await self._do(lambda connection: count(connection, self._subscription)))

    async def list(self, limit: int) -> list[DeadLetter]:
        """Return the oldest; see `read`."""
        found: list[DeadLetter] = await self._do(lambda connection: read(connection, self._subscription, limit))
        return found

    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        """Deliver dead letters again; see `replay`."""
        writer = self._writer()

        def run(connection: sqlite3.Connection) -> int:
            writer.refresh()
            return replay(connection, self._subscription, letter_ids, writer.clock())

        return int(await self._do(run))

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        """Delete dead letters; see `purge`."""
        return int(await self._do(lambda connection: purge(connection, self._subscription, letter_ids)))

    async def keep(self, received: Received, reason: DeadLetterReason) -> str | None:
        """Store a pushed message; see `keep`."""
        clock = self._writer().clock
        return str(await self._do(lambda connection: keep(connection, received, reason, clock())))

    async def _do(self, run: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self._writer().do(Operation(run))


def keep(connection: sqlite3.Connection, one: Received, reason: DeadLetterReason, now: float) -> int | None:
    """Store a pushed message, which has no row to move; return the row of the dead letter."""
    attributes = orjson.dumps(dict(one.attributes))
    stored = connection.execute(
        "INSERT INTO dead_letters (subscription, message_id, body, attributes, ordering_key, checksum, reason, "
        "error_class, description, attempts, dead_since) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (
            one.subscription.name,
            one.message_id,
            one.body,
            attributes,
            one.ordering_key,
            checksum_of(one.message_id, one.body, attributes, one.ordering_key),
            reason.reason,
            storable(reason.error_class),
            storable(reason.description),
            reason.attempts,
            now,
        ),
    )
    return stored.lastrowid


def read(connection: sqlite3.Connection, subscription: str, limit: int) -> list[DeadLetter]:
    """Return the oldest dead letters of a subscription.

    Raises:
        NotFound: There is neither such a subscription nor a dead letter of one.
    """
    found = connection.execute(
        "SELECT id, message_id, body, attributes, ordering_key, checksum, reason, error_class, description, attempts, "
        "dead_since FROM dead_letters WHERE subscription = ? ORDER BY id LIMIT ?",
        (subscription, limit),
    ).fetchall()
    if not found and find_subscription(connection, subscription) is None:
        raise _unknown(subscription)
    return [_letter(subscription, row) for row in found]


def count(connection: sqlite3.Connection, subscription: str) -> int:
    """Return how many dead letters a subscription has.

    Raises:
        NotFound: There is neither such a subscription nor a dead letter of one.
    """
    sql = "SELECT count(*) FROM dead_letters WHERE subscription = ?"
    found: int = connection.execute(sql, (subscription,)).fetchone()[0]
    if not found and find_subscription(connection, subscription) is None:
        raise _unknown(subscription)
    return found


def replay(connection: sqlite3.Connection, subscription: str, letter_ids: Sequence[str] | None, now: float) -> int:
    """Deliver dead letters again, counting attempts from 1; return how many.

    Raises:
        NotFound: The subscription does not exist (any more).
    """
    found = find_subscription(connection, subscription)
    if found is None:
        raise _unknown(subscription)
    row = last_row(connection)
    replayed = 0
    for letter in _selected(connection, subscription, letter_ids):
        row += 1
        connection.execute(
            "INSERT INTO deliveries SELECT ?, ?, message_id, body, attributes, ordering_key, checksum, ?, 0, 0, 0, ? "
            "FROM dead_letters WHERE id = ?",
            (row, found[0], now, now, letter),
        )
        connection.execute("DELETE FROM dead_letters WHERE id = ?", (letter,))
        replayed += 1
    return replayed


def purge(connection: sqlite3.Connection, subscription: str, letter_ids: Sequence[str] | None) -> int:
    """Delete dead letters; return how many.

    Raises:
        NotFound: There is neither such a subscription nor a dead letter of one.
    """
    selected = _selected(connection, subscription, letter_ids)
    if not selected and find_subscription(connection, subscription) is None:
        raise _unknown(subscription)
    connection.executemany("DELETE FROM dead_letters WHERE id = ?", [(letter,) for letter in selected])
    return len(selected)


def _selected(connection: sqlite3.Connection, subscription: str, letter_ids: Sequence[str] | None) -> list[int]:
    sql = "SELECT id FROM dead_letters WHERE subscription = ? ORDER BY id"
    found = [letter for (letter,) in connection.execute(sql, (subscription,)).fetchall()]
    if letter_ids is None:
        return found
    wanted = set(letter_ids)
    return [letter for letter in found if str(letter) in wanted]


def _unknown(subscription: str) -> NotFound:
    return NotFound(f"There is no subscription {subscription!r}.", resource=subscription)


def _letter(subscription: str, row: tuple[Any, ...]) -> DeadLetter:
    number, message_id, body, attributes, ordering_key, checksum, reason, error_class, description, attempts, since = (
        row
    )
    if reason != "damaged" and not is_whole(checksum, message_id, body, attributes, ordering_key):
        raise CorruptData(f"The dead letter {number} of {subscription} is damaged.", resource=subscription)
    try:
        names = orjson.loads(attributes)
    except ValueError:
        names = {}
    why = DeadLetterReason(reason, error_class, description, attempts)
    return DeadLetter(str(number), message_id, subscription, body, names, why, since)
