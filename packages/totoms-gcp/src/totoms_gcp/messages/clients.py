"""The clients of Pub/Sub that a bus uses, and the calls by which it pulls and settles."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type
from google.cloud.pubsub_v1 import PublisherClient as BatchingClient
from google.cloud.pubsub_v1.types import BatchSettings, PublisherOptions
from google.pubsub_v1 import PublisherClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from totoms.errors import BackendError, Closed
from totoms.plugin import ClientRegistry, run_in_thread
from totoms_gcp.clients import grpc_transport
from totoms_gcp.errors import mapped_errors, translate
from totoms_gcp.private_api import PullMethods, pull_methods

RPC_SECONDS: Final = 10.0
"""The most that one request may take, except for a pull, which waits."""
PUBLISH_SECONDS: Final = 30.0
"""The most that publishing may take, with all retries."""
RETRY: Final = Retry(
    predicate=if_exception_type(api.ServiceUnavailable, api.Aborted, api.InternalServerError, api.TooManyRequests),
    initial=0.1,
    maximum=2.0,
    timeout=20.0,
)
"""For requests that administer; the client's own retry takes up to a minute."""
MAX_ACK_IDS: Final = 1000
"""Acknowledgement ids in one request, which must be below 512 KiB (https://cloud.google.com/pubsub/quotas)."""
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
# A single message waits for 1 ms; messages published at the same time travel together.
_BATCHES: Final = BatchSettings(max_bytes=4_000_000, max_latency=0.001, max_messages=1000)
_PUBLISH_RETRY: Final = RETRY.with_timeout(PUBLISH_SECONDS)
_TOO_LATE: Final = "PERMANENT_FAILURE_INVALID_ACK_ID"
"""The result of exactly-once delivery for an expired lease: https://cloud.google.com/pubsub/docs/exactly-once-delivery"""
_AcknowledgeRequest: Final = types.AcknowledgeRequest.pb()
_ModifyAckDeadlineRequest: Final = types.ModifyAckDeadlineRequest.pb()
_PullRequest: Final = types.PullRequest.pb()
_error_of: Final[Any] = api.from_grpc_error


