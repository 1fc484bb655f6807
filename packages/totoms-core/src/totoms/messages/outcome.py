"""What became of a delivery."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from totoms.messages.dead_letter_log import Failure
from totoms.messages.dead_letters import DeadLetterReason


class Action(Enum):
    """How to settle a delivery."""

    ACK = "ack"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of handling one delivery.

    Attributes:
        action: How to settle it.
        reason: Why it is dead-lettered, for DEAD_LETTER.
        ignored: Whether no handler takes the type, or the handler returned IGNORED.
        delay: The pause before a RETRY in seconds; None for that of the retry policy.
        failure: What the log says of a DEAD_LETTER, once it is stored.
    """

    action: Action
    reason: DeadLetterReason | None = None
    ignored: bool = False
    delay: float | None = None
    failure: Failure | None = field(default=None, compare=False)


@dataclass(slots=True)
class Counts:
    """Deliveries since the start, by outcome."""

    succeeded: int = 0
    ignored: int = 0
    retried: int = 0
    dead_lettered: int = 0
