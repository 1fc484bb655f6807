"""State shared by the connections of one server: its limits, and which connections to close to make room."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from totoms.declaration.server import ServerConfiguration
from totoms.http.server.deadlines import Deadline
from totoms.http.server.states import RULES, State

if TYPE_CHECKING:
    from totoms.http.server.channel import Channel

MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""The default limit for request bodies."""
UNKNOWN_LENGTH: Final = 1024 * 1024
"""Bytes to discard at most of a body without a Content-Length."""
_MAX_CONNECTIONS: Final = 10_000
_GRACE: Final = 0.1
"""Seconds for which a new connection is not closed to make room."""


class Connections:
    """Limits, deadlines and counts of one server.

    Args:
        limits: The server's limits.
        max_body_bytes: The application's limit for request bodies; also the most that is discarded of a body.

    Attributes:
        deadlines: The deadline of each state, by its value.
        winding_down: Whether each response closes its connection.
    """

    def __init__(self, limits: ServerConfiguration, max_body_bytes: int) -> None:
        self.limits = limits
        self.max_body_bytes = max_body_bytes
        self.max_connections = limits.max_connections or _default_max_connections()
        self.winding_down = False
        self.deadlines: list[Deadline | None] = [
            Deadline(getattr(limits, rule.deadline), getattr(limits, rule.rate) if rule.rate else None)
            if rule.deadline
            else None
            for rule in (RULES[state] for state in State)
        ]
        self._discarding: dict[Channel, None] = {}

    def discard_begins(self, connection: Channel) -> None:
        """Add a connection that discards a body; close the oldest of them if there are too many."""
        self._discarding[connection] = None
        if len(self._discarding) > self.limits.max_discarding:
            next(iter(self._discarding)).close()

    def discard_ends(self, connection: Channel) -> None:
        """Remove a connection that has stopped discarding."""
        self._discarding.pop(connection, None)

    def discardable(self, length: int | None) -> int:
        """Return how many bytes to discard at most.

        Args:
            length: The Content-Length of the body; None without one.
        """
        return UNKNOWN_LENGTH if length is None else min(length, self.max_body_bytes)

    def make_room(self, connections: Collection[object], now: float) -> bool:
        """Close the connections that have waited longest for their client.

        New connections are spared unless the count is far over the limit: the event loop accepts many in one turn,
        before it reads the first of them.

        Args:
            connections: All connections of the server.
            now: The loop's time.

        Returns:
            Whether there is room; False if every connection is serving a request.
        """
        count = sum(getattr(one, "state", None) is not State.CLOSED for one in connections)
        if count < self.max_connections:
            return True
        waiting = [found for one in connections if (found := _as_waiting(one)) is not None]
        # Close several at a time: a scan of all connections for each new one would make a flood expensive.
        oldest = heapq.nsmallest(1 + self.max_connections // 64, waiting, key=lambda one: one.since)
        if oldest and now - oldest[0].since < _GRACE and count < self.max_connections * 9 // 7:
            return True
        for one in oldest:
            one.reset()
        return bool(oldest)


def _as_waiting(connection: object) -> Channel | None:
    """Return the connection if it waits for its client, else None."""
    state = getattr(connection, "state", None)  # WebSockets have none
    return connection if isinstance(state, State) and RULES[state].awaits_client else None  # type: ignore[return-value]


def _default_max_connections() -> int:
    """Return 60 % of the file descriptors that the process may open; the rest is for files and outgoing connections."""
    if sys.platform == "win32":
        return _MAX_CONNECTIONS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(8, min(_MAX_CONNECTIONS, soft * 6 // 10))