class Clients:
    """The clients of one bus, each made in a thread when it is first needed. Constructing it does no I/O.

    Args:
        endpoint: The host to call; by default Pub/Sub's global one.
    """

    def __init__(self, endpoint: str = "") -> None:
        self._endpoint = endpoint
        self._registry = ClientRegistry()
        self._closed = False
        self._settling: set[asyncio.Task[Any]] = set()

    async def publisher(self, *, ordered: bool = False) -> BatchingClient:
        """Return the client that publishes in batches.

        There are two, because one that keeps the order of keys also retries messages without a key forever.

        Args:
            ordered: Whether it is for messages with an ordering key.
        """
        return await self._get(make_ordered_publisher if ordered else make_publisher, _stop)

    async def administer(self, work: Callable[[SubscriberClient], Any], what: str, resource: str) -> Any:
        """Call `work` in a thread with the client for subscriptions. `what` and `resource` are those of `translate`."""
        client = await self._get(make_subscriber, _close)
        with mapped_errors(what, resource):
            return await run_in_thread(work, client)

    async def administer_topics(self, work: Callable[[PublisherClient], Any], topic: str) -> Any:
        """Call `work` in a thread with a client for topics."""
        client = await self._get(make_topic_client, _close)
        with mapped_errors("the topic", topic):
            return await run_in_thread(work, client)

    async def publish(self, topic: str, message: types.PubsubMessage) -> str:
        """Publish one message in its own request; return Pub/Sub's id.

        Args:
            topic: The path.
            message: What to publish.
        """
        answer = await self.administer_topics(
            lambda client: client.publish(topic=topic, messages=[message], retry=RETRY, timeout=RPC_SECONDS), topic
        )
        return str(answer.message_ids[0])

    # --- calls made by the thousand: gRPC's futures, awaited without a thread and without blocking the loop ---

    async def pull(self, subscription: str, max_messages: int, *, timeout: float) -> Sequence[Any]:
        """Return messages; none when `timeout` is over. When it is cancelled, what has come is given back.

        Args:
            subscription: The path.
            max_messages: The most that may come.
            timeout: Seconds to wait for the first.
        """
        request = _PullRequest(subscription=subscription, max_messages=max_messages)
        methods = await self._methods()
        try:
            answer = await _call(
                methods.pull,
                request,
                timeout,
                dropped=lambda late: self.give_back(subscription, [one.ack_id for one in late.received_messages]),
            )
        except api.DeadlineExceeded:
            return []
        except api.GoogleAPICallError as error:
            raise translate(error, "the subscription", subscription) from error
        received: Sequence[Any] = answer.received_messages
        return received

    async def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> dict[str, BackendError | None]:
        """Settle messages of a subscription, at most `MAX_ACK_IDS`.

        Returns:
            Those that failed: the error, or None if the lease has expired.

        Raises:
            BackendError: It is unknown what became of any.
        """
        request = _AcknowledgeRequest(subscription=subscription, ack_ids=ack_ids)
        return await self._settle(request, ack_ids)

    async def modify(self, subscription: str, ack_ids: Sequence[str], seconds: int) -> dict[str, BackendError | None]:
        """Set leases to end in `seconds` from now. Returns and raises the same as `acknowledge`."""
        request = _ModifyAckDeadlineRequest(subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds)
        return await self._settle(request, ack_ids)

    def give_back(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Return messages for redelivery at once, without waiting for the answer; `flush` waits."""
        if ack_ids:
            self._begin(_ModifyAckDeadlineRequest(subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=0))

    async def flush(self) -> None:
        """Wait until the requests that settle are answered, or have failed."""
        if self._settling:
            await asyncio.wait(set(self._settling))

    async def close(self) -> None:
        """Close the connections."""
        self._closed = True
        # In a thread: the publishers wait for their batches, and another thread may be waiting for credentials.
        await run_in_thread(self._registry.close)

    async def _settle(self, request: Any, ack_ids: Sequence[str]) -> dict[str, BackendError | None]:
        # Cancelled, it continues: an acknowledgement that is on its way at shutdown counts.
        try:
            await asyncio.shield(self._begin(request))
        except api.GoogleAPICallError as error:
            mapped = translate(error, "the subscription", request.subscription)
            results = dict(error.metadata or {})
            if not any(ack_id in results for ack_id in ack_ids):
                raise mapped from error
            # With exactly-once delivery, an id that is not among the results was settled.
            return {ack_id: None if results[ack_id] == _TOO_LATE else mapped for ack_id in ack_ids if ack_id in results}
        return {}

    def _begin(self, request: Any) -> asyncio.Task[Any]:
        settling = asyncio.create_task(self._send(request))
        self._settling.add(settling)
        settling.add_done_callback(self._settled)
        return settling

    async def _send(self, request: Any) -> None:
        methods = await self._methods()
        method = methods.acknowledge if isinstance(request, _AcknowledgeRequest) else methods.modify_ack_deadline
        await _call(method, request, RPC_SECONDS)

    def _settled(self, settling: asyncio.Task[Any]) -> None:
        self._settling.discard(settling)
        if not settling.cancelled():
            settling.exception()  # marked as retrieved: `_settle` raises it, if it still waits

    async def _methods(self) -> PullMethods:
        found: PullMethods = await self._get(self._make_methods, lambda _: None)
        return found

    def _make_methods(self, endpoint: str) -> PullMethods:
        client = self._registry.get(make_subscriber, lambda: make_subscriber(endpoint), _close)
        return pull_methods(client.transport)

    async def _get(self, make: Callable[[str], Any], close: Callable[[Any], None]) -> Any:
        if self._closed:
            raise Closed("The message bus is closed.")
        found = self._registry.find(make)
        if found is None:
            with mapped_errors("the client", "Pub/Sub"):
                found = await run_in_thread(self._registry.get, make, lambda: self._make(make), close)
        return found

    def _make(self, make: Callable[[str], Any]) -> Any:
        if self._closed:  # while it waited for a thread
            raise Closed("The message bus is closed.")
        return make(self._endpoint)


async def _call(method: Any, request: Any, timeout: float, dropped: Callable[[Any], None] | None = None) -> Any:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_call: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(done.set)

    routing = (("x-goog-request-params", f"subscription={request.subscription}"),)
    try:
        call = method.future(request, timeout=timeout, metadata=routing)
    except ValueError as error:  # the channel is closed
        raise Closed("The message bus is closed.") from error
    call.add_done_callback(wake)
    try:
        await done.wait()
    except asyncio.CancelledError:
        call.cancel()
        if dropped is not None and not call.cancelled() and call.exception() is None:  # the answer was faster
            dropped(call.result())
        raise
    if call.cancelled():  # with the channel
        raise Closed("The message bus is closed.")
    failure = call.exception()
    if isinstance(failure, grpc.RpcError):
        raise _error_of(failure) from failure
    return call.result()


def make_subscriber(endpoint: str = "") -> SubscriberClient:
    """Return a client that pulls, settles and administers subscriptions."""
    return SubscriberClient(transport=_transport(SubscriberGrpcTransport, endpoint))


def make_topic_client(endpoint: str = "") -> PublisherClient:
    """Return a client that administers topics, and publishes without batches."""
    return PublisherClient(transport=_transport(PublisherGrpcTransport, endpoint))


def make_publisher(endpoint: str = "") -> BatchingClient:
    """Return a client that publishes messages without an ordering key."""
    options = PublisherOptions(retry=_PUBLISH_RETRY, timeout=PUBLISH_SECONDS)
    return BatchingClient(_BATCHES, options, transport=_transport(PublisherGrpcTransport, endpoint))


def make_ordered_publisher(endpoint: str = "") -> BatchingClient:
    """Return a client that publishes messages with an ordering key."""
    options = PublisherOptions(enable_message_ordering=True, retry=_PUBLISH_RETRY)
    return BatchingClient(_BATCHES, options, transport=_transport(PublisherGrpcTransport, endpoint))


def _transport(kind: type[Any], endpoint: str) -> Any:
    settings = {"host": endpoint} if endpoint else {}
    return grpc_transport(kind, os.environ.get("PUBSUB_EMULATOR_HOST", ""), _OPTIONS, **settings)


def _stop(client: BatchingClient) -> None:
    client.stop()
    _close(client)


def _close(client: Any) -> None:
    client.transport.close()
