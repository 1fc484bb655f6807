"""Routing: from the bytes a broker delivered to a handler, and from its answer to what the broker is told.

One table of outcomes for PULL and PUSH, so that a handler's answer means the same by both.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from totoms.context import current_cid, sane_cid
from totoms.deadlines import Deadlines
from totoms.describe import printable, where
from totoms.envelope import DeadLetterReason, Received, RetryPolicy
from totoms.errors import ConfigurationError, NonRetryableError, UndecodableMessage
from totoms.handlers import TotoMessageHandler
from totoms.logging import TotoLogger
from totoms.messages import (
    TRACEPARENT_ATTRIBUTE,
    Delivery,
    ProcessingResponse,
    ProcessingStatus,
    TotoMessage,
    decode_message,
)
from totoms.tracing import remember_traceparent

# Types are chosen by whoever may publish: remember a bounded number of those already told.
_TOLD_TYPES: Final = 1000


class Action(Enum):
    """What the broker is to be told."""

    ACK = "ack"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one delivery.

    Attributes:
        action: What the broker is to be told.
        reason: Why it is given up, for DEAD_LETTER.
        ignored: Nobody handles the type, or the handler said IGNORED.
    """

    action: Action
    reason: DeadLetterReason | None = None
    ignored: bool = False


@dataclass(slots=True)
class Counts:
    """How many deliveries ended how, since start."""

    succeeded: int = 0
    ignored: int = 0
    retried: int = 0
    dead_lettered: int = 0


_SUCCESS: Final = Outcome(Action.ACK)
_IGNORED: Final = Outcome(Action.ACK, ignored=True)
_RETRY: Final = Outcome(Action.RETRY)


class MessageRouter:
    """Decodes, finds the handler by type, runs it, and judges.

    Args:
        handlers: One for each message type.
        retry: When a failed message is given up.
        timeout: Seconds after which a handler is cancelled and counts as failed.
        logger: The service's logger.

    Raises:
        ConfigurationError: Two handlers for one type, or a type that is no non-empty string.
    """

    def __init__(
        self, handlers: Sequence[TotoMessageHandler], *, retry: RetryPolicy, timeout: float, logger: TotoLogger
    ) -> None:
        self.counts = Counts()
        self._retry = retry
        self._deadlines = Deadlines(timeout)
        self._logger = logger
        self._told: set[str] = set()
        self._handlers: dict[str, Callable[[TotoMessage], Any]] = {}
        for handler in handlers:
            message_type = handler.get_handled_message_type()
            name = type(handler).__name__
            if not isinstance(message_type, str) or not message_type:
                raise ConfigurationError(f"{name}.get_handled_message_type() must return a non-empty string.")
            if message_type in self._handlers:
                raise ConfigurationError(f"Two handlers for message type {message_type!r}; the second is {name}.")
            self._handlers[message_type] = _awaitable(handler.process_message)

    async def handle(self, received: Received) -> Outcome:
        """Run the handler for one delivery. Raises nothing but the cancellation of its own task."""
        outcome = await self._judge(received)
        if outcome.action is Action.RETRY:
            self.counts.retried += 1
        elif outcome.action is Action.DEAD_LETTER:
            self.counts.dead_lettered += 1
        elif outcome.ignored:
            self.counts.ignored += 1
        else:
            self.counts.succeeded += 1
        return outcome

    async def _judge(self, received: Received) -> Outcome:
        subscription = received.subscription
        delivery = Delivery(
            received.message_id, received.attempt, subscription.logical_name, subscription.name, received.attributes
        )
        try:
            message = decode_message(received.body, delivery)
        except UndecodableMessage as error:
            self._logger.log(
                "events", f"Message {received.message_id} of {subscription.name} is undecodable: {error}", "ERROR"
            )
            return self._give_up(received, "undecodable", error)
        current_cid.set(sane_cid(message.cid))
        remember_traceparent(received.attributes.get(TRACEPARENT_ATTRIBUTE))
        process = self._handlers.get(message.type)
        if process is None:
            self._tell_once(message)
            return _IGNORED
        if received.attempt > self._retry.max_attempts:
            # Its consumers died before they could say FAILED: without this it would kill them for ever.
            self._logger.log(current_cid.get(), f"Message {received.message_id}: its lease expired each time.", "ERROR")
            return self._give_up(received, "lease_expired", None)
        return await self._run(process, message, received)

    async def _run(self, process: Callable[[TotoMessage], Any], message: TotoMessage, received: Received) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        self._deadlines.begin(task)
        try:
            try:
                response = await process(message)
            finally:
                self._deadlines.end(task)
            status = _status(response)
        except NonRetryableError as error:
            self._log_failure(message, received, where(error))
            return self._give_up(received, "non_retryable", error)
        except BaseException as error:  # SystemExit from a handler must not end the worker either
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                raise
            self._log_failure(message, received, where(error))
            return self._failed(received, error)
        if status is ProcessingStatus.SUCCESS:
            return _SUCCESS
        if status is ProcessingStatus.IGNORED:
            return _IGNORED
        self._log_failure(message, received, "the handler said FAILED")
        return self._failed(received, response.error or "")

    def _failed(self, received: Received, error: BaseException | str | None) -> Outcome:
        if received.attempt >= self._retry.max_attempts:
            return self._give_up(received, "attempts_exhausted", error)
        return _RETRY

    def _give_up(self, received: Received, reason: str, error: BaseException | str | None) -> Outcome:
        error_class = type(error).__name__ if isinstance(error, BaseException) else "" if error is None else "FAILED"
        description = printable(str(error)) if error else ""
        return Outcome(Action.DEAD_LETTER, DeadLetterReason(reason, error_class, description, received.attempt))

    def _log_failure(self, message: TotoMessage, received: Received, what: str) -> None:
        last = received.attempt >= self._retry.max_attempts
        self._logger.log(
            current_cid.get(),
            f"Message {received.message_id} of type {message.type}, attempt {received.attempt}"
            f"{' (the last)' if last else ''}: {what}",
            "ERROR" if last else "WARNING",
        )

    def _tell_once(self, message: TotoMessage) -> None:
        if message.type not in self._told and len(self._told) < _TOLD_TYPES:
            self._told.add(message.type)
            self._logger.log(
                current_cid.get(), f"No handler for messages of type {message.type!r}: ignored from now on."
            )


def _awaitable(process: Callable[[TotoMessage], Any]) -> Callable[[TotoMessage], Any]:
    if inspect.iscoroutinefunction(process):
        return process

    async def in_thread(message: TotoMessage) -> Any:
        result = await asyncio.to_thread(process, message)
        return await result if inspect.isawaitable(result) else result

    return in_thread


def _status(response: Any) -> ProcessingStatus:
    if not isinstance(response, ProcessingResponse):
        raise TypeError(f"process_message returned {type(response).__name__}, not a ProcessingResponse")
    status = response.status
    return status if type(status) is ProcessingStatus else ProcessingStatus(status)
