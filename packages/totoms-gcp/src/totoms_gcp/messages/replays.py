"""Replayed dead letters: pulled from a subscription of their own, which need not exist.

While nothing is being replayed, one pull waits there for a single message. When it has come, messages are pulled as new
ones are, as many at a time as the service can handle. What has come and is not taken yet has its lease renewed, because
Pub/Sub counts a lease that ends as an attempt.

Nothing here sets ``return_immediately``: with it Pub/Sub may return no message although there are some
(https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#google.pubsub.v1.PullRequest).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from totoms.errors import BackendError
from totoms.plugin import Received
from totoms_gcp.messages.clients import Clients

_WAIT: Final = 0.25
"""Seconds to wait for the next messages while some are being replayed."""


class Replays:
    """The replayed messages of one subscription.

    Args:
        clients: Of the bus.
        path: The path of the subscription to the replay topic.
        pull: Pulls at most so many messages from it, and waits for the first.
        lease_seconds: The acknowledgement deadline.
        look_seconds: Seconds until the next try where the subscription does not exist.

    Attributes:
        busy: Whether messages are being replayed now.
        next_look: When the next pull may begin, by `time.monotonic`.
        arrival: Done when the open pull has ended; None where none is open.
    """

    def __init__(
        self,
        clients: Clients,
        path: str,
        pull: Callable[[int], Awaitable[list[Received]]],
        lease_seconds: float,
        look_seconds: float,
    ) -> None:
        self.busy = False
        self.next_look = 0.0
        self.arrival: asyncio.Future[None] | None = None
        self._clients = clients
        self._path = path
        self._pull = pull
        self._lease_seconds = lease_seconds
        self._look_seconds = look_seconds
        self._ready: list[Received] = []
        self._pulling: asyncio.Task[None] | None = None

    def look(self, most: int) -> None:
        """Begin a pull, if it is time for one and nothing waits to be taken."""
        if self._pulling is None and not self._ready and (self.busy or time.monotonic() >= self.next_look):
            self.arrival = asyncio.get_running_loop().create_future()
            number = most if self.busy else 1
            self._pulling = asyncio.create_task(self._run(number, self.arrival), name=f"totoms pull of {self._path}")

    def take(self, most: int) -> list[Received]:
        """Return what has come, at most `most` messages."""
        held = [one for one in self._ready if one.lease.held]
        taken, self._ready = held[:most], held[most:]
        return taken

    async def receive(self, most: int) -> list[Received]:
        """Return the next messages. Where none come soon, nothing is being replayed any more."""
        self.look(most)
        if not self._ready and self.arrival is not None:
            await asyncio.wait({self.arrival}, timeout=_WAIT)
        taken = self.take(most)
        self.busy = bool(taken)
        return taken

    def stop(self) -> None:
        """End the pull, and give back what was not taken."""
        self.busy, self.next_look = False, 0.0
        pulling, self._pulling = self._pulling, None
        if pulling is not None:
            pulling.cancel()
        ready, self._ready = self._ready, []
        self._clients.give_back(self._path, [one.lease.handle for one in ready])

    async def _run(self, most: int, arrival: asyncio.Future[None]) -> None:
        try:
            pulled = await self._pull(most)
            self._ready += pulled
            self.busy = self.busy or bool(pulled)
        except BackendError:
            # The subscription does not exist, as nothing was ever replayed, or may not be seen. If the broker is away,
            # the pull of the subscription itself reports it.
            self.next_look = time.monotonic() + self._look_seconds
            return
        finally:
            arrival.set_result(None)
            if self._pulling is asyncio.current_task():
                self._pulling, self.arrival = None, None
        while any(one.lease.held for one in self._waiting(pulled)):
            await asyncio.sleep(self._lease_seconds / 3)
            if waiting := self._waiting(pulled):
                with contextlib.suppress(BackendError):
                    await self._renew(waiting)

    def _waiting(self, pulled: list[Received]) -> list[Received]:
        return [one for one in pulled if one in self._ready]

    async def _renew(self, waiting: list[Received]) -> None:
        since = time.monotonic()
        failed = await self._clients.modify(self._path, [one.lease.handle for one in waiting], int(self._lease_seconds))
        for one in waiting:
            if one.lease.handle not in failed:
                one.lease.renewed(since)
