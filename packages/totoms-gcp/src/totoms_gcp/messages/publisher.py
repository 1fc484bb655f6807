"""Publishing, in the batches of Google's client.

Pub/Sub takes or refuses a request as a whole. So the messages of a refused request are sent again, each in a request of
its own: only the one that Pub/Sub does not take fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.pubsub_v1 import PublisherClient
from google.cloud.pubsub_v1.publisher.exceptions import PublishToPausedOrderingKeyException

from totoms.errors import BackendError, Closed, Unavailable
from totoms.plugin import Outgoing, Workers
from totoms_gcp.errors import translate
from totoms_gcp.messages.clients import PUBLISH_SECONDS, Clients
from totoms_gcp.messages.encoding import encode, exceeded_limit
from totoms_gcp.messages.naming import topic_path
from totoms_gcp.private_api import is_stopped

# The client's `publish` takes locks that its own threads hold, so one thread calls it, which keeps the order.
_publish_thread: Final = Workers(1, "totoms pubsub publish")
_SINGLE_REQUESTS: Final = 8
"""Messages that are sent one by one, at the same time."""


class _Waker:
    """Wakes an event loop for finished batches: once for all that have finished until it runs.

    Google's client settles the messages of one request one after the other, in its own thread, and waking the loop for
    each of them takes longer than publishing them. There is no lock for which the loop would have to wait: a batch
    is queued before the flag is read, and the flag is cleared before the queue is read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._finished: deque[_Batch] = deque()
        self._scheduled = False

    def wake(self, batch: _Batch) -> None:
        """Finish a batch on the loop. Callable in any thread."""
        self._finished.append(batch)
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        self._scheduled = False
        while self._finished:
            self._finished.popleft().finish()


class _Batch:
    """Messages that were published together; `done` is set when the last of them is settled."""

    def __init__(self, size: int, waker: _Waker) -> None:
        self.done: asyncio.Future[None] = waker.loop.create_future()
        self.settled = [False] * size
        self.errors: list[BaseException | None] = [None] * size
        self._left = size
        self._waker = waker
        self._lock = threading.Lock()

    def settle(self, index: int, error: BaseException | None) -> None:
        """Record the result of one message. Callable in any thread."""
        self.settled[index], self.errors[index] = True, error
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._waker.wake(self)

    def settle_by(self, index: int, future: Any) -> None:
        """Record the result of the client's future."""
        self.settle(index, future.exception())

    def finish(self) -> None:
        """Let the publisher continue."""
        if not self.done.done():
            self.done.set_result(None)


class _Entry(NamedTuple):
    client: PublisherClient
    topic: str
    outgoing: Outgoing
    batch: _Batch
    position: int


