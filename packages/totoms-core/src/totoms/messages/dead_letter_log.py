"""Dead-letter a message, and log that in one line: which message, which handler, why, and the id of the letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from totoms.context import current_cid
from totoms.errors import LeaseLost
from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received
from totoms.telemetry import state as telemetry

if TYPE_CHECKING:
    from totoms.messages.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message is dead-lettered, for the log.

    Attributes:
        text: What happened: the class and place of an exception, or what the handler returned.
        handler: The name of the handler's class or function; "" if none was found.
        message_type: The type of the message; "" if it could not be decoded.
        error: The exception, whose stack is logged; None if there is none.
    """

    text: str
    handler: str = ""
    message_type: str = ""
    error: BaseException | None = None


async def dead_letter(
    keep: Callable[[Received, DeadLetterReason], Awaitable[str | None]],
    received: Received,
    outcome: Outcome,
    logger: TotoLogger,
    system: str,
) -> Exception | None:
    """Store a message as a dead letter, and log it; return the error if that fails, which is logged as well.

    Args:
        keep: Stores it, and returns the id of the letter.
        received: The message.
        outcome: Why it is dead-lettered.
        logger: The service's logger.
        system: The messaging system, for telemetry.
    """
    reason = outcome.reason or DeadLetterReason("unknown")
    try:
        with telemetry.settling(system, "dead_letter", (received,)):
            letter_id = await keep(received, reason)
    except Exception as error:
        _log_not_dead_lettered(logger, received, reason, outcome.failure, error)
        return error
    if telemetry.active is not None:
        message_type = outcome.failure.message_type if outcome.failure else ""
        telemetry.active.instruments.dead_lettered(system, received, message_type, reason.reason)
    log_dead_letter(logger, received, reason, outcome.failure, letter_id)
    return None


def log_dead_letter(
    logger: TotoLogger, received: Received, reason: DeadLetterReason, failure: Failure | None, letter_id: str | None
) -> None:
    """Log that a message was dead-lettered.

    Args:
        logger: The service's logger.
        received: The message.
        reason: Why it was dead-lettered.
        failure: What the log says of that in addition.
        letter_id: The id of the dead letter; None if the backend does not say.
    """
    kept = f", letter {letter_id}" if letter_id else ""
    _log(logger, f"Dead-lettered {_described(received, reason, failure)}{kept}", failure)


def _log_not_dead_lettered(
    logger: TotoLogger, received: Received, reason: DeadLetterReason, failure: Failure | None, error: Exception
) -> None:
    why = describe_error(error).rstrip(".")
    text = f"Cannot dead-letter {_described(received, reason, failure)}: {why}; it is delivered again"
    # With a lost lease nothing failed here: another consumer may have the message by now.
    _log(logger, text, failure, "WARNING" if isinstance(error, LeaseLost) else "ERROR")


def _described(received: Received, reason: DeadLetterReason, failure: Failure | None) -> str:
    of_type = f" of type {failure.message_type}" if failure and failure.message_type else ""
    handler = f" of {failure.handler}" if failure and failure.handler else ""
    name = received.subscription.name
    return f"message {received.message_id}{of_type} of {name}, {reason.reason} in attempt {reason.attempts}{handler}"


def _log(logger: TotoLogger, text: str, failure: Failure | None, level: str = "ERROR") -> None:
    what = f": {failure.text}" if failure and failure.text else "."
    logger.log(current_cid.get() or "events", text + what, level, failure.error if failure else None)
