"""Publishing, by the client's own batches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.pubsub_v1 import PublisherClient

from totoms.envelope import Outgoing
from totoms.errors import BackendError, Closed, Unavailable
from totoms_gcp.errors import translate
from totoms_gcp.pubsub_clients import PUBLISH_SECONDS, Clients
from totoms_gcp.pubsub_names import topic_path

_Waiting = tuple[PublisherClient, str, Outgoing, "_Batch", int]
# The client's `publish` takes locks that its own threads hold, so it is called in this thread, which keeps the order.
_handing_over = ThreadPoolExecutor(max_workers=1, thread_name_prefix="totoms pubsub publish")
_STOPPED: Final = "Cannot publish on a stopped publisher."


class _Bell:
    """Tells an event loop of batches that are settled: of all that are until it hears, once.

    Google's client settles the messages of one request one after the other, in a thread of its own: to wake the loop
    for each of them takes longer than to publish them. It has no lock, at which the loop would have to wait for that
    thread: a batch is there before the bell is looked at, and the bell is still before batches are looked for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._settled: deque[_Batch] = deque()
        self._rings = False

    def ring(self, batch: _Batch) -> None:
        """Have the loop hear of a batch; in any thread."""
        self._settled.append(batch)
        if not self._rings:
            self._rings = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._rings = False
        while self._settled:
            self._settled.popleft().wake()


class _Batch:
    """Waits for messages that were published together: its publisher goes on when the last of them is settled."""

    def __init__(self, size: int, bell: _Bell) -> None:
        self.done: asyncio.Future[None] = bell.loop.create_future()
        self.due = bell.loop.time() + PUBLISH_SECONDS + 1.0
        self.settled: list[bool] = [False] * size
        self.errors: list[BaseException | None] = [None] * size
        self._left = size
        self._bell = bell
        self._guard = threading.Lock()

    def settle(self, index: int, error: BaseException | None) -> None:
        """Note what became of one message; in any thread."""
        self.settled[index], self.errors[index] = True, error
        with self._guard:
            self._left -= 1
            last = self._left == 0
        if last:
            self._bell.ring(self)

    def heard(self, index: int, future: Any) -> None:
        """Note what the client's future says."""
        self.settle(index, future.exception())

    def wake(self) -> None:
        """Have the publisher go on."""
        if not self.done.done():
            self.done.set_result(None)


class Publisher:
    """Publishes to topics.

    Args:
        clients: Of the bus.
        project: Of topics that are named without one.
    """

    def __init__(self, clients: Clients, project: str) -> None:
        self._clients = clients
        self._project = project
        self._waiting: list[_Waiting] = []
        self._under_way: dict[_Batch, None] = {}  # in the order in which they are due
        self._timer: asyncio.TimerHandle | None = None
        self._bell: _Bell | None = None

    async def publish(self, batch: Sequence[Outgoing]) -> list[BackendError | None]:
        """Publish messages; return for each, in order, what it alone met."""
        loop = asyncio.get_running_loop()
        if self._bell is None or self._bell.loop is not loop:
            self._bell, self._timer, self._under_way = _Bell(loop), None, {}
        together = _Batch(len(batch), self._bell)
        self._under_way[together] = None
        if self._timer is None:
            self._timer = loop.call_at(together.due, self._expire, loop)
        try:
            await self._send(batch, together, loop)
        finally:
            self._under_way.pop(together, None)
        results: list[BackendError | None] = []
        for index, outgoing in enumerate(batch):
            failed = together.errors[index] is not None or not together.settled[index]
            results.append(await self._told(outgoing, together, index) if failed else None)
        return results

    async def flush(self) -> None:
        """Wait until everything under way is settled."""
        while waiting := [batch.done for batch in self._under_way if not batch.done.done()]:
            await asyncio.wait(waiting)
        if self._timer is not None:
            self._timer.cancel()

    async def _send(self, batch: Sequence[Outgoing], together: _Batch, loop: asyncio.AbstractEventLoop) -> None:
        routes: dict[tuple[str, bool], tuple[PublisherClient, str]] = {}
        for index, outgoing in enumerate(batch):
            name, ordered = outgoing.topic or "", bool(outgoing.ordering_key)
            route = routes.get((name, ordered))
            if route is None:
                try:
                    topic = topic_path(self._project, name)
                    route = routes[name, ordered] = await self._clients.publisher(ordered=ordered), topic
                except BackendError as error:  # no such name, no credentials
                    together.settle(index, error)
                    continue
            self._waiting.append((*route, outgoing, together, index))
            if len(self._waiting) == 1:  # what comes until the loop gets to it goes over with it
                loop.call_soon(self._hand_over)
        await together.done

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for batch in list(self._under_way):
            if batch.due > loop.time():
                self._timer = loop.call_at(batch.due, self._expire, loop)
                return
            batch.wake()

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, []
        _handing_over.submit(_publish_all, waiting)

    async def _told(self, outgoing: Outgoing, together: _Batch, index: int) -> BackendError:
        topic, error = outgoing.topic or "", together.errors[index]
        if not together.settled[index]:
            return Unavailable(f"Publishing to {topic!r} took too long; it may still arrive.", resource=topic)
        if isinstance(error, BackendError):
            return error
        if isinstance(error, RuntimeError) and str(error) == _STOPPED:
            return _caused(Closed("The message bus is closed."), error)
        if outgoing.ordering_key:
            # The client refuses a key after an error. Whoever published knows of it now, and may go on.
            client = await self._clients.publisher(ordered=True)
            path = topic_path(self._project, topic)
            _handing_over.submit(client.resume_publish, path, outgoing.ordering_key)
        if isinstance(error, (api.GoogleAPIError, auth.GoogleAuthError, OSError)):
            return _caused(translate(error, "the topic", topic), error)
        # The client itself gave it up: one before it, with the same ordering key, could not be published.
        told = f"The message was not published to {topic!r}: {type(error).__name__}."
        return _caused(Unavailable(told, resource=topic), error)


def _publish_all(waiting: list[_Waiting]) -> None:
    for client, topic, outgoing, together, index in waiting:
        try:
            future = client.publish(topic, outgoing.body, outgoing.ordering_key or "", **outgoing.attributes)
        except Exception as error:
            together.settle(index, error)
        else:
            future.add_done_callback(partial(together.heard, index))


def _caused(ours: BackendError, theirs: BaseException | None) -> BackendError:
    ours.__cause__ = theirs
    return ours


def _forget() -> None:
    # Its thread is not there in a forked child.
    global _handing_over
    _handing_over = ThreadPoolExecutor(max_workers=1, thread_name_prefix="totoms pubsub publish")


os.register_at_fork(after_in_child=_forget)
