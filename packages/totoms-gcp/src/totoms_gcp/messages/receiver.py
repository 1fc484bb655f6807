"""Pulling: as many messages as were asked for, and no more.

See docs/decisions/pubsub-pull.md for why it is not a stream.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from totoms.errors import BackendError, LeaseLost
from totoms.plugin import DeadLetterReason, DeadLetterStore, LeasingReceiver, Received, Subscription, lease_lost
from totoms_gcp.messages.clients import MAX_ACK_IDS, Clients
from totoms_gcp.messages.encoding import PubSubLease, decode_pulled
from totoms_gcp.messages.naming import REPLAY, companion
from totoms_gcp.messages.policies import MAX_DEADLINE
from totoms_gcp.messages.replays import Replays

_PULL_SECONDS: Final = 90.0
"""How long a pull stays open, however often `receive` returns meanwhile. Each time one ends, a message in transit may
be stranded."""
_TURN: Final = 1.0
"""Seconds for which replayed messages come first, then new ones, while there are both."""
_BRIEF_WAIT: Final = 0.1
"""Seconds to wait for a new message in its turn, while others are being replayed."""
_MIN_PAUSE: Final = 0.02
_MAX_PAUSE: Final = 0.2
"""Seconds between two pulls that found nothing, for a broker that does not wait."""

_Settle = Callable[[str, Sequence[str]], Awaitable[dict[str, BackendError | None]]]


class PubSubReceiver(LeasingReceiver):
    """Pulls one subscription, and the one to which its dead letters are replayed, which need not exist.

    Args:
        subscription: What is received.
        clients: Of the bus.
        path: The path of the subscription.
        lease_seconds: Its acknowledgement deadline.
        look_seconds: Seconds between two looks whether dead letters have been replayed for the first time.
        store: Keeps dead letters.
    """

    def __init__(
        self,
        subscription: Subscription,
        clients: Clients,
        path: str,
        lease_seconds: float,
        look_seconds: float,
        store: DeadLetterStore,
    ) -> None:
        super().__init__(subscription)
        self._clients = clients
        self._path = path
        self._lease_seconds = lease_seconds
        self._store = store
        replay = companion(path, REPLAY).subscription
        self._replays = Replays(clients, replay, partial(self._pull, replay), lease_seconds, look_seconds)
        self._new_messages_turn = False
        self._turn_ends = 0.0
        self._pulling: asyncio.Task[list[Received]] | None = None
        self._asked = 0

    async def stop(self) -> None:
        """Make `receive` return, now and later, and give back what was pulled and not received."""
        await super().stop()
        self._end_pull()
        self._replays.stop()

    # --- pulling ---

    async def _fetch(self, most: int, wait: float) -> list[Received]:
        until = time.monotonic() + wait
        replays = self._replays
        if replays.busy:
            if time.monotonic() > self._turn_ends:
                self._take_turns()
            if self._new_messages_turn:
                batch = await self._take(most, _BRIEF_WAIT)
                if batch or self.stopped:
                    return batch
                self._end_pull()
                self._take_turns()
            return await replays.receive(most)
        replays.look(most)
        looking = replays.arrival is not None
        batch = await self._take(most, (until if looking else min(until, replays.next_look)) - time.monotonic())
        if not batch and not self.stopped and (replayed := replays.take(most)):
            self._end_pull()  # what it might still bring would be more than was asked for
            self._new_messages_turn, self._turn_ends = False, time.monotonic() + _TURN
            return replayed
        return batch

    def _take_turns(self) -> None:
        self._new_messages_turn = not self._new_messages_turn
        self._turn_ends = time.monotonic() + _TURN

    async def _take(self, most: int, wait: float) -> list[Received]:
        """Return what the open pull brings, at most `most`; wait up to `wait` seconds, or for a replayed message."""
        if self._asked > most:
            self._end_pull()
        if self._pulling is None:
            if self.stopped:
                return []
            self._asked = most
            name = f"totoms pull of {self._path}"
            self._pulling = asyncio.create_task(self._pull(self._path, most), name=name)
            self._pulling.add_done_callback(_retrieve_error)
        pulling, arrival = self._pulling, self._replays.arrival
        waiting: set[asyncio.Future[Any]] = {pulling} if arrival is None else {pulling, arrival}
        await asyncio.wait(waiting, timeout=max(wait, 0.0), return_when=asyncio.FIRST_COMPLETED)
        if not pulling.done() or self._pulling is not pulling:  # it still waits, or was ended meanwhile
            return []
        self._pulling = None
        if pulling.cancelled():
            return []
        return [one for one in pulling.result() if one.lease.held]

    def _end_pull(self) -> None:
        """End the open pull; what it has brought, or brings just now, is given back."""
        pulling, self._pulling = self._pulling, None
        if pulling and not pulling.cancel() and not pulling.cancelled() and pulling.exception() is None:
            self._clients.give_back(self._path, [one.lease.handle for one in pulling.result()])

    async def _pull(self, path: str, most: int) -> list[Received]:
        until = time.monotonic() + _PULL_SECONDS
        pause = _MIN_PAUSE
        while (left := until - (began := time.monotonic())) > 0:
            if self.subscription.ordered:
                most = 1  # Pub/Sub holds back the next of a key until one is settled, but not within one answer
            messages = await self._clients.pull(path, most, timeout=left)
            if messages:
                return decode_pulled(messages, self.subscription, path, self._lease_seconds)
            waited = time.monotonic() - began > _MAX_PAUSE
            pause = _MIN_PAUSE if waited else min(2 * pause, _MAX_PAUSE)
            await asyncio.sleep(pause)
        return []

    # --- settling ---

    async def _ack(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return await _settle(held, self._clients.acknowledge)

    async def _nack(self, received: Received, delay: float) -> None:
        # Whole seconds, rounded up: a pause is never shorter than was asked for.
        seconds = min(math.ceil(delay), MAX_DEADLINE)
        (error,) = await _settle([received], partial(self._clients.modify, seconds=seconds))
        if error is not None:
            raise error

    async def _release(self, held: Sequence[Received]) -> None:
        # Pub/Sub counts an attempt: to it, giving back is the same as failing.
        for error in await _settle(held, partial(self._clients.modify, seconds=0)):
            if error is not None and not isinstance(error, LeaseLost):
                raise error

    async def _extend(self, held: Sequence[Received]) -> Sequence[BackendError | None]:
        return await _settle(held, partial(self._clients.modify, seconds=int(self._lease_seconds)))

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> str | None:
        return await self._store.keep(received, reason)


async def _settle(held: Sequence[Received], settle: _Settle) -> list[BackendError | None]:
    """Call `settle` for messages, by subscription and in requests of a size that Pub/Sub takes."""
    by_path: dict[str, list[Received]] = {}
    for one in held:
        lease: PubSubLease = one.lease
        by_path.setdefault(lease.path, []).append(one)
    results: dict[Received, BackendError | None] = {}

    async def send(path: str, part: Sequence[Received]) -> None:
        try:
            failed = await settle(path, [one.lease.handle for one in part])
        except BackendError as error:
            results.update(dict.fromkeys(part, error))
            return
        for one in part:
            results[one] = (failed[one.lease.handle] or lease_lost(one)) if one.lease.handle in failed else None

    requests = [
        send(path, messages[start : start + MAX_ACK_IDS])
        for path, messages in by_path.items()
        for start in range(0, len(messages), MAX_ACK_IDS)
    ]
    await asyncio.gather(*requests)
    return [results[one] for one in held]


def _retrieve_error(pulling: asyncio.Task[list[Received]]) -> None:
    if not pulling.cancelled():
        pulling.exception()  # retrieve the error, which no caller needs any more
