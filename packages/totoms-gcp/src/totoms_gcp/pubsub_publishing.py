"""Publishing, by the client's own batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.pubsub_v1 import PublisherClient
from google.cloud.pubsub_v1.publisher.exceptions import PublishToPausedOrderingKeyException

from totoms.envelope import Outgoing
from totoms.errors import BackendError, Closed, Unavailable
from totoms_gcp.errors import translate
from totoms_gcp.pubsub_clients import PUBLISH_SECONDS, Clients
from totoms_gcp.pubsub_names import topic_path

_Waiting = tuple[PublisherClient, str, Outgoing, "asyncio.Future[Future[str]]"]
# The client's `publish` takes locks that its own threads hold, so it is called in this thread, which keeps the order.
_handing_over: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="totoms pubsub publish")


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

    async def publish(self, batch: Sequence[Outgoing]) -> list[BackendError | None]:
        """Publish messages; return for each, in order, what it alone met."""
        try:
            handed = [await self._hand_over(outgoing) for outgoing in batch]
        except BackendError as error:  # no such name, no credentials: the same for all of a batch
            return [error] * len(batch)
        return list(await asyncio.gather(*map(self._finish, batch, handed)))

    async def _hand_over(self, outgoing: Outgoing) -> asyncio.Future[Future[str]]:
        topic = topic_path(self._project, outgoing.topic or "")
        client = await self._clients.publisher(ordered=bool(outgoing.ordering_key))
        loop = asyncio.get_running_loop()
        handed: asyncio.Future[Future[str]] = loop.create_future()
        self._waiting.append((client, topic, outgoing, handed))
        if len(self._waiting) == 1:  # what comes until the thread is free goes over with it
            loop.call_soon(self._start, loop)
        return handed

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []
        _handing_over.submit(_publish_all, waiting, loop)

    async def _finish(self, outgoing: Outgoing, handed: asyncio.Future[Future[str]]) -> BackendError | None:
        topic = outgoing.topic or ""
        try:
            sent = await handed
        except RuntimeError as error:  # the client was stopped
            return _caused(Closed("The message bus is closed."), error)
        except (api.GoogleAPIError, ValueError, TypeError) as error:
            return _caused(translate(error, "the topic", topic), error)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS + 1.0):
                await asyncio.wrap_future(sent)
        except TimeoutError:
            return Unavailable(f"Publishing to {topic!r} took too long; it may still arrive.", resource=topic)
        except (PublishToPausedOrderingKeyException, RuntimeError) as error:  # RuntimeError: its batch was given up
            await self._resume(outgoing)
            told = f"A message before it, with the same ordering key, could not be published to {topic!r}."
            return _caused(Unavailable(told, resource=topic), error)
        except (api.GoogleAPIError, auth.GoogleAuthError, OSError) as error:
            await self._resume(outgoing)
            return _caused(translate(error, "the topic", topic), error)
        return None

    async def _resume(self, outgoing: Outgoing) -> None:
        # The client refuses a key after an error. Whoever published knows of it now, and may go on.
        if not outgoing.ordering_key:
            return
        client = await self._clients.publisher(ordered=True)
        topic = topic_path(self._project, outgoing.topic or "")
        _handing_over.submit(_unpause, client, topic, outgoing.ordering_key or "")


def _publish_all(waiting: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
    done: list[tuple[asyncio.Future[Future[str]], Any]] = []
    for client, topic, outgoing, handed in waiting:
        try:
            done.append((handed, _publish_one(client, topic, outgoing)))
        except Exception as error:
            done.append((handed, error))
    loop.call_soon_threadsafe(_tell, done)


def _publish_one(client: PublisherClient, topic: str, outgoing: Outgoing) -> Any:
    return client.publish(topic, outgoing.body, outgoing.ordering_key or "", **outgoing.attributes)


def _tell(done: list[tuple[asyncio.Future[Future[str]], Any]]) -> None:
    for handed, result in done:
        if handed.cancelled():
            continue
        if isinstance(result, Exception):
            handed.set_exception(result)
        else:
            handed.set_result(result)


def _unpause(client: PublisherClient, topic: str, key: str) -> None:
    client.resume_publish(topic, key)


def _caused(ours: BackendError, theirs: Exception) -> BackendError:
    ours.__cause__ = theirs
    return ours
