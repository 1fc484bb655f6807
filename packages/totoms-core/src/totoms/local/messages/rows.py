"""The SQL statements of the local bus, each for many rows at once. They run on the writer's thread only.

A message has one row per subscription. The column `due` is the time from which it may be leased, whether it is
delayed, in backoff, or leased until then. The column `behind` is 1 while an earlier message of the same ordering key
exists; triggers of the schema maintain it, so that no query scans a long line. A lease is a row with the `token` of its
holder. The column `published` is the time from which it could first be leased; NULL in a row of an earlier release.
Settling deletes the row.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

import orjson

from totoms.errors import LeaseLost
from totoms.local.messages.feed import NEVER, Feed
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.outgoing import Outgoing
from totoms.messages.receiver import Received
from totoms.messages.subscription import Backlog

_ROWS: Final = 500
"""The most rows of one statement. `Database` caches the prepared statement of each size."""


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _ROWS] for start in range(0, len(items), _ROWS))


@cache
def _marks(number: int) -> str:
    return ",".join("?" * number)


@cache
def _insertion(number: int) -> str:
    return "INSERT INTO deliveries VALUES " + ",".join(["(?,?,?,?,?,?,?,?,?,?,0,?)"] * number)  # noqa: S608 - marks


def read_subscriptions(connection: sqlite3.Connection) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Return the subscription rows of each topic, and the row of each queue."""
    topics: dict[str, list[int]] = {}
    queues: dict[str, int] = {}
    for row, name, topic in connection.execute("SELECT id, name, topic FROM subscriptions"):
        queues[name] = row
        if topic is not None:
            topics.setdefault(topic, []).append(row)
    return topics, queues


def add_subscription(connection: sqlite3.Connection, name: str, topic: str | None, *, ordered: bool) -> int:
    """Create a subscription, or move it to another topic; return its row. A queue is a subscription without a topic."""
    row: int = connection.execute(
        "INSERT INTO subscriptions (name, topic, ordered) VALUES (?, ?, ?) "
        # A queue with the name of a subscription is that subscription, which keeps its topic.
        "ON CONFLICT (name) DO UPDATE SET topic = coalesce(excluded.topic, topic), "
        "ordered = CASE WHEN excluded.topic IS NULL THEN ordered ELSE excluded.ordered END RETURNING id",
        (name, topic, ordered),
    ).fetchone()[0]
    return row


def find_subscription(connection: sqlite3.Connection, name: str) -> tuple[int, str | None] | None:
    """Return the row and the topic of a subscription, or None."""
    found: tuple[int, str | None] | None = connection.execute(
        "SELECT id, topic FROM subscriptions WHERE name = ?", (name,)
    ).fetchone()
    return found


def subscription_names(connection: sqlite3.Connection) -> list[str]:
    """Return the names of all subscriptions and queues, and of those that only have dead letters."""
    sql = "SELECT name FROM subscriptions UNION SELECT subscription FROM dead_letters"
    return [name for (name,) in connection.execute(sql)]


def backlog(connection: sqlite3.Connection, subscription: int, now: float) -> Backlog:
    """Return the messages of a subscription, given by its row, except delayed ones that are not due."""
    # The index has all that the first query reads. The second one reads rows, but only of leases, retries and delays.
    counted = "SELECT count(*), min(id) FROM deliveries WHERE subscription = ? AND behind IN (0, 1) AND"
    due, first_due = connection.execute(f"{counted} due <= ?", (subscription, now)).fetchone()
    later, first_later = connection.execute(f"{counted} due > ? AND attempt > 0", (subscription, now)).fetchone()
    if not due + later:
        return Backlog(0)
    oldest = min(row for row in (first_due, first_later) if row is not None)
    published = connection.execute("SELECT published FROM deliveries WHERE id = ?", (oldest,)).fetchone()[0]
    return Backlog(due + later, None if published is None else max(0.0, now - published))


