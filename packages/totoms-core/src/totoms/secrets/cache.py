"""Cache secrets, with one fetch at a time for each, and serve stale values while the store is unavailable."""

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
"""Seconds between two fetches while a stale value is served."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long to serve a value after it was fetched, in seconds.

    Attributes:
        fresh: Without fetching it again; infinity for a pinned version, which never changes.
        stale: While the store is unavailable.
    """

    fresh: float
    stale: float


@dataclass(slots=True)
class _Entry:
    value: bytes = field(repr=False)
    fetched: float
    ask_again: float


class SecretCache:
    """The cache of all secrets managers of one environment in this process. Thread-safe.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[Key, _Entry] = {}
        self._fetches: dict[Key, Future[bytes]] = {}

    def get(self, key: Key, fetch: Callable[[], bytes], policy: CachePolicy) -> bytes | Future[bytes]:
        """Return the cached value, or a future of the fetch in progress; start one if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and self._clock() < entry.ask_again:
                return entry.value
            running = self._fetches.get(key)
            if running is not None:
                return running
            started: Future[bytes] = Future()
            started.set_running_or_notify_cancel()
            self._fetches[key] = started
        try:
            start_thread(lambda: self._run(key, fetch, policy, started), "totoms-secret")
        except RuntimeError as error:  # the system is out of threads
            with self._lock:
                self._end(key, started)
            started.set_exception(Unavailable(f"The secret {key[0]!r} cannot be read now: {error}.", resource=key[0]))
        return started

    def expire(self, key: Key) -> None:
        """Have the next caller fetch the value, though the cached one is still fresh."""
        with self._lock:
            if (entry := self._entries.get(key)) is not None:
                entry.ask_again = self._clock()

    def abandon(self, key: Key, future: Future[bytes], policy: CachePolicy) -> bytes | None:
        """Abandon a fetch that takes too long, so that the next caller starts another; return a stale value, if any."""
        with self._lock:
            self._end(key, future)
            return self._stale(key, policy)

    def _run(self, key: Key, fetch: Callable[[], bytes], policy: CachePolicy, future: Future[bytes]) -> None:
        try:
            value = fetch()
        except Unavailable as error:
            with self._lock:
                self._end(key, future)
                stale = self._stale(key, policy)
            future.set_exception(error) if stale is None else future.set_result(stale)
        except BaseException as error:
            with self._lock:
                if self._end(key, future):
                    self._entries.pop(key, None)
            future.set_exception(error)
        else:
            with self._lock:
                # An abandoned fetch may return an older value than a later fetch did, so it is not cached.
                if self._end(key, future) and policy.fresh > 0:
                    now = self._clock()
                    self._entries[key] = _Entry(value, now, now + policy.fresh)
            future.set_result(value)

    def _end(self, key: Key, future: Future[bytes]) -> bool:
        # Call it with the lock held. Returns False for an abandoned fetch.
        if self._fetches.get(key) is not future:
            return False
        del self._fetches[key]
        return True

    def _stale(self, key: Key, policy: CachePolicy) -> bytes | None:
        entry, now = self._entries.get(key), self._clock()
        if entry is None or now >= entry.fetched + policy.stale:
            return None
        entry.ask_again = max(entry.ask_again, min(now + _RETRY_SECONDS, entry.fetched + policy.stale))
        return entry.value
