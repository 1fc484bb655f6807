"""Stands in for Pub/Sub: the real protocol, and what Google's emulator lacks.

Back-off by a subscription's retry policy, redelivery in order, dead-letter policies, exactly-once acknowledgements,
methods that are denied, and faults. It lives in a thread of its own, with a loop of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from google.pubsub_v1 import types
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

_POLL_SECONDS = 30.0
_OPTIONS = (
    ("grpc.max_receive_message_length", 11_000_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # else two of them may share a port, and each gets some of the other's calls
)
_MOST_REQUEST_BYTES = 10_000_000


@dataclass(eq=False)
class Entry:
    """One message in one subscription."""

    message: Any
    deliveries: int = 0
    due: float = 0.0
    ack_id: str = ""
    lease_until: float = 0.0

    @property
    def leased(self) -> bool:
        return bool(self.ack_id)


@dataclass(eq=False)
class Backlog:
    """A subscription and what it has not been rid of."""

    config: Any
    entries: list[Entry] = field(default_factory=list)


class PubSubStandIn:
    """Use it with ``with``.

    Attributes:
        port: Where it listens.
        denied: Methods that are answered PERMISSION_DENIED, such as ``CreateTopic``.
        faults: From method to the status codes with which its next calls are answered.
        delays: From method to the seconds after which it is answered.
        refused: What no message's body may contain: a request with such a message is INVALID_ARGUMENT.
        calls: How often each method was called.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.denied: set[str] = set()
        self.faults: dict[str, list[grpc.StatusCode]] = defaultdict(list)
        self.delays: dict[str, float] = defaultdict(float)
        self.refused: set[bytes] = set()
        self.calls: Counter[str] = Counter()
        self.topics: dict[str, Any] = {}
        self.subscriptions: dict[str, Backlog] = {}
        self._ids = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pubsub stand-in", daemon=True)

    def __enter__(self) -> PubSubStandIn:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(0), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._changed = asyncio.Condition()
        self._server = grpc.aio.server(options=_OPTIONS)
        services: dict[str, dict[str, Any]] = {
            "Publisher": {
                "CreateTopic": types.Topic,
                "GetTopic": types.GetTopicRequest,
                "Publish": types.PublishRequest,
                "ListTopicSubscriptions": types.ListTopicSubscriptionsRequest,
            },
            "Subscriber": {
                "CreateSubscription": types.Subscription,
                "GetSubscription": types.GetSubscriptionRequest,
                "ListSubscriptions": types.ListSubscriptionsRequest,
                "UpdateSubscription": types.UpdateSubscriptionRequest,
                "Pull": types.PullRequest,
                "Acknowledge": types.AcknowledgeRequest,
                "ModifyAckDeadline": types.ModifyAckDeadlineRequest,
                "DeleteSubscription": types.DeleteSubscriptionRequest,
            },
        }
        for service, names in services.items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    self._method(name), kind.pb().FromString, lambda answer: answer.SerializeToString()
                )
                for name, kind in names.items()
            }
            generic = grpc.method_handlers_generic_handler(f"google.pubsub.v1.{service}", handlers)
            self._server.add_generic_rpc_handlers((generic,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    def _method(self, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        work = getattr(self, f"_{name}")

        async def run(request: Any, context: Any) -> Any:
            self.calls[name] += 1
            if name in self.denied:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "denied by the test")
            if self.faults[name]:
                await context.abort(self.faults[name].pop(0), "as the test says")
            if self.delays[name]:
                await asyncio.sleep(self.delays[name])
            async with self._changed:
                answer = await work(request, context)
                self._changed.notify_all()
            return answer

        return run

    # --- topics ---

    async def _CreateTopic(self, request: Any, context: Any) -> Any:
        if request.name in self.topics:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "topic exists")
        self.topics[request.name] = request
        return request

    async def _GetTopic(self, request: Any, context: Any) -> Any:
        return await self._topic(request.topic, context)

    async def _ListTopicSubscriptions(self, request: Any, context: Any) -> Any:
        await self._topic(request.topic, context)
        names = [name for name, backlog in self.subscriptions.items() if backlog.config.topic == request.topic]
        return types.ListTopicSubscriptionsResponse.pb()(subscriptions=names)

    async def _topic(self, name: str, context: Any) -> Any:
        if name not in self.topics:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such topic")
        return self.topics[name]

    async def _Publish(self, request: Any, context: Any) -> Any:
        await self._topic(request.topic, context)
        if request.ByteSize() > _MOST_REQUEST_BYTES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "request too large")
        for message in request.messages:
            # https://cloud.google.com/pubsub/quotas#resource_limits
            if len(message.attributes) > 100 or any(
                len(name.encode()) > 256 or len(value.encode()) > 1024 for name, value in message.attributes.items()
            ):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "attributes too large")
            if any(marker in message.data for marker in self.refused):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "refused by the test")
        return types.PublishResponse.pb()(message_ids=[self._deliver(request.topic, one) for one in request.messages])

    def _deliver(self, topic: str, given: Any) -> str:
        now = time.time()
        message = types.PubsubMessage.pb()()
        message.CopyFrom(given)
        message.message_id = str(next(self._ids))
        message.publish_time.CopyFrom(Timestamp(seconds=int(now), nanos=int(now % 1 * 1e9)))
        for backlog in self.subscriptions.values():
            if backlog.config.topic == topic:
                backlog.entries.append(Entry(message))
        return str(message.message_id)

    # --- subscriptions ---

    async def _CreateSubscription(self, request: Any, context: Any) -> Any:
        if request.name in self.subscriptions:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "subscription exists")
        await self._topic(request.topic, context)
        if request.HasField("dead_letter_policy"):
            await self._topic(request.dead_letter_policy.dead_letter_topic, context)
            if not 5 <= request.dead_letter_policy.max_delivery_attempts <= 100:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "max_delivery_attempts out of bounds")
        self.subscriptions[request.name] = Backlog(request)
        return request

    async def _GetSubscription(self, request: Any, context: Any) -> Any:
        return (await self._backlog(request.subscription, context)).config

    async def _ListSubscriptions(self, request: Any, context: Any) -> Any:
        # Pages of two, so that the client must ask again.
        found = [one.config for name, one in self.subscriptions.items() if name.startswith(f"{request.project}/")]
        start = int(request.page_token or 0)
        more = str(start + 2) if len(found) > start + 2 else ""
        return types.ListSubscriptionsResponse.pb()(subscriptions=found[start : start + 2], next_page_token=more)

    async def _UpdateSubscription(self, request: Any, context: Any) -> Any:
        config = (await self._backlog(request.subscription.name, context)).config
        for path in request.update_mask.paths:
            wanted = getattr(request.subscription, path)
            if isinstance(wanted, int):
                setattr(config, path, wanted)
            else:
                getattr(config, path).CopyFrom(wanted)
        return config

    async def _DeleteSubscription(self, request: Any, context: Any) -> Any:
        await self._backlog(request.subscription, context)
        del self.subscriptions[request.subscription]
        return Empty()

    async def _backlog(self, name: str, context: Any) -> Backlog:
        if name not in self.subscriptions:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such subscription")
        return self.subscriptions[name]

    # --- receiving ---

    async def _Pull(self, request: Any, context: Any) -> Any:
        backlog = await self._backlog(request.subscription, context)
        if request.return_immediately:
            # It may return nothing although there are messages, so the stand-in always does.
            return types.PullResponse.pb()()
        until = time.monotonic() + _POLL_SECONDS
        while True:
            batch = self._lease(backlog, request.max_messages)
            left = until - time.monotonic()
            if batch or left <= 0:
                return types.PullResponse.pb()(received_messages=batch)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, self._next(backlog))):
                    await self._changed.wait()
            if await self._backlog(request.subscription, context) is not backlog:
                await context.abort(grpc.StatusCode.NOT_FOUND, "the subscription was deleted")

    def _next(self, backlog: Backlog) -> float:
        times = [one.lease_until if one.leased else one.due for one in backlog.entries]
        later = [one - time.monotonic() for one in times if one > time.monotonic()]
        return max(min(later, default=1.0), 0.001)

    def _lease(self, backlog: Backlog, most: int) -> list[Any]:
        config, now = backlog.config, time.monotonic()
        for entry in list(backlog.entries):
            if entry.leased and entry.lease_until <= now:
                self.failed(backlog, entry)
        blocked: set[str] = set()
        chosen: list[Entry] = []
        for entry in backlog.entries:
            key = entry.message.ordering_key if config.enable_message_ordering else ""
            if len(chosen) < most and not entry.leased and entry.due <= now and key not in blocked:
                chosen.append(entry)  # several of one key may come in one answer
            elif key:
                blocked.add(key)
        for entry in chosen:
            entry.deliveries += 1
            entry.ack_id = f"ack-{next(self._ids)}"
            entry.lease_until = now + config.ack_deadline_seconds
        counted = config.HasField("dead_letter_policy")
        return [
            types.ReceivedMessage.pb()(
                ack_id=entry.ack_id, message=entry.message, delivery_attempt=entry.deliveries if counted else 0
            )
            for entry in chosen
        ]

    def failed(self, backlog: Backlog, entry: Entry) -> None:
        """Count a failed delivery: it is due again by the retry policy, or goes where the dead-letter policy says."""
        entry.ack_id = ""
        config = backlog.config
        if config.HasField("retry_policy"):
            least, most = config.retry_policy.minimum_backoff, config.retry_policy.maximum_backoff
            pause = (least.seconds + least.nanos / 1e9) * 2 ** (entry.deliveries - 1)
            entry.due = time.monotonic() + min(pause, most.seconds + most.nanos / 1e9)
        policy = config.dead_letter_policy
        if policy.dead_letter_topic and entry.deliveries >= policy.max_delivery_attempts:
            backlog.entries.remove(entry)
            dead = types.PubsubMessage.pb()()
            dead.CopyFrom(entry.message)
            dead.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = str(entry.deliveries)
            dead.attributes["CloudPubSubDeadLetterSourceSubscription"] = config.name.rpartition("/")[2]
            self._deliver(policy.dead_letter_topic, dead)

    # --- settling ---

    async def _Acknowledge(self, request: Any, context: Any) -> Any:
        backlog = await self._backlog(request.subscription, context)
        found = await self._find(backlog, request.ack_ids)
        for entry in found.values():
            if entry in backlog.entries:
                backlog.entries.remove(entry)
        await self._refuse(backlog, request.ack_ids, found, context)
        return Empty()

    async def _ModifyAckDeadline(self, request: Any, context: Any) -> Any:
        backlog = await self._backlog(request.subscription, context)
        found = await self._find(backlog, request.ack_ids)
        for entry in found.values():
            if request.ack_deadline_seconds == 0:
                self.failed(backlog, entry)
            else:
                entry.lease_until = time.monotonic() + request.ack_deadline_seconds
        await self._refuse(backlog, request.ack_ids, found, context)
        return Empty()

    async def _find(self, backlog: Backlog, ack_ids: Any) -> dict[str, Entry]:
        now = time.monotonic()
        return {one.ack_id: one for one in backlog.entries if one.ack_id in set(ack_ids) and one.lease_until > now}

    async def _refuse(self, backlog: Backlog, ack_ids: Any, found: dict[str, Entry], context: Any) -> None:
        late = [ack_id for ack_id in ack_ids if ack_id not in found]
        if not late or not backlog.config.enable_exactly_once_delivery:
            return
        info = ErrorInfo(reason="x", domain="pubsub.googleapis.com")
        info.metadata.update(dict.fromkeys(late, "PERMANENT_FAILURE_INVALID_ACK_ID"))
        detail = AnyMessage()
        detail.Pack(info)
        status = Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="some failed", details=[detail])
        await context.abort_with_status(rpc_status.to_status(status))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    with PubSubStandIn(parser.parse_args().port) as server:
        print(server.port, flush=True)
        threading.Event().wait()
