"""Requests made by the thousand: gRPC's own futures, awaited without a thread and without blocking the loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
from google.api_core import exceptions as api
from google.pubsub_v1 import types

from totoms.errors import BackendError, Closed
from totoms_gcp.errors import translate
from totoms_gcp.pubsub_clients import RPC_SECONDS, Clients

MOST_IDS: Final = 1000
"""Acknowledgement ids in one request, which must be below 512 KiB (https://cloud.google.com/pubsub/quotas)."""

_PullRequest: Final = types.PullRequest.pb()
_PullResponse: Final = types.PullResponse.pb()
_AcknowledgeRequest: Final = types.AcknowledgeRequest.pb()
_ModifyAckDeadlineRequest: Final = types.ModifyAckDeadlineRequest.pb()
_typed: Final[Any] = api.from_grpc_error
_TOO_LATE: Final = "PERMANENT_FAILURE_INVALID_ACK_ID"


class Calls:
    """Pull, acknowledge, modify the deadline.

    Args:
        clients: Of the bus.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._methods: dict[str, Any] = {}
        self._settling: set[asyncio.Task[Any]] = set()

    async def pull(
        self, subscription: str, max_messages: int, *, timeout: float, at_once: bool = False
    ) -> Sequence[Any]:
        """Return messages; none when `timeout` is over. Cancelled, the request is, and what came is given back.

        Args:
            subscription: The path.
            max_messages: The most that may come.
            timeout: Seconds.
            at_once: Do not wait for the first.
        """
        request = _PullRequest(subscription=subscription, max_messages=max_messages, return_immediately=at_once)
        try:
            answer = await self._call(
                "Pull", request, _PullResponse, timeout,
                unheard=lambda late: self.give_back(subscription, [one.ack_id for one in late.received_messages]),
            )  # fmt: skip
        except api.DeadlineExceeded:
            return []
        except api.GoogleAPICallError as error:
            raise translate(error, "the subscription", subscription) from error
        received: Sequence[Any] = answer.received_messages
        return received

    async def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> dict[str, BackendError | None]:
        """Settle; return those that failed, None for one whose lease is gone. Raises where nobody knows of any."""
        request = _AcknowledgeRequest(subscription=subscription, ack_ids=ack_ids)
        return await self._settle("Acknowledge", request, subscription, ack_ids)

    async def modify(self, subscription: str, ack_ids: Sequence[str], seconds: int) -> dict[str, BackendError | None]:
        """Let leases end in `seconds` from now; return those that failed, as `acknowledge` does."""
        request = _ModifyAckDeadlineRequest(subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds)
        return await self._settle("ModifyAckDeadline", request, subscription, ack_ids)

    def give_back(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """Have messages that nobody takes delivered again at once; `flush` waits for that."""
        if ack_ids:
            request = _ModifyAckDeadlineRequest(subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=0)
            self._begin("ModifyAckDeadline", request)

    async def flush(self) -> None:
        """Wait until what was settled is, or has failed."""
        if self._settling:
            await asyncio.wait(set(self._settling))

    def _begin(self, method: str, request: Any) -> asyncio.Task[Any]:
        settling = asyncio.create_task(self._call(method, request, None, RPC_SECONDS))
        self._settling.add(settling)
        settling.add_done_callback(self._settled)
        return settling

    def _settled(self, settling: asyncio.Task[Any]) -> None:
        self._settling.discard(settling)
        if not settling.cancelled():
            settling.exception()  # whoever waited for it was told

    async def _settle(
        self, method: str, request: Any, subscription: str, ack_ids: Sequence[str]
    ) -> dict[str, BackendError | None]:
        # It goes on when whoever waits for it goes away: an acknowledgement that is on its way at shutdown counts.
        try:
            await asyncio.shield(self._begin(method, request))
        except api.GoogleAPICallError as error:
            ours = translate(error, "the subscription", subscription)
            told = dict(error.metadata or {})
            if not any(ack_id in told for ack_id in ack_ids):
                raise ours from error
            # Exactly-once delivery: an id that is not among them was settled.
            # https://cloud.google.com/pubsub/docs/exactly-once-delivery
            return {ack_id: None if told[ack_id] == _TOO_LATE else ours for ack_id in ack_ids if ack_id in told}
        return {}

    async def _call(
        self, method: str, request: Any, response: Any, timeout: float, unheard: Callable[[Any], None] | None = None
    ) -> Any:
        transport: Any = (await self._clients.subscriber()).transport
        call = self._methods.get(method)
        if call is None:
            call = self._methods[method] = transport.grpc_channel.unary_unary(
                f"/google.pubsub.v1.Subscriber/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString if response else None,
            )
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake(_rpc: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        routing = (("x-goog-request-params", f"subscription={request.subscription}"),)
        try:
            rpc = call.future(request, timeout=timeout, metadata=routing)
        except ValueError as error:  # the channel is closed
            raise Closed("The message bus is closed.") from error
        rpc.add_done_callback(wake)
        try:
            await done.wait()
        except asyncio.CancelledError:
            rpc.cancel()
            if unheard is not None and not rpc.cancelled() and rpc.exception() is None:  # the answer was quicker
                unheard(rpc.result())
            raise
        if rpc.cancelled():  # with the channel
            raise Closed("The message bus is closed.")
        failed = rpc.exception()
        if isinstance(failed, grpc.RpcError):
            raise _typed(failed) from failed
        return rpc.result()
