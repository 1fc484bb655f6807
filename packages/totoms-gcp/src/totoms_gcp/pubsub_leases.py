"""Leases: who holds a message, until when, and how it is settled.

Pub/Sub takes an acknowledgement that comes after the deadline, and settles by it what another consumer is handling.
So a bus keeps the time itself, and refuses to settle what it does not hold any more.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Literal

from totoms.envelope import Received
from totoms.errors import BackendError, LeaseLost
from totoms_gcp.pubsub_calls import MOST_IDS, Calls

LONGEST_DELAY: Final = 600
"""Seconds: the longest deadline there is (https://cloud.google.com/pubsub/docs/lease-management)."""
_ON_THE_WAY: Final = 0.05
"""The part of a lease that may have passed when a message arrives."""


class Lease:
    """One message's lease.

    Attributes:
        path: The subscription it came from.
        ack_id: Names the lease; Pub/Sub's own.
        seconds: How long it lasts when it is given or extended.
        expires: When it ends, by `time.monotonic`.
        state: Whether it is held, settled, or somebody else's by now.
        leaving: Whether it is being given up, and no longer renewed.
        renewal: Done when the renewal that is under way is.
    """

    __slots__ = ("ack_id", "expires", "leaving", "path", "renewal", "seconds", "state")

    def __init__(self, path: str, ack_id: str, seconds: float, now: float) -> None:
        self.path = path
        self.ack_id = ack_id
        self.seconds = seconds
        self.expires = now + seconds * (1 - _ON_THE_WAY)
        self.state: Literal["held", "settled", "gone"] = "held"
        self.leaving = False
        self.renewal: asyncio.Future[None] | None = None

    @property
    def held(self) -> bool:
        """Whether it is neither settled nor over."""
        if self.state == "held" and time.monotonic() >= self.expires:
            self.state = "gone"
        return self.state == "held"


class Leases:
    """Settles and renews.

    Args:
        calls: To Pub/Sub.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def check(self, received: Received) -> None:
        """Raise `LeaseLost` for a message that is not held."""
        if not received.lease.held:
            raise _lost(received)

    async def ack(self, batch: Sequence[Received]) -> list[BackendError | None]:
        """Settle for good. What is settled already is not told twice."""
        for path, held in _by_path(batch).items():
            failed = await self._each(path, held, self._calls.acknowledge)
            _mark(held, failed, "settled")
        return [None if one.lease.state == "settled" else _lost(one) for one in batch]

    async def nack(self, received: Received, delay: float) -> None:
        """Let the lease end after `delay` seconds: that is when the message comes again, one attempt later."""
        lease: Lease = received.lease
        lease.leaving = True
        if lease.renewal is not None:  # else it might be answered last, and hide the message for longer
            await asyncio.wait({lease.renewal})
        self.check(received)
        # Whole seconds, rounded up: a pause is never shorter than was asked for.
        await self._end([received], min(math.ceil(delay), LONGEST_DELAY))

    async def release(self, batch: Sequence[Received]) -> None:
        """Give back. Pub/Sub counts an attempt: it cannot tell this from a failure."""
        await self._end(batch, 0)

    async def extend(self, batch: Sequence[Received]) -> list[BackendError | None]:
        """Renew, for as long as the lease was given at first."""
        staying = [one for one in batch if not one.lease.leaving]
        renewal = asyncio.get_running_loop().create_future()
        for one in staying:
            one.lease.renewal = renewal
        try:
            await self._renew(staying)
        finally:
            renewal.set_result(None)
            for one in staying:
                one.lease.renewal = None
        return [
            None if one.lease.held or one.lease.leaving or one.lease.state == "settled" else _lost(one) for one in batch
        ]

    async def _renew(self, batch: Sequence[Received]) -> None:
        for path, held in _by_path(batch).items():
            seconds, asked = held[0].lease.seconds, time.monotonic()
            failed = await self._each(path, held, partial(self._calls.modify, seconds=int(seconds)))
            for one in held:
                if one.lease.ack_id not in failed and one.lease.state == "held":
                    one.lease.expires = asked + seconds
            _mark(held, failed, "held")

    async def _end(self, batch: Sequence[Received], seconds: int) -> None:
        for path, held in _by_path(batch).items():
            failed = await self._each(path, held, partial(self._calls.modify, seconds=seconds))
            _mark(held, failed, "gone")

    async def _each(
        self,
        path: str,
        held: Sequence[Received],
        settle: Callable[[str, Sequence[str]], Awaitable[dict[str, BackendError | None]]],
    ) -> dict[str, BackendError | None]:
        ids = list(dict.fromkeys(one.lease.ack_id for one in held))
        parts = [ids[start : start + MOST_IDS] for start in range(0, len(ids), MOST_IDS)]
        failed: dict[str, BackendError | None] = {}
        for result in await asyncio.gather(*(settle(path, part) for part in parts)):
            failed.update(result)
        return failed


def _by_path(batch: Sequence[Received]) -> dict[str, list[Received]]:
    held: dict[str, list[Received]] = {}
    for one in batch:
        if one.lease.held:
            held.setdefault(one.lease.path, []).append(one)
    return held


def _mark(
    held: Sequence[Received], failed: dict[str, BackendError | None], state: Literal["held", "settled", "gone"]
) -> None:
    trouble: BackendError | None = None
    for one in held:
        if one.lease.ack_id not in failed:
            one.lease.state = state
        elif (error := failed[one.lease.ack_id]) is None:
            one.lease.state = "gone"
        else:
            trouble = error
    if trouble is not None:
        raise trouble  # whoever asked asks again; what is settled by now is not told twice


def _lost(received: Received) -> LeaseLost:
    name = received.subscription.name
    return LeaseLost(f"The lease on message {received.message_id} of {name!r} is over.", resource=name)
