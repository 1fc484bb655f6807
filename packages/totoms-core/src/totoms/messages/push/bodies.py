"""Read the bodies of push requests, with tight limits until the sender is verified.

Unverified bodies have little time and share little memory; when that is used up, the slowest is dropped. So a client
that sends incomplete bodies cannot block the broker. Reading takes no handler slot and does not delay the shutdown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from totoms.errors import Undecidable

PATIENCE: Final = 10.0
"""Seconds in which an unverified body must be complete."""
SHARE: Final = 256 * 1024
"""When memory is short, unverified bodies larger than this are dropped first."""
UNVERIFIED_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of all unverified bodies together."""
WAITING_BYTES: Final = 64 * 1024 * 1024
"""The most bytes of all verified bodies that are being read or wait for a slot."""
_LEAST: Final = 16 * 1024
"""The bytes that a smaller body counts as, so that the number of bodies is bounded as well."""
_RETRY_AFTER: Final = 1


class Budget:
    """A limit on the bytes held in memory.

    Args:
        most: The most bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.used = 0

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; return False if too few are left. The first reservation always succeeds."""
        if self.used and self.used + size > self._most:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Release `size` bytes."""
        self.used -= size


@dataclass(slots=True, eq=False)
class _Reading:
    deadline: asyncio.Timeout
    begun: float
    size: int = 0
    counted: int = _LEAST
    dropped: str = ""
    chunks: list[bytes] = field(default_factory=list)

    def speed(self, now: float) -> float:
        """Return bytes per second."""
        return self.size / max(now - self.begun, 0.001)


class Intake:
    """Reads bodies.

    Args:
        most: The largest body, in bytes.
        broker_patience: Seconds in which a verified body must be complete.
        patience: Seconds in which an unverified body must be complete.
        clock: Returns monotonic seconds.

    Attributes:
        waiting: The budget of verified bodies that are being read or wait for a slot.
    """

    def __init__(
        self,
        most: int,
        broker_patience: float,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waiting = Budget(WAITING_BYTES)
        self._most = most
        self._broker_patience = broker_patience
        self._patience = patience
        self._clock = clock
        self._unverified: set[_Reading] = set()
        self._unverified_bytes = 0
        self._verified: set[_Reading] = set()

    async def read(self, receive: Receive, *, verified: bool) -> bytes:
        """Return the body of a request; see `PushRequest.read`."""
        patience = self._broker_patience if verified else self._patience
        reading = _Reading(asyncio.timeout(patience), self._clock())
        self._begin(reading, verified=verified)
        try:
            async with reading.deadline:
                while await self._continue(reading, receive, verified=verified):
                    pass
                return reading.chunks[0] if len(reading.chunks) == 1 else b"".join(reading.chunks)
        except TimeoutError:
            raise Undecidable(reading.dropped or "The body did not arrive in time.", retry_after=_RETRY_AFTER) from None
        finally:
            self._end(reading, verified=verified)

    def stop(self) -> None:
        """Drop all bodies that are still being read. The broker sends their messages again."""
        for reading in (*self._unverified, *self._verified):
            _drop(reading, "The service is shutting down.")

    async def _continue(self, reading: _Reading, receive: Receive, *, verified: bool) -> bool:
        """Read the next chunk; return whether more follow."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size = reading.size + len(chunk)
        if size > self._most:
            # The rest of the body is not read, so the connection cannot be used again.
            raise HTTPException(413, "Request body too large", headers={"connection": "close"})
        if verified and not self.waiting.take(len(chunk)):
            raise Undecidable("Too many messages are waiting.", retry_after=_RETRY_AFTER)
        reading.size = size
        reading.chunks.append(chunk)
        if not verified:
            self._make_room(reading)
        if reading.dropped:
            raise TimeoutError
        return bool(message.get("more_body", False))

    def _begin(self, reading: _Reading, *, verified: bool) -> None:
        if verified:
            self._verified.add(reading)
        else:
            self._unverified.add(reading)
            self._unverified_bytes += reading.counted

    def _end(self, reading: _Reading, *, verified: bool) -> None:
        if verified:
            self._verified.discard(reading)
            self.waiting.give(reading.size)
        elif reading in self._unverified:
            self._remove(reading)

    def _remove(self, reading: _Reading) -> None:
        self._unverified.remove(reading)
        self._unverified_bytes -= reading.counted

    def _make_room(self, grown: _Reading) -> None:
        if not grown.dropped:
            self._unverified_bytes += max(grown.size, _LEAST) - grown.counted
            grown.counted = max(grown.size, _LEAST)
        while self._unverified_bytes > UNVERIFIED_BYTES:
            now = self._clock()
            slowest = min(self._unverified, key=lambda one: (one.size <= SHARE, one.speed(now), one.begun))
            self._remove(slowest)
            slowest.chunks.clear()
            _drop(slowest, "There are too many unverified bodies; this was the slowest.")


def _drop(reading: _Reading, why: str) -> None:
    reading.dropped = why
    if not reading.deadline.expired():
        reading.deadline.reschedule(0.0)