def last_row(connection: sqlite3.Connection) -> int:
    """Return the highest row number of a message."""
    row: int = connection.execute("SELECT coalesce(max(id), 0) FROM deliveries").fetchone()[0]
    return row


def checksum_of(message_id: str, body: bytes, attributes: bytes, ordering_key: str | None) -> int:
    """Return the checksum by which a damaged row is found."""
    return zlib.crc32(body, zlib.crc32(attributes, zlib.crc32(f"{message_id}\0{ordering_key}".encode())))


def storable(text: str) -> str:
    """Replace what UTF-8 cannot encode: an exception's text may hold lone surrogates, as in the name of a file."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def is_whole(checksum: object, message_id: str, body: bytes, attributes: bytes, ordering_key: str | None) -> bool:
    """Return whether the checksum of a row matches. The values of a damaged row may have any type."""
    try:
        return checksum == checksum_of(message_id, body, attributes, ordering_key)
    except (TypeError, ValueError):
        return False


def insert(connection: sqlite3.Connection, values: Sequence[tuple[int, int, Outgoing, float, int, int, float]]) -> None:
    """Insert messages, given as tuples of row, subscription, message, due, attempt, token and time of publishing."""
    for chunk in _chunks(values):
        parameters: list[Any] = []
        for row, subscription, outgoing, due, attempt, token, published in chunk:
            attributes = orjson.dumps(outgoing.attributes)
            checksum = checksum_of(outgoing.message_id, outgoing.body, attributes, outgoing.ordering_key)
            parameters += (
                row,
                subscription,
                outgoing.message_id,
                outgoing.body,
                attributes,
                outgoing.ordering_key,
                checksum,
                due,
                attempt,
                token,
                published,
            )
        connection.execute(_insertion(len(chunk)), parameters)


def received(outgoing: Outgoing, row: int, feed: Feed) -> Received:
    """Return a published message as its consumer receives it."""
    return Received(
        outgoing.body,
        outgoing.message_id,
        1,
        feed.subscription,
        outgoing.attributes,
        row,
        outgoing.ordering_key,
    )


def lease(connection: sqlite3.Connection, feed: Feed, most: int, now: float) -> tuple[list[Received], list[int]]:
    """Lease up to `most` messages that are due, the longest due first.

    Returns:
        The messages, and the rows of damaged ones, which it moves to the dead letters.
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
            why = DeadLetterReason("damaged", "", "the stored bytes are damaged", attempt)
            dead_letter(connection, feed.subscription.name, row, why, now)
            continue
        batch.append(
            Received(
                body,
                message_id,
                attempt + 1,
                feed.subscription,
                orjson.loads(attributes),
                row,
                ordering_key,
            )
        )
    if damaged and feed.subscription.ordered:
        # A damaged ordering key does not unblock the next message of the key: have the triggers rebuild all lines.
        connection.execute("UPDATE subscriptions SET ordered = 0 WHERE id = ?", (feed.row,))
        connection.execute("UPDATE subscriptions SET ordered = 1 WHERE id = ?", (feed.row,))
    for chunk in _chunks(batch):
        connection.execute(
            f"UPDATE deliveries SET due = ?, attempt = attempt + 1, token = ? WHERE id IN ({_marks(len(chunk))})",  # noqa: S608
            (now + feed.lease_seconds, feed.token, *(one.lease for one in chunk)),
        )
    return batch, damaged


def next_due(connection: sqlite3.Connection, feed: Feed) -> float:
    """Return when the next message of a feed is due; `NEVER` if there is none."""
    sql = "SELECT min(due) FROM deliveries WHERE subscription = ? AND behind = 0"
    due: float | None = connection.execute(sql, (feed.row,)).fetchone()[0]
    return NEVER if due is None else float(due)


