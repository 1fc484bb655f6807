"""The statements of the local bus, each with as many rows as it can carry. Called on the writer's thread only.

A message has one row per subscription. Its column `due` says from when on it may be leased, whatever the reason it may
not be before: it is delayed, in backoff, or leased. Its column `behind` is 1 while an earlier message of the same
ordering key is there, kept by triggers of the database (see its schema), so that nobody looks through a long line. A
lease is the pair of row and `token`; a settled row is deleted.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

import orjson

from totoms.envelope import Outgoing, Received
from totoms.errors import LeaseLost
from totoms.local.feed import NEVER, Feed

_ROWS: Final = 500
"""The most rows of one statement. One statement for all, and each size prepared once: see `Database.connect`."""


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _ROWS] for start in range(0, len(items), _ROWS))


@cache
def _marks(number: int) -> str:
    return ",".join("?" * number)


@cache
def _insertion(number: int) -> str:
    return "INSERT INTO deliveries VALUES " + ",".join(["(?,?,?,?,?,?,?,?,?,?,0)"] * number)  # noqa: S608 - marks


def read_subscriptions(connection: sqlite3.Connection) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Return the rows of the subscriptions of each topic, and of each queue."""
    topics: dict[str, list[int]] = {}
    queues: dict[str, int] = {}
    for row, name, topic in connection.execute("SELECT id, name, topic FROM subscriptions"):
        queues[name] = row
        if topic is not None:
            topics.setdefault(topic, []).append(row)
    return topics, queues


def add_subscription(connection: sqlite3.Connection, name: str, topic: str | None, *, ordered: bool) -> int:
    """Make a subscription, or move it to another topic; return its row. A queue is one without a topic."""
    row: int = connection.execute(
        "INSERT INTO subscriptions (name, topic, ordered) VALUES (?, ?, ?) "
        # A queue that has the name of a subscription is that subscription, which keeps its topic.
        "ON CONFLICT (name) DO UPDATE SET topic = coalesce(excluded.topic, topic), "
        "ordered = CASE WHEN excluded.topic IS NULL THEN ordered ELSE excluded.ordered END RETURNING id",
        (name, topic, ordered),
    ).fetchone()[0]
    return row


def find_subscription(connection: sqlite3.Connection, name: str) -> tuple[int, str | None] | None:
    """Return the row and the topic of a subscription."""
    found: tuple[int, str | None] | None = connection.execute(
        "SELECT id, topic FROM subscriptions WHERE name = ?", (name,)
    ).fetchone()
    return found


def last_row(connection: sqlite3.Connection) -> int:
    """Return the highest row of a message."""
    row: int = connection.execute("SELECT coalesce(max(id), 0) FROM deliveries").fetchone()[0]
    return row


def checksum_of(message_id: str, body: bytes, attributes: bytes, ordering_key: str | None) -> int:
    """Return what tells a row as it was written from one that was damaged."""
    return zlib.crc32(body, zlib.crc32(attributes, zlib.crc32(f"{message_id}\0{ordering_key}".encode())))


