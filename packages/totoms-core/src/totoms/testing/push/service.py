"""A push endpoint in a real app, and the same handler with a consumer that pulls, for the push contract."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from totoms.auth.authenticator import Authenticator
from totoms.context import new_cid
from totoms.controller_config import TotoControllerConfig
from totoms.declaration.api import APIConfiguration
from totoms.environment import TotoEnvironment
from totoms.health import Readiness
from totoms.http.app import create_app
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.consumer import Consumer
from totoms.messages.dead_letters import DeadLetterReason, DeadLetterStore
from totoms.messages.handler import TotoMessageHandler
from totoms.messages.message import ID_ATTRIBUTE, ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.messages.outgoing import Outgoing
from totoms.messages.push.endpoint import PushEndpoint
from totoms.messages.push_request import EVENTS_PATH
from totoms.messages.receiver import Received
from totoms.messages.router import MessageRouter
from totoms.messages.subscription import RetryPolicy, Subscription
from totoms.testing.messages.recording import Progress, RecordingReceiver
from totoms.testing.push.harness import TOPIC, Pushed

MESSAGE_TYPE = "postCreated"
Process = Callable[[TotoMessage], Any]


def succeed(_message: TotoMessage) -> ProcessingResponse:
    """Return SUCCESS."""
    return ProcessingResponse(ProcessingStatus.SUCCESS)


class ScriptedHandler(TotoMessageHandler):
    """Handles messages with a function of the test, and records them.

    Args:
        process: The function.
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
        answer = self._process(message)
        if inspect.isawaitable(answer):
            answer = await answer
        result: ProcessingResponse = answer
        return result


class DeadLetterRecorder:
    """Records the messages that a bus dead-letters from now on.

    Args:
        bus: The bus; its stores still keep them.

    Attributes:
        recorded: The dead-lettered messages, with the reason.
    """

    def __init__(self, bus: MessageBus) -> None:
        self.recorded: list[tuple[Received, DeadLetterReason]] = []
        self._dead_letters = bus._dead_letters
        vars(bus).update(_dead_letters=self._recording_store)

    def _recording_store(self, subscription: str) -> DeadLetterStore:
        store = self._dead_letters(subscription)
        keep = store.keep

        async def record(received: Received, reason: DeadLetterReason) -> str | None:
            letter_id = await keep(received, reason)
            self.recorded.append((received, reason))
            return letter_id

        vars(store).update(keep=record)
        return store


@dataclass
class _Runtime:
    message_bus: MessageBus
    environment: TotoEnvironment
    service_name: str = "tested"
    logger: TotoLogger = field(default_factory=lambda: TotoLogger("tested"))
    state: str = "ready"
    awaited_topics: list[str] = field(default_factory=list)
    authenticator: Authenticator = field(default_factory=Authenticator)
    config: TotoControllerConfig = field(default_factory=lambda: TotoControllerConfig.__new__(TotoControllerConfig))

    @property
    def readiness(self) -> Readiness:
        return Readiness([], self.config, self.logger)


class PushedService:
    """A service with one handler, whose push endpoint is called in memory.

    Args:
        bus: The bus, which verifies and decodes pushes.
        url: The public address of the endpoint.
        process: The function that handles messages.
        retry: The retry policy.
        options: Further arguments of the `PushEndpoint`.

    Attributes:
        handled: The messages that the handler got.
        dead_lettered: The dead-lettered messages, with the reason.
    """

    def __init__(self, bus: MessageBus, url: str, process: Process, retry: RetryPolicy, **options: Any) -> None:
        self.bus = bus
        handler = ScriptedHandler(process)
        self.handled = handler.seen
        self.dead_lettered = DeadLetterRecorder(bus).recorded
        logger = TotoLogger("tested")
        router = MessageRouter([handler], retry=retry, timeout=60.0, logger=logger)
        options = {"max_concurrency": 64, **options}
        self._endpoint = PushEndpoint(bus, router, url=url, logger=logger, **options)
        self._app = create_app(
            _Runtime(bus, bus.environment),
            APIConfiguration(),
            push=self._endpoint.respond,
            max_push_bytes=bus.max_push_bytes,
        )
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://localhost")

    async def send(self, pushed: Pushed) -> httpx.Response:
        """Send a request to the endpoint and return the answer."""
        return await self._client.request(pushed.method, EVENTS_PATH, content=pushed.body, headers=dict(pushed.headers))

    async def send_half(self, pushed: Pushed) -> int:
        """Send the headers and half of the body only; return the status of the answer."""
        headers = {"host": "localhost", **pushed.headers, "content-length": str(len(pushed.body))}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": pushed.method,
            "scheme": "http",
            "path": EVENTS_PATH,
            "raw_path": EVENTS_PATH.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        half = [{"type": "http.request", "body": pushed.body[: len(pushed.body) // 2], "more_body": True}]
        statuses: list[int] = []

        async def receive() -> Any:
            return half.pop() if half else await asyncio.Event().wait()

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await self._app(scope, receive, answer)
        return statuses[0]

    async def stop(self, grace: float) -> None:
        """Stop the endpoint, as at shutdown."""
        await self._endpoint.stop(grace)


async def pull_one(
    bus: MessageBus, body: bytes, process: Process, retry: RetryPolicy, patience: float
) -> tuple[str, DeadLetterReason | None, list[TotoMessage]]:
    """Publish bytes and pull them. Return how they were settled first, the reason, and the handled messages."""
    subscription = Subscription(f"tested-{new_cid()}", bus.topics[TOPIC], TOPIC, retry=retry)
    receiver = await bus._subscribe(subscription, create=True)
    handler, logger, progress = ScriptedHandler(process), TotoLogger("tested"), Progress(patience)
    recording = RecordingReceiver(receiver, progress)
    router = MessageRouter([handler], retry=retry, timeout=60.0, logger=logger)
    consumer = Consumer(recording, router, max_concurrency=1, logger=logger)
    consumer.start()
    try:
        message_id = new_cid()
        outgoing = Outgoing(body, message_id, {ID_ATTRIBUTE: message_id}, topic=bus.topics[TOPIC])
        (error,) = await bus._publish([outgoing])
        assert error is None, f"publishing failed: {error!r}"
        await progress.until(lambda: recording.settled, "the message is settled")
    finally:
        await consumer.stop(patience)
    settled = recording.settled[0]
    return settled.operation, settled.reason, handler.seen
