"""A consumer, as a service has it, with a handler of the test."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from totoms.errors import NotFound
from totoms.logging.logger import TotoLogger
from totoms.messages.consumer import Consumer
from totoms.messages.events import TotoEvent
from totoms.messages.handler import TotoMessageHandler, bind
from totoms.messages.message import ProcessingResponse, ProcessingStatus, TotoMessage, decode_message
from totoms.messages.receiver import Receiver
from totoms.messages.router import MessageRouter
from totoms.testing.messages.recording import Progress, RecordingReceiver

MESSAGE_TYPE: Final = "conformanceTested"
BARRIER: Final = "barrier"
"""The `msg` of barrier messages, which the listener acks without calling the test's handler."""
_BARRIER_BYTES: Final = f'"msg":"{BARRIER}"'.encode()
Process = Callable[[TotoMessage], Any]


def succeed(_message: TotoMessage) -> ProcessingResponse:
    """Return SUCCESS."""
    return ProcessingResponse(ProcessingStatus.SUCCESS)


def fail(_message: TotoMessage) -> ProcessingResponse:
    """Return FAILED."""
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
    """A consumer of one subscription. See :meth:`totoms.testing.messages.topic.Topic.listen`.

    Attributes:
        begun: The messages that the handler got, in order.
        running: The messages that are being handled.
        most: The most messages that were handled at the same time.
        cut: The messages whose handler was cancelled.
        receiver: Records the calls of the consumer.
        counts: The router's counts of outcomes.
        resubscribed: How often it has subscribed again because the subscription had vanished.
        stopped: Whether :meth:`stop` was called.
    """

    def __init__(
        self,
        receiver: Receiver,
        process: Process,
        progress: Progress,
        *,
        max_concurrency: int,
        timeout: float,
        event: type[TotoEvent] | None = None,
        subscribe: Callable[[], Awaitable[Receiver]] | None = None,
    ) -> None:
        self.begun: list[TotoMessage] = []
        self.running: list[TotoMessage] = []
        self.cut: list[TotoMessage] = []
        self.most = 0
        self.stopped = False
        self.subscription = receiver.subscription
        self.receiver = RecordingReceiver(receiver, progress)
        self._progress = progress
        logger = TotoLogger("tested")
        handler = replace(bind(_Handler(process, self)), event=event)
        router = MessageRouter([handler], retry=self.subscription.retry, timeout=timeout, logger=logger)
        self.counts = router.counts
        self.resubscribed = 0
        self._subscribe = subscribe
        again = None if subscribe is None else self._resubscribe
        self._consumer = Consumer(
            self.receiver, router, max_concurrency=max_concurrency, logger=logger, resubscribe=again
        )
        self._consumer.start()

    @property
    def ids(self) -> list[str]:
        """The ids of the messages that the handler got, in order."""
        return [message.id for message in self.begun]

    @property
    def attempts(self) -> list[int]:
        """The attempts of the messages that the handler got, in order."""
        return [message.delivery.attempt for message in self.begun if message.delivery]

    @property
    def settled(self) -> set[str]:
        """The ids of the messages whose ack the bus has confirmed."""
        confirmed = [one for one in self.receiver.which("ack") if one.error is None]
        return {decode_message(one.received.body).id for one in confirmed}

    async def until_begun(self, *ids: str) -> None:
        """Wait until the handler got these messages."""
        await self._progress.until(lambda: set(ids) <= set(self.ids), f"the handler gets {ids}", self._seen)

    async def until_settled(self, number: int, operation: str = "ack") -> None:
        """Wait until the bus has confirmed the operation for `number` messages other than barriers."""

        def reached() -> bool:
            settled = self.receiver.which(operation)
            return len([one for one in settled if _BARRIER_BYTES not in one.received.body]) >= number

        await self._progress.until(reached, f"{number} messages with {operation}", self._seen)

    async def until_resubscribed(self) -> None:
        """Wait until it has subscribed again."""
        await self._progress.until(lambda: self.resubscribed, "the subscription is created again", self._seen)

    async def _resubscribe(self, _error: NotFound) -> Receiver:
        assert self._subscribe is not None
        self.receiver = self.receiver.succeeded_by(await self._subscribe())
        self.resubscribed += 1
        self._progress.notify()
        return self.receiver

    async def until_renewed(self) -> None:
        """Wait until the bus has extended leases once more."""
        before = self.receiver.renewals
        await self._progress.until(lambda: self.receiver.renewals > before, "leases are extended")

    def _seen(self) -> str:
        settled = [(one.operation, one.received.message_id) for one in self.receiver.settled[-10:]]
        return f"(handled: {self.ids[-10:]}, settled: {settled})"

    async def stop(self, grace: float = 0.0) -> None:
        """Stop the consumer; handlers have `grace` seconds to finish."""
        self.stopped = True
        self.receiver.resume("extend")
        await self._consumer.stop(grace)

    async def _run(self, process: Process, message: TotoMessage) -> ProcessingResponse:
        self.begun.append(message)
        self.running.append(message)
        self.most = max(self.most, len(self.running))
        self._progress.notify()
        try:
            answer = process(message)
            response: ProcessingResponse = await answer if inspect.isawaitable(answer) else answer
        except asyncio.CancelledError:
            self.cut.append(message)
            raise
        finally:
            self.running.remove(message)
            self._progress.notify()
        return response
