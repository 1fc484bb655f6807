"""Deadlines: how long a connection may stay in a state, and how traffic extends that."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from totoms.http.server.states import BLOCKED, CLOSING, HEAD, State


class Deadline(NamedTuple):
    """How long a state may last.

    Attributes:
        seconds: The time.
        rate: Bytes that extend the deadline by one second, up to `seconds` from now. With 0 any byte restores the whole
            time; with None traffic does not extend it.
    """

    seconds: float
    rate: int | None


class Timed:
    """Something in a state, with a timer for that state's deadline.

    Args:
        loop: The event loop; its clock is used.
        deadlines: The deadline of each state, by its value.

    Attributes:
        state: The state.
        since: The loop's time when the state was entered; not updated by states without a deadline.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Sequence[Deadline | None]) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self.state = HEAD
        self.since = loop.time()
        self._due: float | None = None
        self._left: dict[State, float] = {}
        self._delivered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @abstractmethod
    def _on_deadline(self) -> None:
        """End the connection: the deadline of its state has passed."""

    @abstractmethod
    def _count_delivered(self) -> int:
        """Return how many bytes the client has received on this connection."""

    def _enter(self, state: State) -> None:
        """Enter a state and start its deadline."""
        deadlines, left, old = self._deadlines, self._left, self.state
        was, deadline = deadlines[old], deadlines[state]
        if deadline is None and (was is None or was.rate is None):  # the common case: a request starts
            self.state = state
            self._due = None
            return
        now = self.since = self._loop.time()
        if was is not None and was.rate is not None and self._due is not None:
            self._extend_by_delivery()
            left[old] = self._due - now  # resumed when the state is entered again
        self.state = state
        if deadline is None:
            self._due = None
            return
        if deadline.rate is None:
            due = now + deadline.seconds
        else:
            due = now + left.get(state, deadline.seconds)
            self._delivered = self._count_delivered()
        self._set_deadline(due)

    def _restore_deadlines(self) -> None:
        """Give the next request the whole time of each state."""
        self._left = {}

    def _extend(self, state: State, count: int) -> None:
        """Extend the deadline of `state` for `count` bytes that were received or delivered."""
        deadline = self._deadlines[state]
        if deadline is None or deadline.rate is None or count <= 0:
            return
        gain = count / deadline.rate if deadline.rate else deadline.seconds
        if self.state is state and self._due is not None:
            self._due = min(self._loop.time() + deadline.seconds, self._due + gain)
        elif state in self._left:
            self._left[state] = min(deadline.seconds, self._left[state] + gain)

    def _extend_by_delivery(self) -> None:
        """Extend the deadline for the bytes that the client received in this state."""
        if self.state is BLOCKED or self.state is CLOSING:
            before, self._delivered = self._delivered, self._count_delivered()
            self._extend(self.state, self._delivered - before)

    def _set_deadline(self, due: float) -> None:
        """Set the deadline to the loop's time `due`."""
        self._due = due
        # A timer that fires too early is set again; only an earlier deadline needs a new timer now.
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_at(due, self._on_timer)

    def _stop_timer(self) -> None:
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._due is None:
            return
        self._extend_by_delivery()
        if self._loop.time() < self._due:
            self._set_deadline(self._due)
        else:
            self._on_deadline()