def storable(text: str) -> str:
    """Return text as UTF-8 can carry it: an exception's message may hold half a character, a file's name for one."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def is_whole(checksum: object, message_id: str, body: bytes, attributes: bytes, ordering_key: str | None) -> bool:
    """Whether a row is as it was written. Damaged, its values may be of any type."""
    try:
        return checksum == checksum_of(message_id, body, attributes, ordering_key)
    except (TypeError, ValueError):
        return False


def insert(connection: sqlite3.Connection, values: Sequence[tuple[int, int, Outgoing, float, int, int]]) -> None:
    """Insert messages: row, subscription, message, due, attempt, token."""
    for chunk in _chunks(values):
        parameters: list[Any] = []
        for row, subscription, outgoing, due, attempt, token in chunk:
            attributes = orjson.dumps(outgoing.attributes)
            checksum = checksum_of(outgoing.message_id, outgoing.body, attributes, outgoing.ordering_key)
            parameters += (
                row, subscription, outgoing.message_id, outgoing.body, attributes, outgoing.ordering_key, checksum,
                due, attempt, token,
            )  # fmt: skip
        connection.execute(_insertion(len(chunk)), parameters)


def received(outgoing: Outgoing, row: int, feed: Feed) -> Received:
    """Return a message that was just published as its consumer receives it."""
    return Received(
        outgoing.body, outgoing.message_id, 1, feed.subscription, outgoing.attributes, row, feed.lease_seconds,
        outgoing.ordering_key,
    )  # fmt: skip


def lease(connection: sqlite3.Connection, feed: Feed, most: int, now: float) -> tuple[list[Received], list[int]]:
    """Lease up to `most` messages that are due, those first that are due longest.

    Returns:
        The messages, and the rows of damaged ones. Those are moved to the dead letters: never silently gone.
    """
    found = connection.execute(
        "SELECT id, message_id, body, attributes, ordering_key, checksum, attempt FROM deliveries "
        "WHERE subscription = ? AND behind = 0 AND due <= ? ORDER BY due, id LIMIT ?",
        (feed.row, now, most),
    ).fetchall()
    batch, damaged = [], []
    for row, message_id, body, attributes, ordering_key, checksum, attempt in found:
        if not is_whole(checksum, message_id, body, attributes, ordering_key):
            damaged.append(row)
            bury(connection, feed.subscription.name, row, "damaged", "", "the stored bytes are damaged", attempt, now)
            continue
        batch.append(
            Received(
                body, message_id, attempt + 1, feed.subscription, orjson.loads(attributes), row, feed.lease_seconds,
                ordering_key,
            )
        )  # fmt: skip
    if damaged and feed.subscription.ordered:
        # What lost its ordering key could not make way for the next of it: the triggers form all lines anew.
        connection.execute("UPDATE subscriptions SET ordered = 0 WHERE id = ?", (feed.row,))
        connection.execute("UPDATE subscriptions SET ordered = 1 WHERE id = ?", (feed.row,))
    for chunk in _chunks(batch):
        connection.execute(
            f"UPDATE deliveries SET due = ?, attempt = attempt + 1, token = ? WHERE id IN ({_marks(len(chunk))})",  # noqa: S608
            (now + feed.lease_seconds, feed.token, *(one.lease for one in chunk)),
        )
    return batch, damaged


def next_due(connection: sqlite3.Connection, feed: Feed) -> float:
    """Return when the next message of a feed may be leased; `NEVER` when there is none."""
    sql = "SELECT min(due) FROM deliveries WHERE subscription = ? AND behind = 0"
    due: float | None = connection.execute(sql, (feed.row,)).fetchone()[0]
    return NEVER if due is None else float(due)


def delete(connection: sqlite3.Connection, feed: Feed, held: Sequence[Received]) -> bool:
    """Delete acked messages. Return False when another consumer owned some, which were left."""
    deleted = 0
    for chunk in _chunks(held):
        sql = f"DELETE FROM deliveries WHERE id IN ({_marks(len(chunk))}) AND token = ?"  # noqa: S608 - question marks
        deleted += connection.execute(sql, (*(one.lease for one in chunk), feed.token)).rowcount
    return deleted == len(held)


def owned(connection: sqlite3.Connection, feed: Feed, batch: Sequence[Received]) -> set[Received]:
    """Return the messages of `batch` that are still leased to `feed`."""
    rows: set[str] = set()
    for chunk in _chunks([one for one in batch if feed.leases.get(one.lease) is one]):
        # One row, not many: with each row Python hands its global lock to the event loop's thread and back.
        sql = f"SELECT group_concat(id) FROM deliveries WHERE id IN ({_marks(len(chunk))}) AND token = ?"  # noqa: S608
        found = connection.execute(sql, (*(one.lease for one in chunk), feed.token)).fetchone()[0]
        rows.update(found.split(",") if found else ())
    return {one for one in batch if str(one.lease) in rows and feed.leases.get(one.lease) is one}


def renew(connection: sqlite3.Connection, feed: Feed, batch: Sequence[Received], now: float) -> list[LeaseLost | None]:
    """Extend leases to `lease_seconds` from now."""
    kept = owned(connection, feed, batch)
    for chunk in _chunks(list(kept)):
        sql = f"UPDATE deliveries SET due = ? WHERE id IN ({_marks(len(chunk))})"  # noqa: S608 - question marks
        connection.execute(sql, (now + feed.lease_seconds, *(one.lease for one in chunk)))
    for one in batch:
        if one not in kept and feed.leases.get(one.lease) is one:
            del feed.leases[one.lease]
    return [None if one in kept else lease_lost(one) for one in batch]


def release(connection: sqlite3.Connection, *, feed: Feed, batch: Sequence[Received]) -> None:
    """Give messages back as if they had not been leased: first in line, the attempt not counted."""
    for one in batch:
        if feed.leases.get(one.lease) is one:  # else it is leased anew, maybe to ourselves
            connection.execute(
                "UPDATE deliveries SET due = 0, attempt = attempt - 1, token = 0 WHERE id = ? AND token = ?",
                (one.lease, feed.token),
            )


def retry(connection: sqlite3.Connection, feed: Feed, one: Received, due: float) -> None:
    """Have a message delivered again at `due`.

    Raises:
        LeaseLost: Another consumer owns it.
    """
    sql = "UPDATE deliveries SET due = ?, token = 0 WHERE id = ? AND token = ?"
    if feed.leases.get(one.lease) is not one or not connection.execute(sql, (due, one.lease, feed.token)).rowcount:
        raise lease_lost(one)


def bury(
    connection: sqlite3.Connection, subscription: str, row: int, reason: str, error_class: str, description: str,
    attempts: int, now: float, token: int | None = None,
) -> bool:  # fmt: skip
    """Move a message to the dead letters. False when `token` is given and is not its token any more."""
    fence = "" if token is None else f" AND token = {int(token)}"
    moved = connection.execute(
        "INSERT INTO dead_letters (subscription, message_id, body, attributes, ordering_key, checksum, reason, "  # noqa: S608 - an int
        "error_class, description, attempts, dead_since) "
        "SELECT ?, message_id, body, attributes, ordering_key, checksum, ?, ?, ?, ?, ? FROM deliveries "
        f"WHERE id = ?{fence}",
        (subscription, reason, storable(error_class), storable(description), attempts, now, row),
    )
    if not moved.rowcount:
        return False
    connection.execute("DELETE FROM deliveries WHERE id = ?", (row,))
    return True


def lease_lost(one: Received) -> LeaseLost:
    """Return the error for a message that another consumer owns by now."""
    return LeaseLost(f"The lease of message {one.message_id} was lost.", resource=one.subscription.name)
