"""The dead letters of the local bus: listed, delivered again, deleted. Called on the writer's thread only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from totoms.envelope import DeadLetter, DeadLetterReason, Received
from totoms.errors import CorruptData, NotFound
from totoms.local.rows import checksum_of, find_subscription, is_whole, last_row, storable


def keep(connection: sqlite3.Connection, one: Received, reason: DeadLetterReason, now: float) -> None:
    """Keep a message that was pushed, and so has no row to move."""
    attributes = orjson.dumps(dict(one.attributes))
    connection.execute(
        "INSERT INTO dead_letters (subscription, message_id, body, attributes, ordering_key, checksum, reason, "
        "error_class, description, attempts, dead_since) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (
            one.subscription.name, one.message_id, one.body, attributes, one.ordering_key,
            checksum_of(one.message_id, one.body, attributes, one.ordering_key), reason.reason,
            storable(reason.error_class), storable(reason.description), reason.attempts, now,
        ),
    )  # fmt: skip


def listed(connection: sqlite3.Connection, subscription: str, limit: int) -> list[DeadLetter]:
    """Return the oldest dead letters of a subscription.

    Raises:
        NotFound: There is no such subscription, and no letter of one.
    """
    found = connection.execute(
        "SELECT id, message_id, body, attributes, ordering_key, checksum, reason, error_class, description, attempts, "
        "dead_since FROM dead_letters WHERE subscription = ? ORDER BY id LIMIT ?",
        (subscription, limit),
    ).fetchall()
    if not found and find_subscription(connection, subscription) is None:
        raise _unknown(subscription)
    return [_letter(subscription, row) for row in found]


def replay(connection: sqlite3.Connection, subscription: str, letter_ids: Sequence[str] | None, now: float) -> int:
    """Deliver dead letters again, attempts starting over; return how many.

    Raises:
        NotFound: There is no such subscription to deliver them to.
    """
    found = find_subscription(connection, subscription)
    if found is None:
        raise _unknown(subscription)
    row = last_row(connection)
    replayed = 0
    for letter in _selected(connection, subscription, letter_ids):
        row += 1
        connection.execute(
            "INSERT INTO deliveries SELECT ?, ?, message_id, body, attributes, ordering_key, checksum, ?, 0, 0, 0 "
            "FROM dead_letters WHERE id = ?",
            (row, found[0], now, letter),
        )
        connection.execute("DELETE FROM dead_letters WHERE id = ?", (letter,))
        replayed += 1
    return replayed


def purge(connection: sqlite3.Connection, subscription: str, letter_ids: Sequence[str] | None) -> int:
    """Delete dead letters for good; return how many.

    Raises:
        NotFound: There is no such subscription, and no letter of one.
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