class Publisher:
    """Publishes to topics.

    Args:
        clients: Of the bus.
        project: Of topics that are named without one.
    """

    def __init__(self, clients: Clients, project: str) -> None:
        self._clients = clients
        self._project = project
        self._waiting: list[_Entry] = []
        self._in_flight: set[_Batch] = set()
        self._waker: _Waker | None = None

    async def publish(self, outgoing: Sequence[Outgoing]) -> list[BackendError | None]:
        """Publish messages; return the result of each, in order."""
        loop = asyncio.get_running_loop()
        if self._waker is None or self._waker.loop is not loop:
            self._waker, self._in_flight = _Waker(loop), set()
        batch = _Batch(len(outgoing), self._waker)
        self._in_flight.add(batch)
        timer = loop.call_later(PUBLISH_SECONDS + 1.0, batch.finish)
        try:
            await self._send(outgoing, batch, loop)
        finally:
            timer.cancel()
            self._in_flight.discard(batch)
        refused = _refused(outgoing, batch.errors)
        singly = await self._send_singly(outgoing, refused) if refused else {}
        results: list[BackendError | None] = []
        for index, one in enumerate(outgoing):
            failed = batch.errors[index] is not None or not batch.settled[index]
            error = await self._error(one, batch, index) if failed else None
            results.append(singly.get(index, error))
        return results

    async def flush(self) -> None:
        """Wait until everything that was published has its result."""
        while waiting := [batch.done for batch in self._in_flight if not batch.done.done()]:
            await asyncio.wait(waiting)

    async def _send(self, outgoing: Sequence[Outgoing], batch: _Batch, loop: asyncio.AbstractEventLoop) -> None:
        routes: dict[tuple[str, bool], tuple[PublisherClient, str]] = {}
        for index, one in enumerate(outgoing):
            too_large = exceeded_limit(one)
            if too_large is not None:
                batch.settle(index, too_large)
                continue
            name, ordered = one.topic or "", bool(one.ordering_key)
            route = routes.get((name, ordered))
            if route is None:
                try:
                    topic = topic_path(self._project, name)
                    route = routes[name, ordered] = await self._clients.publisher(ordered=ordered), topic
                except BackendError as error:  # no such name, no credentials
                    batch.settle(index, error)
                    continue
            self._waiting.append(_Entry(*route, one, batch, index))
            if len(self._waiting) == 1:  # messages published before the loop runs it are sent with it
                loop.call_soon(self._hand_over)
        await batch.done

    async def _send_singly(
        self, outgoing: Sequence[Outgoing], refused: Sequence[int]
    ) -> dict[int, BackendError | None]:
        """Send messages again, one per request; those of one ordering key one after the other."""
        by_key: dict[object, list[int]] = {}
        for index in refused:
            by_key.setdefault(outgoing[index].ordering_key or index, []).append(index)
        free = asyncio.Semaphore(_SINGLE_REQUESTS)
        results: dict[int, BackendError | None] = {}

        async def send(indexes: list[int]) -> None:
            async with free:
                for index in indexes:
                    results[index] = await self._send_one(outgoing[index])

        await asyncio.gather(*map(send, by_key.values()))
        return results

    async def _send_one(self, outgoing: Outgoing) -> BackendError | None:
        message = encode(outgoing.body, outgoing.attributes, outgoing.ordering_key)
        try:
            await self._clients.publish(topic_path(self._project, outgoing.topic or ""), message)
        except BackendError as error:
            return error
        return None

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, []
        _publish_thread.submit(_publish_all, waiting)

    async def _error(self, outgoing: Outgoing, batch: _Batch, index: int) -> BackendError:
        topic, error = outgoing.topic or "", batch.errors[index]
        if not batch.settled[index]:
            return Unavailable(f"Publishing to {topic!r} took too long; it may still arrive.", resource=topic)
        if isinstance(error, BackendError):
            return error
        if is_stopped(error):
            return _with_cause(Closed("The message bus is closed."), error)
        if outgoing.ordering_key:
            # The client refuses the key after an error. The publisher gets the error now, and may go on.
            client = await self._clients.publisher(ordered=True)
            path = topic_path(self._project, topic)
            _publish_thread.submit(client.resume_publish, path, outgoing.ordering_key)
        if isinstance(error, (api.GoogleAPIError, auth.GoogleAuthError, OSError)):
            return _with_cause(translate(error, "the topic", topic), error)
        # The client did not send it: one before it, with the same ordering key, could not be published.
        message = f"The message was not published to {topic!r}: {type(error).__name__}."
        return _with_cause(Unavailable(message, resource=topic), error)


def _publish_all(waiting: list[_Entry]) -> None:
    for client, topic, outgoing, batch, position in waiting:
        try:
            future = client.publish(topic, outgoing.body, outgoing.ordering_key or "", **outgoing.attributes)
        except Exception as error:
            batch.settle(position, error)
        else:
            future.add_done_callback(partial(batch.settle_by, position))


def _refused(outgoing: Sequence[Outgoing], errors: Sequence[BaseException | None]) -> list[int]:
    """Return which messages were in a refused request, or wait behind one of their ordering key that was."""
    refused: list[int] = []
    keys: set[str] = set()
    for index, (one, error) in enumerate(zip(outgoing, errors, strict=True)):
        key = one.ordering_key or ""
        if isinstance(error, api.InvalidArgument):
            keys.add(key)
        elif not (key in keys and isinstance(error, PublishToPausedOrderingKeyException)):
            continue
        refused.append(index)
    return refused


def _with_cause(error: BackendError, cause: BaseException | None) -> BackendError:
    error.__cause__ = cause
    return error
