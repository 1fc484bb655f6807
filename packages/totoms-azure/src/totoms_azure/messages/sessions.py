"""Receiving from a subscription that keeps the order: sessions, one for each ordering key and each by its own link.

A session belongs to one consumer at a time, and hands over one message after the other: the next when that before it
is settled, the same again when it has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import orjson

from totoms.errors import BackendError, LeaseLost, Unavailable
from totoms.plugin import Received
from totoms_azure.messages.clients import is_no_session
from totoms_azure.messages.link import Link, LinkLease

_WAIT: Final = 0.1
_IDLE_SECONDS: Final = 0.5
"""How long a session without messages is kept, in case more come."""
_LONGEST_SECONDS: Final = 10.0
"""The longest that one is kept while it has messages: other sessions wait for their turn."""
_STATE_KEY: Final = "totoms-begun"


class SessionLink(Link):
    """A link to one session. It counts attempts that ended with the death of the session's consumer.

    Service Bus does not count these: the delivery count grows when a message is abandoned, or when the session's lock
    runs out. When the session is closed, as by a connection that breaks with its process, it stays the same. So a
    message that kills its consumer would come first for ever. Here the consumer writes into the session's state which
    message it begins with, and how many times that was begun before:
    https://learn.microsoft.com/azure/service-bus-messaging/message-sessions#impact-of-delivery-count

    The state is cleared when the session is given up, as it counts towards the entity's quota.
    """

    _counted = False
    _first: LinkLease | None = None
    _begun = 0

    async def count_attempt(self, received: Received) -> None:
        """Raise the attempt of a message that other consumers have begun before; note that it is begun now.

        Only the first message of the link is counted: the consumer before died while it handled that one.

        Raises:
            LeaseLost: The session is lost.
        """
        if self._counted:
            return
        self._counted = True
        lease: LinkLease = received.lease
        try:
            state = await self._state()
            found = _parse_state(state)
            if state and found is None:  # another program's state
                return
            number = lease.handle.sequence_number or 0
            before = found[1] if found is not None and found[0] == number else 0
            await self._write(number, before + 1)
        except LeaseLost:
            raise
        except BackendError:  # it is not counted, but handled
            return
        self._first, self._begun = lease, before + 1
        received.attempt = max(received.attempt, self._begun)

    async def release(self, lease: LinkLease) -> None:
        """Give one message back, with no attempt counted."""
        await super().release(lease)
        if self._first is lease:
            self._first = None
            with contextlib.suppress(BackendError):
                await self._write(lease.handle.sequence_number or 0, self._begun - 1)

    async def clear_state(self) -> None:
        """Clear the session's state, if this link wrote it and its message was settled."""
        if self._first is not None and not self.unsettled:
            self._first = None
            with contextlib.suppress(BackendError):
                await self._set_state(None)

    async def _state(self) -> bytes:
        async with self.turn() as receiver:
            session = receiver.session
            return b"" if session is None else bytes(await session.get_state() or b"")

    async def _set_state(self, state: bytes | None) -> None:
        async with self.turn() as receiver:
            if receiver.session is not None:
                await receiver.session.set_state(state)

    async def _write(self, number: int, begun: int) -> None:
        await self._set_state(orjson.dumps({_STATE_KEY: [number, begun]}))


def _parse_state(state: bytes) -> tuple[int, int] | None:
    try:
        number, begun = orjson.loads(state)[_STATE_KEY]
        return int(number), int(begun)
    except (ValueError, KeyError, TypeError):
        return None


class _Demand:
    """How many messages one `receive` still wants.

    Attributes:
        wanted: Set while it wants any.
    """

    def __init__(self, most: int) -> None:
        self._left = 0
        self.wanted = asyncio.Event()
        self.add(most)

    def add(self, number: int) -> None:
        """Change the number: up for new demand, -1 when a session provides a message."""
        self._left += number
        if self._left > 0:
            self.wanted.set()
        else:
            self.wanted.clear()


class SessionSource:
    """As many sessions at a time as messages are wanted and being handled.

    Args:
        make_link: Makes a link to the next session that has messages.
    """

    def __init__(self, make_link: Callable[[], SessionLink]) -> None:
        self._make_link = make_link
        self._sessions: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._demand = _Demand(0)
        self._ready: list[Received] = []
        self._news = asyncio.Event()
        self._accepting = asyncio.Lock()
        self._opening: Link | None = None
        self._failure: BackendError | None = None
        self._stopping = False

    async def receive(self, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages, each of another session. Return none if there are none after `wait` seconds."""
        self._demand.wanted.set()  # sessions that wait at the demand before look for this one
        self._demand = _Demand(most)
        for _ in range(self._busy + most - len(self._sessions)):
            session = asyncio.create_task(self._hold(), name="totoms session")
            self._sessions.add(session)
            session.add_done_callback(self._sessions.discard)
        try:
            async with asyncio.timeout(wait):
                while not (self._ready or self._failure or self._stopping):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        finally:
            self._demand = _Demand(0)
        if not self._ready and self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        batch, self._ready = self._ready[:most], self._ready[most:]
        return [one for one in batch if one.lease.held]

    async def stop(self) -> None:
        """Have a `receive` that waits return; give up sessions of which nothing is being handled."""
        self._stopping = True
        self._news.set()
        if self._opening is not None:  # otherwise it would lock a session that is never read
            self._opening.abort()
        ready, self._ready = self._ready, []
        for one in ready:
            with contextlib.suppress(BackendError):  # it comes again when its lock ends
                await one.lease.link.release(one.lease)

    async def close(self) -> None:
        """Give up all sessions."""
        await self.stop()
        for session in list(self._sessions):
            session.cancel()
        if self._sessions:
            await asyncio.wait(list(self._sessions))

    async def _hold(self) -> None:
        link = self._make_link()
        try:
            if await self._accept(link):
                await self._serve(link)
                await link.clear_state()
        except BackendError as error:
            if not self._stopping:
                self._failure = error
                self._news.set()
        finally:
            await link.close()

    async def _accept(self, link: Link) -> bool:
        # One task waits for the next session, not as many as there are slots: each takes a connection.
        async with self._accepting:
            while not self._stopping:
                self._opening = link
                try:
                    await link.open()
                except Unavailable as error:
                    if not is_no_session(error):
                        raise
                    await link.close()
                else:
                    return True
                finally:
                    self._opening = None
        return False

    async def _serve(self, link: SessionLink) -> None:
        began = idle_since = time.monotonic()
        while not self._stopping:
            demand = self._demand
            if not demand.wanted.is_set():
                if time.monotonic() - idle_since > _IDLE_SECONDS:
                    return
                await _wait(demand.wanted, _WAIT)
                continue
            demand.add(-1)
            self._busy += 1
            try:
                received = await self._next(link, demand)
                while link.busy:
                    link.changed.clear()
                    ends = min(lease.expires for lease in link.unsettled)
                    await _wait(link.changed, max(0.01, ends - time.monotonic()))
            except LeaseLost:  # of the session: the consumer that has it now gets its messages
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

    async def _next(self, link: SessionLink, demand: _Demand) -> Received | None:
        batch = await link.receive(1, _WAIT)
        if not batch:
            demand.add(1)
            return None
        await link.count_attempt(batch[0])
        if demand is not self._demand:  # that `receive` has returned; the message is kept only if another one waits
            if self._stopping or not self._demand.wanted.is_set():
                await link.release(batch[0].lease)
                return None
            self._demand.add(-1)
        self._ready.append(batch[0])
        self._news.set()
        return batch[0]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
