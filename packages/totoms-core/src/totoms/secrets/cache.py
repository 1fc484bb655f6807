"""Cache secrets, with one fetch at a time for each, and serve stale values while the store is unavailable."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, TypeAlias

from totoms.errors import Unavailable
from totoms.single_flight import SingleFlight

Key: TypeAlias = "tuple[str, str | None]"
"""Name and version."""
_RETRY_SECONDS: Final = 10.0
"""The least seconds between a failed fetch and the next, while a stale value is served."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long to serve a value after it was fetched, in seconds.

    Attributes:
        fresh: Without fetching it again; infinity for a pinned version, which never changes.
        stale: While the store is unavailable.
    """

    fresh: float
    stale: float


class SecretCache:
    """The cache of all secrets managers of one environment in this process. Thread-safe.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[Key, SingleFlight[bytes]] = {}

    def get(
        self, key: Key, fetch: Callable[[], bytes], policy: CachePolicy, *, anew: bool = False
    ) -> bytes | Future[bytes]:
        """Return the cached value, or a future of the fetch in progress; start one if there is none.

        Args:
            key: Which secret.
            fetch: Reads it from the store.
            policy: How long to serve a cached value.
            anew: Return a future even if the cached value is fresh.

        Raises:
            Unavailable: The system cannot start a thread.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries.setdefault(key, SingleFlight(failed_cooldown=_RETRY_SECONDS, clock=self._clock))
        value, age = entry.result, entry.age()
        if value is not None and not anew and (age < policy.fresh or (age < policy.stale and entry.cooldown_left())):
            return value
        try:
            return entry.in_thread(lambda: self._fetched(key, entry, fetch, policy), "totoms-secret")
        except RuntimeError as error:
            raise Unavailable(f"The secret {key[0]!r} cannot be read now: {error}.", resource=key[0]) from None

    def stale(self, key: Key, future: Future[bytes], policy: CachePolicy) -> bytes | None:
        """Return the value to serve after a fetch that failed or takes too long, or None. Abandon the fetch."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.abandon(future)
        return entry.result if entry.age() < policy.stale else None

    def _fetched(self, key: Key, entry: SingleFlight[bytes], fetch: Callable[[], bytes], policy: CachePolicy) -> bytes:
        keep = policy.fresh > 0
        try:
            return fetch()
        except BaseException as error:
            keep = isinstance(error, Unavailable) and entry.result is not None
            raise
        finally:
            if not keep and self._entries.get(key) is entry:
                del self._entries[key]
