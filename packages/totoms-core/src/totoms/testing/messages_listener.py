"""A consumer with a handler that does what the test says, as a service has it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Final, cast

from totoms.bus import MessageBus
from totoms.consumer import Consumer
from totoms.envelope import Subscription
from totoms.handlers import TotoMessageHandler
from totoms.logging import TotoLogger
from totoms.messages import ProcessingResponse, ProcessingStatus, TotoMessage, decode_message
from totoms.routing import MessageRouter
from totoms.testing.messages_watched import News, WatchedBus

MESSAGE_TYPE: Final = "conformanceTested"
BARRIER: Final = "barrier"
"""The `msg` of a message that is behind all that might still come; no test's handler sees it."""
_BARRIER_BYTES: Final = f'"msg":"{BARRIER}"'.encode()
Process = Callable[[TotoMessage], Any]


def succeed(_message: TotoMessage) -> ProcessingResponse:
    """Handle a message."""
    return ProcessingResponse(ProcessingStatus.SUCCESS)


def fail(_message: TotoMessage) -> ProcessingResponse:
    """Say that it failed."""
    return ProcessingResponse(ProcessingStatus.FAILED, error="as the test says")


class _Handler(TotoMessageHandler):
    def __init__(self, process: Process, listener: Listener) -> None:
        self._process = process
        self._listener = listener

    def get_handled_message_type(self) -> str:
        return MESSAGE_TYPE

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        if message.msg == BARRIER:
            return succeed(message)
        return await self._listener._run(self._process, message)


class Listener:
    """A consumer of one subscription. Made by :meth:`totoms.testing.messages_topic.Topic.listen`.

    Attributes:
        begun: What the handler was given, in order.
        running: What the handler is at now.
        most: The most that it was at, at a time.
        cut: What it was cancelled at.
        bus: What passed between the consumer and its bus.
        counts: How many deliveries ended how.
        stopped: Whether :meth:`stop` was called.
    """

    def __init__(
        self, bus: MessageBus, subscription: Subscription, process: Process, news: News, *, max_concurrency: int,
        timeout: float,
    ) -> None:  # fmt: skip
        self.begun: list[TotoMessage] = []
        self.running: list[TotoMessage] = []
        self.cut: list[TotoMessage] = []
        self.most = 0
        self.stopped = False
        self.subscription = subscription
        self.bus = WatchedBus(bus, news)
        self._news = news
        logger = TotoLogger("tested")
        router = MessageRouter([_Handler(process, self)], retry=subscription.retry, timeout=timeout, logger=logger)
        self.counts = router.counts
        self._consumer = Consumer(
            cast(MessageBus, self.bus), subscription, router, max_concurrency=max_concurrency, logger=logger
        )
        self._consumer.start()

    @property
    def ids(self) -> list[str]:
        """The ids of the messages that the handler was given, in order."""
        return [message.id for message in self.begun]

    @property
    def attempts(self) -> list[int]:
        """Their attempts."""
        return [message.delivery.attempt for message in self.begun if message.delivery]

    @property
    def settled(self) -> set[str]:
        """The ids of those whose success the bus has confirmed."""
        confirmed = [one for one in self.bus.which("ack") if one.error is None]
        return {decode_message(one.received.body).id for one in confirmed}

    async def until_begun(self, *ids: str) -> None:
        """Wait until the handler was given these, among others."""
        await self._news.until(lambda: set(ids) <= set(self.ids), f"{ids} are handed to a handler", self._seen)

    async def until_settled(self, number: int, operation: str = "ack") -> None:
        """Wait until the bus has confirmed `number` operations about messages other than barriers."""

        def reached() -> bool:
            return len([one for one in self.bus.which(operation) if _BARRIER_BYTES not in one.received.body]) >= number

        await self._news.until(reached, f"{number} of {operation}", self._seen)

    async def until_renewed(self) -> None:
        """Wait until the bus has renewed leases once more."""
        before = self.bus.renewals
        await self._news.until(lambda: self.bus.renewals > before, "leases are renewed")

    def _seen(self) -> str:
        settled = [(one.operation, one.received.message_id) for one in self.bus.settled[-10:]]
        return f"(handled: {self.ids[-10:]}, told to the bus: {settled})"

    async def stop(self, grace: float = 0.0) -> None:
        """Stop, and give handlers `grace` seconds."""
        self.stopped = True
        self.bus.let("extend")
        await self._consumer.stop(grace)

    async def _run(self, process: Process, message: TotoMessage) -> ProcessingResponse:
        self.begun.append(message)
        self.running.append(message)
        self.most = max(self.most, len(self.running))
        self._news.tell()
        try:
            answer = process(message)
            response: ProcessingResponse = await answer if inspect.isawaitable(answer) else answer
        except asyncio.CancelledError:
            self.cut.append(message)
            raise
        finally:
            self.running.remove(message)
            self._news.tell()
        return response