def delete(connection: sqlite3.Connection, feed: Feed, held: Sequence[Received]) -> bool:
    """Delete acked messages. Return False if another consumer holds some of them, which are kept."""
    deleted = 0
    for chunk in _chunks(held):
        sql = f"DELETE FROM deliveries WHERE id IN ({_marks(len(chunk))}) AND token = ?"  # noqa: S608 - question marks
        deleted += connection.execute(sql, (*(one.lease for one in chunk), feed.token)).rowcount
    return deleted == len(held)


def owned(connection: sqlite3.Connection, feed: Feed, batch: Sequence[Received]) -> set[Received]:
    """Return the messages of `batch` that are still leased to `feed`."""
    rows: set[str] = set()
    for chunk in _chunks([one for one in batch if feed.leases.get(one.lease) is one]):
        # One row, not many: for each row sqlite3 releases the global interpreter lock and takes it again.
        sql = f"SELECT group_concat(id) FROM deliveries WHERE id IN ({_marks(len(chunk))}) AND token = ?"  # noqa: S608
        found = connection.execute(sql, (*(one.lease for one in chunk), feed.token)).fetchone()[0]
        rows.update(found.split(",") if found else ())
    return {one for one in batch if str(one.lease) in rows and feed.leases.get(one.lease) is one}


def extend(connection: sqlite3.Connection, feed: Feed, batch: Sequence[Received], now: float) -> list[LeaseLost | None]:
    """Extend leases to `lease_seconds` from now. Return None or `LeaseLost` for each message."""
    kept = owned(connection, feed, batch)
    for chunk in _chunks(list(kept)):
        sql = f"UPDATE deliveries SET due = ? WHERE id IN ({_marks(len(chunk))})"  # noqa: S608 - question marks
        connection.execute(sql, (now + feed.lease_seconds, *(one.lease for one in chunk)))
    for one in batch:
        if one not in kept and feed.leases.get(one.lease) is one:
            del feed.leases[one.lease]
    return [None if one in kept else lease_lost(one) for one in batch]


def release(connection: sqlite3.Connection, *, feed: Feed, batch: Sequence[Received]) -> None:
    """Release messages as if they had not been leased: due at once, without counting the attempt."""
    for one in batch:
        if feed.leases.get(one.lease) is one:  # else it was leased again, perhaps by this feed
            connection.execute(
                "UPDATE deliveries SET due = 0, attempt = attempt - 1, token = 0 WHERE id = ? AND token = ?",
                (one.lease, feed.token),
            )


def retry(connection: sqlite3.Connection, feed: Feed, one: Received, due: float) -> None:
    """Redeliver a message at `due`.

    Raises:
        LeaseLost: Another consumer holds it.
    """
    sql = "UPDATE deliveries SET due = ?, token = 0 WHERE id = ? AND token = ?"
    if feed.leases.get(one.lease) is not one or not connection.execute(sql, (due, one.lease, feed.token)).rowcount:
        raise lease_lost(one)


def dead_letter(
    connection: sqlite3.Connection,
    subscription: str,
    row: int,
    reason: DeadLetterReason,
    now: float,
    token: int | None = None,
) -> int | None:
    """Move a message to the dead letters; return the letter's row, or None if it no longer has the `token` given."""
    fence = "" if token is None else f" AND token = {int(token)}"
    values = (subscription, reason.reason, storable(reason.error_class), storable(reason.description), reason.attempts)
    moved = connection.execute(
        "INSERT INTO dead_letters (subscription, message_id, body, attributes, ordering_key, checksum, reason, "  # noqa: S608 - an int
        "error_class, description, attempts, dead_since) "
        "SELECT ?, message_id, body, attributes, ordering_key, checksum, ?, ?, ?, ?, ? FROM deliveries "
        f"WHERE id = ?{fence}",
        (*values, now, row),
    )
    if not moved.rowcount:
        return None
    connection.execute("DELETE FROM deliveries WHERE id = ?", (row,))
    return moved.lastrowid


def lease_lost(one: Received) -> LeaseLost:
    """Return the error for a message that another consumer may hold now."""
    return LeaseLost(f"The lease of message {one.message_id} was lost.", resource=one.subscription.name)
