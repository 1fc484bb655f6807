"""The clients of Pub/Sub, one of each for a bus: made on first use, off the event loop, and closed with it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any, Final

import grpc
from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type
from google.auth import exceptions as auth
from google.cloud.pubsub_v1 import PublisherClient as BatchingClient
from google.cloud.pubsub_v1.types import BatchSettings, PublisherOptions
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from totoms.errors import Closed
from totoms.threads import run_in_thread
from totoms_gcp.errors import translate

RPC_SECONDS: Final = 10.0
"""The most that one request may take, but for a pull, which waits."""
PUBLISH_SECONDS: Final = 30.0
"""The most that publishing may take, with all that is tried again."""
RETRY: Final = Retry(
    predicate=if_exception_type(api.ServiceUnavailable, api.Aborted, api.InternalServerError, api.TooManyRequests),
    initial=0.1, maximum=2.0, timeout=20.0,
)  # fmt: skip
"""For what administers; a retry of our own instead of the client's, which tries for a minute."""

_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own are 1 s, growing to 2 minutes: a consumer must be back within seconds of its broker.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
# A lone message waits for 1 ms; what is published at the same time travels together.
_BATCHES: Final = BatchSettings(max_bytes=4_000_000, max_latency=0.001, max_messages=1000)
_PUBLISH_RETRY: Final = RETRY.with_timeout(PUBLISH_SECONDS)


class Clients:
    """Clients of one project. Constructing it does no I/O."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._made: dict[str, Any] = {}
        self._closed = False

    async def subscriber(self) -> SubscriberClient:
        """Return the client that pulls, settles and administers subscriptions."""
        made: Any = self._made.get("subscriber") or await run_in_thread(self._make, "subscriber", _subscriber)
        client: SubscriberClient = made
        return client

    async def publisher(self, *, ordered: bool = False) -> BatchingClient:
        """Return a client that publishes.

        Two of them, because one that keeps the order of keys tries for ever to publish what has none, too.

        Args:
            ordered: Whether it is for messages with an ordering key.
        """
        name, make = ("ordered publisher", _ordered) if ordered else ("publisher", _unordered)
        return self._made.get(name) or await run_in_thread(self._make, name, make)

    async def administer(self, work: Callable[[SubscriberClient], Any], what: str, resource: str) -> Any:
        """Do `work` with the subscriber in a thread; its errors become ours."""
        client = await self.subscriber()
        try:
            return await run_in_thread(work, client)
        except (api.GoogleAPIError, auth.GoogleAuthError) as error:
            raise translate(error, what, resource) from error

    async def administer_topics(self, work: Callable[[PublisherClient], Any], what: str, resource: str) -> Any:
        """Do `work` in a thread with a client that administers topics; its errors become ours."""
        client = self._made.get("topics") or await run_in_thread(self._make, "topics", _topics)
        try:
            return await run_in_thread(work, client)
        except (api.GoogleAPIError, auth.GoogleAuthError) as error:
            raise translate(error, what, resource) from error

    async def close(self) -> None:
        """Close the connections. A second call does nothing."""
        # In a thread, as the guard may be held by one that waits for credentials.
        made = await run_in_thread(self._take_all)
        await asyncio.gather(*(run_in_thread(_close, client) for client in made))

    def _take_all(self) -> list[Any]:
        with self._guard:
            self._closed = True
            made, self._made = self._made, {}
        return list(made.values())

    def _make(self, name: str, make: Callable[[], Any]) -> Any:
        with self._guard:
            if self._closed:
                raise Closed("The message bus is closed.")
            if name not in self._made:
                try:
                    self._made[name] = make()
                except (api.GoogleAPIError, auth.GoogleAuthError, OSError) as error:
                    raise translate(error, "the client", "Pub/Sub") from error
            return self._made[name]


def _subscriber() -> SubscriberClient:
    return SubscriberClient(transport=_transport(SubscriberGrpcTransport))


def _topics() -> PublisherClient:
    return PublisherClient(transport=_transport(PublisherGrpcTransport))


def _unordered() -> BatchingClient:
    options = PublisherOptions(retry=_PUBLISH_RETRY, timeout=PUBLISH_SECONDS)
    return BatchingClient(_BATCHES, options, transport=_transport(PublisherGrpcTransport))


def _ordered() -> BatchingClient:
    options = PublisherOptions(enable_message_ordering=True, retry=_PUBLISH_RETRY)
    return BatchingClient(_BATCHES, options, transport=_transport(PublisherGrpcTransport))


def _transport(kind: type[Any]) -> Any:
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    if emulator:
        channel = grpc.insecure_channel(emulator, options=_OPTIONS)
        return kind(host=emulator, channel=channel, credentials=None)

    def connect(host: str, **options: Any) -> grpc.Channel:
        return kind.create_channel(host, **{**options, "options": _OPTIONS})

    return kind(channel=connect)


def _close(client: Any) -> None:
    if isinstance(client, BatchingClient):
        client.stop()
    client.transport.close()
