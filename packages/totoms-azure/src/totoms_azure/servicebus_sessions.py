"""Receiving from what keeps an order: sessions, each of one ordering key and each by a lane of its own.

A session belongs to one consumer at a time, and hands over one message after the other: the next when that before it
is settled, the same again when it has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from totoms.envelope import Received
from totoms.errors import BackendError, LeaseLost, Unavailable
from totoms_azure.servicebus_lanes import Lane

_LOOK: Final = 0.1
_IDLE_SECONDS: Final = 0.5
"""How long a session without messages is kept, in case there are more."""
_LONGEST_SECONDS: Final = 10.0
"""How long one is kept at the most while it has messages: others want their turn."""
_NO_SESSION: Final = "OperationTimeoutError"


class _Asked:
    """What one `receive` still asks for.

    Attributes:
        open: Set while that is something.
    """

    def __init__(self, most: int) -> None:
        self._left = 0
        self.open = asyncio.Event()
        self.add(most)

    def add(self, number: int) -> None:
        """Ask for more, or, with -1, for one less: somebody sees to it."""
        self._left += number
        if self._left > 0:
            self.open.set()
        else:
            self.open.clear()


class SessionSource:
    """As many sessions at a time as there are messages asked for and being handled.

    Args:
        make_lane: Makes a lane to the next session that has messages.
    """

    def __init__(self, make_lane: Callable[[], Lane]) -> None:
        self._make_lane = make_lane
        self._holders: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._asked = _Asked(0)
        self._ready: list[Received] = []
        self._news = asyncio.Event()
        self._accepting = asyncio.Lock()
        self._opening: Lane | None = None
        self._failure: BackendError | None = None
        self._stopping = False

    async def receive(self, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages, each of another session; wait up to `wait` seconds for the first."""
        self._stopping = False
        self._asked.open.set()  # whoever waits at the one before looks for this one
        self._asked = _Asked(most)
        for _ in range(self._busy + most - len(self._holders)):
            holder = asyncio.create_task(self._hold(), name="totoms session")
            self._holders.add(holder)
            holder.add_done_callback(self._holders.discard)
        try:
            async with asyncio.timeout(wait):
                while not (self._ready or self._failure or self._stopping):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        finally:
            self._asked = _Asked(0)
        if not self._ready and self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        batch, self._ready = self._ready[:most], self._ready[most:]
        return [one for one in batch if one.lease.held]

    async def stop(self) -> None:
        """Have a `receive` that waits return; sessions of which nothing is being handled are given up."""
        self._stopping = True
        self._news.set()
        if self._opening is not None:  # or it would be given the next session, for nobody
            self._opening.hang_up()
        ready, self._ready = self._ready, []
        for one in ready:
            with contextlib.suppress(BackendError):  # not put back: it comes again when its lock is over
                await one.lease.lane.release(one.lease)

    async def close(self) -> None:
        """Give up all sessions."""
        await self.stop()
        for holder in list(self._holders):
            holder.cancel()
        if self._holders:
            await asyncio.wait(list(self._holders))

    async def _hold(self) -> None:
        lane = self._make_lane()
        try:
            if await self._accept(lane):
                await self._serve(lane)
        except BackendError as error:
            if not self._stopping:
                self._failure = error
                self._news.set()
        finally:
            await lane.close()

    async def _accept(self, lane: Lane) -> bool:
        # One waits for the next session, and not as many as there are slots: each takes a connection.
        async with self._accepting:
            while not self._stopping:
                self._opening = lane
                try:
                    await lane.open()
                except Unavailable as error:
                    if type(error.__cause__).__name__ != _NO_SESSION:
                        raise
                    await lane.close()
                else:
                    return True
                finally:
                    self._opening = None
        return False

    async def _serve(self, lane: Lane) -> None:
        began = idle_since = time.monotonic()
        while not self._stopping:
            asked = self._asked
            if not asked.open.is_set():
                if time.monotonic() - idle_since > _IDLE_SECONDS:
                    return
                await self._until_wanted(asked)
                continue
            asked.add(-1)
            self._busy += 1
            try:
                received = await self._next(lane, asked)
                if received is not None:
                    await self._until_settled(lane, received)
            except LeaseLost:  # of the session: whoever has it by now has its messages
                return
            finally:
                self._busy -= 1
            now = time.monotonic()
            if received is not None:
                idle_since = now
            elif now - idle_since > _IDLE_SECONDS:
                return
            if now - began > _LONGEST_SECONDS:
                return

    async def _until_wanted(self, asked: _Asked) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await asked.open.wait()

    async def _next(self, lane: Lane, asked: _Asked) -> Received | None:
        batch = await lane.receive(1, _LOOK)
        if not batch:
            asked.add(1)
            return None
        if asked is not self._asked:  # who asked has gone; it is kept only if somebody else asks
            if self._stopping or not self._asked.open.is_set():
                await lane.release(batch[0].lease)
                return None
            self._asked.add(-1)
        self._ready.append(batch[0])
        self._news.set()
        return batch[0]

    async def _until_settled(self, lane: Lane, received: Received) -> None:
        while lane.unsettled:
            lane.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, received.lease.expires - time.monotonic())):
                    await lane.changed.wait()
            for lease in list(lane.unsettled):
                _ = lease.alive  # notes when it is over
