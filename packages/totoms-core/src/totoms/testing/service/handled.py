"""The deliveries that a service under test handled, and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from totoms.messages.dead_letter_log import log_dead_letter
from totoms.messages.handler import BoundHandler
from totoms.messages.message import ProcessingResponse, TotoMessage
from totoms.messages.outcome import Action, Outcome
from totoms.messages.receiver import Received
from totoms.messages.router import MessageRouter


@dataclass(frozen=True, slots=True)
class HandledMessage:
    """One delivery and its outcome.

    Attributes:
        message: The message that the handler got; None if no handler ran.
        outcome: The decision of the service: ``outcome.action`` is what it does at the broker, ``outcome.reason`` why
            it dead-letters the message, ``outcome.ignored`` whether no handler takes the type.
        response: The response of the handler; None if it returned None, raised or did not run.
        error: The exception of the handler, or None.
    """

    message: TotoMessage | None
    outcome: Outcome
    response: ProcessingResponse | None = None
    error: BaseException | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the message is acked: handled with SUCCESS or IGNORED, or of a type without a handler."""
        return self.outcome.action is Action.ACK


@dataclass(slots=True)
class _Run:
    message: TotoMessage | None = None
    response: Any = None
    error: BaseException | None = None


class RecordingRouter(MessageRouter):
    """Replaces a router, and records what the handlers got and returned.

    Args:
        router: The router to replace, whose handlers and counts it uses.
        handled: Gets a record of each delivery.
    """

    def __init__(self, router: MessageRouter, handled: list[HandledMessage]) -> None:
        vars(self).update(vars(router))
        self._handled = handled
        self._runs: dict[Received, _Run] = {}

    async def handle(self, received: Received) -> Outcome:
        """Run the handler for one delivery."""
        return (await self._record(received)).outcome

    async def deliver(self, received: Received) -> HandledMessage:
        """Run the handler for one delivery and return the record. A dead letter is logged, but stored nowhere."""
        result = await self._record(received)
        if result.outcome.reason is not None:
            log_dead_letter(self._logger, received, result.outcome.reason, result.outcome.failure, None)
        return result

    async def _record(self, received: Received) -> HandledMessage:
        self._runs[received] = _Run()
        try:
            outcome = await super().handle(received)
        finally:
            run = self._runs.pop(received)
        response = run.response if isinstance(run.response, ProcessingResponse) else None
        result = HandledMessage(run.message, outcome, response, run.error)
        self._handled.append(result)
        return result

    async def _run(self, handler: BoundHandler, message: TotoMessage, received: Received) -> Outcome:
        run = self._runs[received]
        run.message = message

        async def watched(message: TotoMessage) -> Any:
            try:
                run.response = await handler.process(message)
            except BaseException as error:
                run.error = error
                raise
            return run.response

        return await super()._run(replace(handler, process=watched), message, received)
