"""The tables of the local bus; :mod:`totoms.local.messages.rows` explains the columns."""

from __future__ import annotations

import sqlite3
from typing import Final

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE subscriptions (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, topic TEXT, ordered INTEGER NOT NULL DEFAULT 0);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY, subscription INTEGER NOT NULL, message_id TEXT NOT NULL, body BLOB NOT NULL,
    attributes BLOB NOT NULL, ordering_key TEXT, checksum INTEGER NOT NULL,
    due REAL NOT NULL, attempt INTEGER NOT NULL, token INTEGER NOT NULL, behind INTEGER NOT NULL,
    published REAL);
CREATE INDEX deliveries_due ON deliveries (subscription, behind, due);
CREATE INDEX deliveries_order ON deliveries (subscription, ordering_key, id) WHERE ordering_key IS NOT NULL;
CREATE TRIGGER falls_in_line AFTER INSERT ON deliveries
WHEN NEW.ordering_key IS NOT NULL AND (SELECT ordered FROM subscriptions WHERE id = NEW.subscription) AND EXISTS (
    SELECT 1 FROM deliveries WHERE subscription = NEW.subscription AND ordering_key = NEW.ordering_key AND id < NEW.id)
BEGIN
    UPDATE deliveries SET behind = 1 WHERE id = NEW.id;
END;
CREATE TRIGGER next_in_line AFTER DELETE ON deliveries WHEN OLD.ordering_key IS NOT NULL
BEGIN
    UPDATE deliveries SET behind = 0 WHERE behind AND id = (
        SELECT min(id) FROM deliveries WHERE subscription = OLD.subscription AND ordering_key = OLD.ordering_key);
END;
CREATE TRIGGER line_is_formed AFTER UPDATE OF ordered ON subscriptions WHEN NEW.ordered <> OLD.ordered
BEGIN
    UPDATE deliveries SET behind = NEW.ordered AND EXISTS (
        SELECT 1 FROM deliveries e WHERE e.subscription = NEW.id AND e.ordering_key = deliveries.ordering_key
        AND e.id < deliveries.id)
    WHERE subscription = NEW.id AND ordering_key IS NOT NULL;
END;
INSERT INTO meta VALUES ('commits', 1);
"""

# AUTOINCREMENT: an id is never used again, so that one noted from the log cannot name a later dead letter.
_DEAD_LETTERS: Final = """
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, subscription TEXT NOT NULL, message_id TEXT NOT NULL, body BLOB NOT NULL,
    attributes BLOB NOT NULL, ordering_key TEXT, checksum INTEGER NOT NULL,
    reason TEXT NOT NULL, error_class TEXT NOT NULL, description TEXT NOT NULL, attempts INTEGER NOT NULL,
    dead_since REAL NOT NULL);
CREATE INDEX dead_letters_subscription ON dead_letters (subscription, id);
"""

SCHEMA: Final = _TABLES + _DEAD_LETTERS


def upgrade(connection: sqlite3.Connection) -> None:
    """Change the tables of an earlier release to today's. No other process may have the database open."""
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(deliveries)")]
    if "published" not in columns:
        connection.execute("ALTER TABLE deliveries ADD COLUMN published REAL")
    (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'dead_letters'").fetchone()
    if "AUTOINCREMENT" not in made:
        connection.executescript(
            "BEGIN IMMEDIATE; DROP INDEX dead_letters_subscription; "
            f"ALTER TABLE dead_letters RENAME TO earlier; {_DEAD_LETTERS}"
        )
        connection.execute("INSERT INTO dead_letters SELECT * FROM earlier")
        connection.execute("DROP TABLE earlier")
        connection.execute("COMMIT")
