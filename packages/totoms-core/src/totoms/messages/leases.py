"""Leases: the right to settle a message until a deadline.

Most brokers accept a late acknowledgement, and so settle a message that another consumer is handling by then. To
prevent that, the deadline of each lease is kept here, and a later settlement is rejected without asking the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Literal

from totoms.errors import BackendError, Closed, LeaseLost
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Subscription

_LONGEST_FETCH: Final = 2.0
"""Seconds that one fetch waits for messages. It cannot be cut short, so this is also how long a stop may take."""
_CLOSE_PATIENCE: Final = 4.0


class Lease:
    """The right to settle one delivery of a message.

    Args:
        handle: What the backend needs to settle the delivery, such as a receipt handle.
        seconds: How long the lease lasts from its start and from each renewal.
        begun: When it started, by `time.monotonic`; by default now. Pass the time of the receive request, so that the
            lease expires here no later than at the broker.

    Attributes:
        expires: When it expires, by `time.monotonic`.
        state: "held", "settled", or "lost": another consumer may have the message.
        leaving: Whether it is being nacked, and so no longer renewed.
        renewal: A future that resolves when the renewal in progress ends; None when there is none.
    """

    __slots__ = ("expires", "handle", "leaving", "renewal", "seconds", "state")

    def __init__(self, handle: Any, seconds: float, begun: float | None = None) -> None:
        self.handle = handle
        self.seconds = seconds
        self.expires = (time.monotonic() if begun is None else begun) + seconds
        self.state: Literal["held", "settled", "lost"] = "held"
        self.leaving = False
        self.renewal: asyncio.Future[None] | None = None

    @property
    def held(self) -> bool:
        """Whether it is neither settled nor lost. Marks an expired lease as lost."""
        if self.state == "held" and time.monotonic() >= self.expires:
            self.end("lost")
        return self.state == "held"

    def renewed(self, since: float) -> None:
        """Move the expiry after a renewal requested at `since`, by `time.monotonic`."""
        self.expires = max(self.expires, since + self.seconds)

    def end(self, state: Literal["settled", "lost"]) -> None:
        """Set the final state."""
        self.state = state


class LeasingReceiver(Receiver):
    """A receiver that tracks its leases. `Received.lease` is a `Lease`. Create it on the event loop.

    Settling a message twice does nothing the second time. Settling one whose lease expired raises `LeaseLost`. The
    operations that a backend implements get each held message once.

    A fetch is never cancelled, because a broker may have leased messages that are still on their way. When `receive` is
    cancelled or stopped, the fetch runs to its end, and the messages it returns are released.
    """

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(subscription)
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed = False
        self._fetching: asyncio.Task[list[Received]] | None = None
        self._abandoned: set[asyncio.Task[None]] = set()

    async def receive(self, max_messages: int, wait: float) -> list[Received]:
        """Lease up to `max_messages`; see `Receiver.receive`.

        Raises:
            Closed: The receiver is closed.
        """
        if self._closed:
            raise Closed("The message bus is closed.")
        until = time.monotonic() + wait
        if self._abandoned:  # of a call that was cancelled: a backend fetches once at a time
            await asyncio.wait(self._abandoned, timeout=wait)
        while not (self.stopped or self._abandoned):
            batch = await self._fetch_once(max_messages, min(max(0.0, until - time.monotonic()), _LONGEST_FETCH))
            if batch or time.monotonic() >= until:
                return batch
        return []

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called. A stopped receiver receives nothing any more."""
        return self._stopped.done()

    async def stop(self) -> None:
        """Make `receive` return nothing at once, now and later; release what a running fetch returns."""
        if not self.stopped:
            self._stopped.set_result(None)
        self._abandon()

    async def close(self) -> None:
        """Stop, and wait a few seconds until what abandoned fetches returned is released."""
        self._closed = True
        with contextlib.suppress(BackendError):  # the connection is closed anyway
            await self.stop()
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=_CLOSE_PATIENCE)

    async def _fetch_once(self, most: int, wait: float) -> list[Received]:
        fetching = self._fetching = asyncio.create_task(
            self._fetch(most, wait), name=f"totoms fetch from {self.subscription.name}"
        )
        try:
            waiting: set[asyncio.Future[Any]] = {fetching, self._stopped}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._abandon()
            raise
        if self._fetching is None:  # abandoned by `stop`
            return []
        self._fetching = None
        batch = fetching.result()
        for one in batch:  # the shortest, because one timer renews those of all sources
            self.lease_seconds = min(self.lease_seconds or one.lease.seconds, one.lease.seconds)
        return batch

    def _abandon(self) -> None:
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            releasing = asyncio.create_task(self._release_late(fetching))
            self._abandoned.add(releasing)
            releasing.add_done_callback(self._abandoned.discard)

    async def _release_late(self, fetching: asyncio.Task[list[Received]]) -> None:
        with contextlib.suppress(BackendError):  # what is not released is delivered again when its lease expires
            await self.release(await fetching)

    async def _sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or until `stop` is called."""
        await asyncio.wait({self._stopped}, timeout=seconds)

    async def ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Settle messages; see `Receiver.ack`.

        Raises:
            BackendError: It is unknown whether some are settled. Call again with all of them.
        """
        held = _held(batch)
        failure = _note(held, await self._ack(held), "settled") if held else None
        if failure is not None:
            raise failure
        return [None if one.lease.state == "settled" else lease_lost(one) for one in batch]

    async def nack(self, received: Received, delay: float) -> None:
        """Have the message delivered again; see `Receiver.nack`."""
        lease: Lease = received.lease
        lease.leaving = True
        if lease.renewal is not None:  # a renewal that ends after the nack would delay the redelivery
            await asyncio.wait({lease.renewal})
        if self._check(received):
            await self._nack(received, delay)
            _settle(lease)

    async def release(self, batch: Sequence[Received]) -> None:
        """Give back messages that no handler has started; see `Receiver.release`."""
        held = _held(batch)
        if held:
            await self._release(held)
            for one in held:
                _settle(one.lease)

    async def extend(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Renew leases; see `Receiver.extend`."""
        staying = [one for one in _held(batch) if not one.lease.leaving]
        if staying:
            since = time.monotonic()
            renewal = asyncio.get_running_loop().create_future()
            for one in staying:
                one.lease.renewal = renewal
            try:
                failure = _note(staying, await self._extend(staying), "held", since)
            finally:
                renewal.set_result(None)
                for one in staying:
                    one.lease.renewal = None
            if failure is not None:
                raise failure
        return [
            None if one.lease.held or one.lease.leaving or one.lease.state == "settled" else lease_lost(one)
            for one in batch
        ]

    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        """Store the message as a dead letter, then settle it; see `Receiver.dead_letter`."""
        letter_id = None
        if self._check(received):
            letter_id = await self._dead_letter(received, reason)
            if received.lease.state == "held":
                (lost,) = await self.ack([received])
                if lost is not None:
                    raise lost
        return letter_id

    def _check(self, received: Received) -> bool:
        """Return False if the message is settled already; raise LeaseLost if its lease expired."""
        if received.lease.state == "settled":
            return False
        if not received.lease.held:
            raise lease_lost(received)
        return True

    # --- implemented by a backend ---

    @abstractmethod
    async def _fetch(self, most: int, wait: float) -> list[Received]:
        """Lease up to `most` messages. Return none if there are none, after `wait` seconds or earlier.

        It is called again until `receive` has messages. One call runs at a time, and to its end.
        """

    @abstractmethod
    async def _ack(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        """Settle messages. Return for each None, LeaseLost, or another error if it may or may not be settled."""

    @abstractmethod
    async def _nack(self, received: Received, delay: float) -> None:
        """Have it delivered again after `delay` seconds, rounded up to the broker's unit."""

    @abstractmethod
    async def _release(self, held: Sequence[Received]) -> None:
        """Give back messages without counting an attempt."""

    @abstractmethod
    async def _extend(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        """Renew leases, with the same results as `_ack`."""

    @abstractmethod
    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        """Store it as a dead letter. It is acked afterwards, unless this ends its lease. Return the letter's id."""


def lease_lost(received: Received) -> LeaseLost:
    """Return the error for a message whose lease has expired."""
    name = received.subscription.name
    return LeaseLost(f"The lease on message {received.message_id} of {name!r} has expired.", resource=name)


def _held(batch: Sequence[Received]) -> list[Received]:
    """Return the messages that are held, one for each lease."""
    return list({one.lease: one for one in batch if one.lease.held}.values())


def _settle(lease: Lease) -> None:
    if lease.state == "held":
        lease.end("settled")


def _note(
    held: Sequence[Received],
    results: Sequence[BackendError | None],
    then: Literal["held", "settled"],
    since: float = 0.0,
) -> BackendError | None:
    """Record each result in its lease; return an error other than LeaseLost, if there is one."""
    failure: BackendError | None = None
    for one, result in zip(held, results, strict=True):
        lease: Lease = one.lease
        if lease.state == "settled":  # by another request in the meantime
            continue
        if isinstance(result, LeaseLost):
            lease.end("lost")
        elif result is not None:
            failure = result
        elif then == "settled":
            lease.end("settled")
        else:
            lease.renewed(since)
    return failure
