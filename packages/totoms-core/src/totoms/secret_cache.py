"""Secrets that were fetched: one fetch at a time for each, remembered for a while, longer while the store is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from totoms.errors import Unavailable
from totoms.threads import start_thread

Key: TypeAlias = "tuple[str, str | None]"
"""Name and version."""
_RETRY_SECONDS: Final = 10.0
"""While the store is away, how long a stale value serves before the store is asked again."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long a value serves, in seconds.

    Attributes:
        fresh: Without asking the store again. A pinned version never changes, so it serves for good: infinity.
        stale: While the store is away.
    """

    fresh: float
    stale: float


@dataclass(slots=True)
class _Entry:
    value: bytes = field(repr=False)
    fetched: float
    ask_again: float


class SecretCache:
    """Shared by all secrets managers of one environment in this process; by threads and event loops alike.

    Args:
        clock: Seconds, growing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[Key, _Entry] = {}
        self._flights: dict[Key, Future[bytes]] = {}

    def get(self, key: Key, fetch: Callable[[], bytes], policy: CachePolicy) -> bytes | Future[bytes]:
        """Return the value, or the fetch that is under way for it; start one if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and self._clock() < entry.ask_again:
                return entry.value
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Future()
                flight.set_running_or_notify_cancel()
                started = flight
            else:
                return flight
        try:
            start_thread(lambda: self._fly(key, fetch, policy, started), "totoms-secret")
        except RuntimeError as error:  # no thread to be had
            with self._lock:
                self._land(key, started)
            started.set_exception(Unavailable(f"The secret {key[0]!r} cannot be read now: {error}.", resource=key[0]))
        return started

    def give_up(self, key: Key, flight: Future[bytes], policy: CachePolicy) -> bytes | None:
        """End the wait for a fetch that takes too long: the next caller starts another. Return a value that serves."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
            return self._stale(key, policy)

    def _fly(self, key: Key, fetch: Callable[[], bytes], policy: CachePolicy, flight: Future[bytes]) -> None:
        try:
            value = fetch()
        except Unavailable as error:
            with self._lock:
                self._land(key, flight)
                stale = self._stale(key, policy)
            flight.set_exception(error) if stale is None else flight.set_result(stale)
        except BaseException as error:
            with self._lock:
                if self._land(key, flight):
                    self._entries.pop(key, None)
            flight.set_exception(error)
        else:
            with self._lock:
                # What a fetch brings that was given up may be older than what a later one brought.
                if self._land(key, flight) and policy.fresh > 0:
                    now = self._clock()
                    self._entries[key] = _Entry(value, now, now + policy.fresh)
            flight.set_result(value)

    def _land(self, key: Key, flight: Future[bytes]) -> bool:
        # Under the lock. False for a fetch that was given up.
        if self._flights.get(key) is not flight:
            return False
        del self._flights[key]
        return True

    def _stale(self, key: Key, policy: CachePolicy) -> bytes | None:
        entry, now = self._entries.get(key), self._clock()
        if entry is None or now >= entry.fetched + policy.stale:
            return None
        entry.ask_again = max(entry.ask_again, min(now + _RETRY_SECONDS, entry.fetched + policy.stale))
        return entry.value
