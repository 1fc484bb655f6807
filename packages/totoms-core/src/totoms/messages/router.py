"""Route messages to handlers, and decide whether to ack, retry or dead-letter them. The same for pull and push."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from totoms.context import current_cid, remember_traceparent, sane_cid
from totoms.errors import ConfigurationError, NonRetryableError, UndecodableMessage
from totoms.logging.describe import error_location, error_text, printable, service_frame, texts_shown
from totoms.logging.logger import TotoLogger
from totoms.messages.dead_letter_log import Failure
from totoms.messages.dead_letters import DeadLetterReason, with_place
from totoms.messages.deadlines import Deadlines
from totoms.messages.events import VERSION_ATTRIBUTE, InvalidEvent, TotoEvent, UnknownVersion
from totoms.messages.handler import BoundHandler, TotoMessageHandler, bind
from totoms.messages.message import (
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
    Delivery,
    ForeignMessage,
    ProcessingResponse,
    ProcessingStatus,
    TotoMessage,
    decode_message,
)
from totoms.messages.outcome import Action, Counts, Outcome
from totoms.messages.receiver import Received
from totoms.messages.subscription import RetryPolicy
from totoms.messages.upcast import read_event
from totoms.telemetry import state as telemetry
from totoms.threads import MOST_THREADS, Workers

_MAX_LOGGED_TYPES: Final = 1000
"""Publishers choose message types, so the number of types remembered as logged is bounded, and so is their length."""
_LONGEST_LOGGED_TYPE: Final = 200


_SUCCESS: Final = Outcome(Action.ACK)
_IGNORED: Final = Outcome(Action.ACK, ignored=True)
_RETRY: Final = Outcome(Action.RETRY)


class MessageRouter:
    """Decodes a delivery, runs the handler for its topic and type, and returns the outcome.

    Args:
        handlers: The service's handlers: instances of handler classes, or bound ones.
        retry: After how many attempts a message is dead-lettered.
        timeout: Seconds after which a handler is cancelled and counts as failed.
        logger: The service's logger.
        topics: For each handler, the logical names of its topics; empty for all topics.
        unhandled: Logical names of topics without a handler.
        system: The messaging system, for spans and metrics.
        max_threads: How many handlers written as ``def`` may run at the same time, each in a thread.

    Raises:
        ConfigurationError: Two handlers for the same type and topic, or a type that is not a non-empty string.
    """

    def __init__(
        self,
        handlers: Sequence[TotoMessageHandler[Any, Any] | BoundHandler],
        *,
        retry: RetryPolicy,
        timeout: float,
        logger: TotoLogger,
        topics: Sequence[Sequence[str]] = (),
        unhandled: Collection[str] = (),
        system: str = "",
        max_threads: int = MOST_THREADS,
    ) -> None:
        self.counts = Counts()
        self.system = system
        self._threads = Workers(max_threads, "totoms handler")
        self._retry = retry
        self._deadlines = Deadlines(timeout)
        self._logger = logger
        self._logged_types: set[str] = set()
        self._unhandled = frozenset(unhandled)
        # By topic and type; the topic is None for a handler of all topics.
        self._handlers: dict[tuple[str | None, str], BoundHandler] = {}
        for handler, own_topics in zip(handlers, topics or [()] * len(handlers), strict=True):
            bound = handler if isinstance(handler, BoundHandler) else bind(handler)
            bound = replace(bound, process=_awaitable(bound.process, self._threads))
            for topic in own_topics or (None,):
                if (topic, bound.message_type) in self._handlers:
                    of = f" of topic {topic!r}" if topic else ""
                    raise ConfigurationError(
                        f"Two handlers for message type {bound.message_type!r}{of}; the second is {bound.name}."
                    )
                self._handlers[topic, bound.message_type] = bound

    async def handle(self, received: Received) -> Outcome:
        """Run the handler for one delivery. Raises only CancelledError, if the current task is cancelled."""
        if telemetry.active is None:
            outcome = await self._process(received)
        else:
            outcome = await telemetry.active.handle(self.system, received, self._process)
        if outcome.action is Action.RETRY:
            self.counts.retried += 1
        elif outcome.action is Action.DEAD_LETTER:
            self.counts.dead_lettered += 1
        elif outcome.ignored:
            self.counts.ignored += 1
        else:
            self.counts.succeeded += 1
        return outcome

    def handler_of(self, task: asyncio.Task[Any]) -> str:
        """Return the name of the handler that a task runs; "" if it runs none. Any thread may call this."""
        return self._deadlines.name_of(task)

    def close(self) -> None:
        """Stop the threads of ``def`` handlers, each once its handler has returned."""
        self._threads.close()

    async def _process(self, received: Received) -> Outcome:
        subscription = received.subscription
        delivery = Delivery(
            received.message_id, received.attempt, subscription.logical_name, subscription.name, received.attributes
        )
        try:
            if received.undecodable:
                raise UndecodableMessage(received.undecodable)
            type_attribute = received.attributes.get(TYPE_ATTRIBUTE, "") if received.attributes_vouched else ""
            message = decode_message(received.body, delivery, type_attribute=type_attribute)
        except ForeignMessage:
            self._log_once("", f"A JSON object without a message type came from {subscription.name}")
            return _IGNORED
        except UndecodableMessage as error:
            return self._dead_letter(received, "undecodable", error, Failure(str(error)))
        current_cid.set(sane_cid(message.cid))
        remember_traceparent(received.attributes.get(TRACEPARENT_ATTRIBUTE))
        handler = self._find_handler(subscription.logical_name, message.type)
        if handler is None:
            shown = message.type[:_LONGEST_LOGGED_TYPE]
            self._log_once(shown, f"No handler for messages of type {shown!r}")
            return _IGNORED
        if telemetry.active is not None:
            telemetry.active.handles(message.type, current_cid.get(), handler.name)
            telemetry.active.instruments.aged(subscription.logical_name, message.timestamp)
        if received.attempt > self._retry.max_attempts:
            # It may be what killed its consumers, before they could nack it.
            failure = Failure("every lease expired", handler.name, message.type)
            return self._dead_letter(received, "lease_expired", None, failure)
        if handler.event is not None:
            refused = self._read_event(handler, handler.event, message, received)
            if refused is not None:
                return refused
        return await self._run(handler, message, received)

    def _read_event(
        self, handler: BoundHandler, event: type[TotoEvent], message: TotoMessage, received: Received
    ) -> Outcome | None:
        """Make the data of a message an event; return an outcome if that fails."""
        version = received.attributes.get(VERSION_ATTRIBUTE)
        try:
            message.data = read_event(event, message.data, version, vouched=received.attributes_vouched)
        except InvalidEvent as error:
            return self._dead_letter(received, "invalid", error, Failure(str(error), handler.name, message.type))
        except NonRetryableError as error:
            return self._never_again(received, error, Failure(error_location(error), handler.name, message.type, error))
        except UnknownVersion as error:
            failure = Failure(str(error), handler.name, message.type)
            outcome = self._failed(received, error, failure, "unknown_version")
            return replace(outcome, delay=self._retry.max_backoff)
        except Exception as error:  # an upcast is the user's code
            failure = Failure(error_location(error), handler.name, message.type, error)
            outcome = self._failed(received, error, failure)
            # A deployment of the newer version may be under way.
            return replace(outcome, delay=self._retry.max_backoff)
        return None

    def _find_handler(self, topic: str, message_type: str) -> BoundHandler | None:
        found = self._handlers.get((topic, message_type))
        if found is None and topic not in self._unhandled:
            found = self._handlers.get((None, message_type))
        return found

    async def _run(self, handler: BoundHandler, message: TotoMessage, received: Received) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        self._deadlines.begin(task, handler.name)
        try:
            try:
                response = await handler.process(message)
            finally:
                self._deadlines.end(task)
            status = _status(response, handler)
        except NonRetryableError as error:
            return self._never_again(received, error, Failure(error_location(error), handler.name, message.type, error))
        except BaseException as error:  # SystemExit in a handler must not stop the service either
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                raise
            failure = Failure(error_location(error), handler.name, message.type, error)
            return self._failed(received, error, failure)
        if status is ProcessingStatus.SUCCESS:
            return _SUCCESS
        if status is ProcessingStatus.IGNORED:
            return _IGNORED
        if not isinstance(response, ProcessingResponse):
            problem = _wrong_response(response, handler)
            return self._failed(received, TypeError(problem), Failure(problem, handler.name, message.type))
        text = f": {response.error}" if response.error and texts_shown() else ""
        failure = Failure(f"the handler returned FAILED{text}", handler.name, message.type)
        return self._failed(received, response.error or "", failure)

    def _failed(
        self,
        received: Received,
        error: BaseException | str | None,
        failure: Failure,
        reason: str = "attempts_exhausted",
    ) -> Outcome:
        if telemetry.active is not None:
            telemetry.active.failed(failure.text, failure.error)
        if received.attempt >= self._retry.max_attempts:
            return self._dead_letter(received, reason, error, failure)
        text = f"Message {received.message_id} of type {failure.message_type}, attempt {received.attempt}"
        self._logger.log(current_cid.get(), f"{text}: {failure.text}", "WARNING", failure.error)
        return _RETRY

    def _never_again(self, received: Received, error: NonRetryableError, failure: Failure) -> Outcome:
        if telemetry.active is not None:
            telemetry.active.failed(failure.text, error)
        return self._dead_letter(received, "non_retryable", error, failure)

    def _dead_letter(
        self, received: Received, reason: str, error: BaseException | str | None, failure: Failure
    ) -> Outcome:
        error_class = type(error).__name__ if isinstance(error, BaseException) else "" if error is None else "FAILED"
        if isinstance(error, BaseException):
            description = with_place(printable(error_text(error)), service_frame(error))
        else:
            description = printable(error or "")
        why = DeadLetterReason(reason, error_class, description, received.attempt)
        return Outcome(Action.DEAD_LETTER, why, failure=failure)

    def _log_once(self, message_type: str, what: str) -> None:
        if message_type not in self._logged_types and len(self._logged_types) < _MAX_LOGGED_TYPES:
            self._logged_types.add(message_type)
            self._logger.log(current_cid.get(), f"{what}: ignored from now on.")


def _awaitable(process: Callable[[TotoMessage], Any], threads: Workers) -> Callable[[TotoMessage], Any]:
    if inspect.iscoroutinefunction(process):
        return process

    async def in_thread(message: TotoMessage) -> Any:
        result = await threads.run(process, message)
        return await result if inspect.isawaitable(result) else result

    return in_thread


def _status(response: Any, handler: BoundHandler) -> ProcessingStatus | None:
    """Return the status of a response; None if a handler must not return it."""
    if isinstance(response, ProcessingResponse):
        status = response.status
        return status if type(status) is ProcessingStatus else ProcessingStatus(status)
    return ProcessingStatus.SUCCESS if response is None and handler.none_succeeds else None


def _wrong_response(response: object, handler: BoundHandler) -> str:
    if response is None:
        return (
            f"{handler.name} returned None: return ProcessingResponse(status=ProcessingStatus.SUCCESS), or annotate it "
            "`-> None`"
        )
    return f"{handler.name} returned a {type(response).__name__}, not a ProcessingResponse"
