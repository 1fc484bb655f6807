"""What became of the messages that a service under test was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from totoms.envelope import Received
from totoms.messages import ProcessingResponse, TotoMessage
from totoms.routing import Action, MessageRouter, Outcome


@dataclass(frozen=True, slots=True)
class HandledMessage:
    """One delivery, and how it ended.

    Attributes:
        message: What the handler was given; None when no handler was run.
        outcome: How the service judged it: ``outcome.action`` is what the broker is told, ``outcome.reason`` why the
            message is given up, ``outcome.ignored`` whether nobody cared for it.
        response: What the handler returned; None when it raised, or was not run.
        error: What the handler raised, or None.
    """

    message: TotoMessage | None
    outcome: Outcome
    response: ProcessingResponse | None = None
    error: BaseException | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it is settled: handled with SUCCESS or IGNORED, or of a type that nobody handles."""
        return self.outcome.action is Action.ACK


@dataclass(slots=True)
class _Run:
    message: TotoMessage | None = None
    response: Any = None
    error: BaseException | None = None


class WatchedRouter(MessageRouter):
    """Takes the place of a router and judges as it does, but remembers what the handlers said.

    Args:
        router: Whose handlers and counts these are.
        handled: Where to remember it.
    """

    def __init__(self, router: MessageRouter, handled: list[HandledMessage]) -> None:
        vars(self).update(vars(router))
        self._handled = handled
        self._runs: dict[Received, _Run] = {}

    async def handle(self, received: Received) -> Outcome:
        """Run the handler for one delivery."""
        return (await self.deliver(received)).outcome

    async def deliver(self, received: Received) -> HandledMessage:
        """Run the handler for one delivery, and tell all about it."""
        self._runs[received] = _Run()
        try:
            outcome = await super().handle(received)
        finally:
            run = self._runs.pop(received)
        response = run.response if isinstance(run.response, ProcessingResponse) else None
        result = HandledMessage(run.message, outcome, response, run.error)
        self._handled.append(result)
        return result

    async def _run(self, process: Callable[[TotoMessage], Any], message: TotoMessage, received: Received) -> Outcome:
        run = self._runs[received]
        run.message = message

        async def watched(message: TotoMessage) -> Any:
            try:
                run.response = await process(message)
            except BaseException as error:
                run.error = error
                raise
            return run.response

        return await super()._run(watched, message, received)
