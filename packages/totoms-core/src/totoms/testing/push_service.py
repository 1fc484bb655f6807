"""A push endpoint in a real app, and the same handler fed by PULL: what the contract of the push endpoint compares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from totoms.api import create_app
from totoms.auth import Authenticator
from totoms.bus import MessageBus
from totoms.config import TotoControllerConfig
from totoms.configuration import APIConfiguration
from totoms.consumer import Consumer
from totoms.context import new_cid
from totoms.envelope import DeadLetterReason, Outgoing, Received, RetryPolicy, Subscription
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError
from totoms.handlers import TotoMessageHandler
from totoms.logging import TotoLogger
from totoms.messages import ID_ATTRIBUTE, ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.push import EVENTS_PATH, PushEndpoint
from totoms.routing import MessageRouter
from totoms.testing.push_harness import TOPIC, Pushed

MESSAGE_TYPE = "postCreated"
Process = Callable[[TotoMessage], Any]


def succeed(_message: TotoMessage) -> ProcessingResponse:
    """Handle a message."""
    return ProcessingResponse(ProcessingStatus.SUCCESS)


class ScriptedHandler(TotoMessageHandler):
    """Does with messages what the test says, and remembers them.

    Args:
        process: What to do.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.seen: list[TotoMessage] = []

    def get_handled_message_type(self) -> str:
        """Return `MESSAGE_TYPE`."""
        return MESSAGE_TYPE

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        """Process one message."""
        self.seen.append(message)
        answer: ProcessingResponse = self._process(message)
        return answer


class ObservedBus:
    """What the core tells a bus from now on.

    Args:
        bus: Its operations still do what they do.

    Attributes:
        settled: The operation for each message that was settled, in order: ``ack``, ``retry`` or ``dead_letter``.
        dead: The messages that were dead-lettered.
    """

    def __init__(self, bus: MessageBus) -> None:
        self.settled: list[str] = []
        self.dead: list[tuple[Received, DeadLetterReason]] = []
        self.changed = asyncio.Event()
        self._ack, self._nack, self._dead_letter = bus._ack, bus._nack, bus._dead_letter
        vars(bus).update(_ack=self.ack, _nack=self.nack, _dead_letter=self.dead_letter)

    async def ack(self, batch: Sequence[Received]) -> Sequence[BackendError | None]:
        """Settle for good."""
        results = await self._ack(batch)
        self._note(*("ack" for _ in batch))
        return results

    async def nack(self, received: Received, delay: float) -> None:
        """Have it delivered again."""
        await self._nack(received, delay)
        self._note("retry")

    async def dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        """Give it up."""
        await self._dead_letter(received, reason)
        self.dead.append((received, reason))
        self._note("dead_letter")

    def _note(self, *operations: str) -> None:
        self.settled.extend(operations)
        self.changed.set()


@dataclass
class _Runtime:
    message_bus: MessageBus
    environment: TotoEnvironment
    service_name: str = "tested"
    logger: TotoLogger = field(default_factory=lambda: TotoLogger("tested"))
    state: str = "ready"
    authenticator: Authenticator = field(default_factory=Authenticator)
    config: TotoControllerConfig = field(default_factory=lambda: TotoControllerConfig.__new__(TotoControllerConfig))


class PushedService:
    """A service with one handler, whose push endpoint is called in memory.

    Args:
        bus: Verifies and decodes.
        url: The public address of the endpoint.
        process: What the handler does.
        retry: When a message is given up.

    Attributes:
        handled: What the handler was given.
        observed: What became of the messages at the bus.
    """

    def __init__(self, bus: MessageBus, url: str, process: Process, retry: RetryPolicy) -> None:
        self.bus = bus
        handler = ScriptedHandler(process)
        self.handled = handler.seen
        self.observed = ObservedBus(bus)
        logger = TotoLogger("tested")
        router = MessageRouter([handler], retry=retry, timeout=60.0, logger=logger)
        endpoint = PushEndpoint(bus, router, max_concurrency=64, url=url, logger=logger)
        app = create_app(_Runtime(bus, bus.environment), APIConfiguration(), push=endpoint.respond)
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

    async def send(self, pushed: Pushed) -> httpx.Response:
        """Send a request to the endpoint and return the answer."""
        return await self._client.request(pushed.method, EVENTS_PATH, content=pushed.body, headers=dict(pushed.headers))


async def pull_one(
    bus: MessageBus, body: bytes, process: Process, retry: RetryPolicy, patience: float
) -> tuple[str, DeadLetterReason | None, list[TotoMessage]]:
    """Publish bytes, have them pulled, and return how they were settled first, why, and what the handler was given."""
    subscription = Subscription(f"tested-{new_cid()}", bus.topics[TOPIC], TOPIC, retry=retry)
    await bus._subscribe(subscription, create=True)
    handler, logger = ScriptedHandler(process), TotoLogger("tested")
    router = MessageRouter([handler], retry=retry, timeout=60.0, logger=logger)
    consumer = Consumer(bus, subscription, router, max_concurrency=1, logger=logger)
    observed = ObservedBus(bus)
    consumer.start()
    try:
        message_id = new_cid()
        outgoing = Outgoing(body, message_id, {ID_ATTRIBUTE: message_id}, topic=bus.topics[TOPIC])
        (error,) = await bus._publish([outgoing])
        assert error is None, f"publishing failed: {error!r}"
        async with asyncio.timeout(patience):
            await observed.changed.wait()
    finally:
        await consumer.stop(patience)
    reason = observed.dead[0][1] if observed.settled[0] == "dead_letter" else None
    return observed.settled[0], reason, handler.seen
