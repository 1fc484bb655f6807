"""Dead letters: the reason for dead-lettering a message, and the store of one subscription's dead letters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from totoms.errors import NotFound

if TYPE_CHECKING:
    from totoms.messages.receiver import Received

_FIRST_PAGE: Final = 100
"""Dead letters that `show` lists first. Usually there are few, and each may have a body of 256 KiB."""


@dataclass(frozen=True)
class DeadLetterReason:
    """Why a message was dead-lettered.

    Attributes:
        reason: ``attempts_exhausted``, ``non_retryable``, ``undecodable``, ``lease_expired``; ``invalid`` for data that
            is not valid for its event, ``unknown_version`` for an event newer than its class; or ``undelivered`` for a
            message that the broker could not push.
        error_class: The exception's class, or "FAILED" if the handler returned FAILED.
        description: For people; control characters removed, at most 1,000 characters.
        attempts: The number of attempts made.
    """

    reason: str
    error_class: str = ""
    description: str = ""
    attempts: int = 0


@dataclass(frozen=True)
class DeadLetter:
    """A message in the dead-letter store.

    Attributes:
        letter_id: The id to pass to replay and purge.
        message_id: The id that `publish_message` returned for it.
        subscription: The name of the subscription it was received from.
        body: The bytes that were published.
        attributes: The attributes of the broker's message.
        reason: Why it was dead-lettered.
        dead_since: When, in seconds since the epoch.
    """

    letter_id: str
    message_id: str
    subscription: str
    body: bytes
    attributes: Mapping[str, str]
    reason: DeadLetterReason
    dead_since: float


class DeadLetterStore(ABC):
    """The dead letters of one subscription. `MessageBus._dead_letters` returns it.

    All methods raise `BackendError` only; `NotFound` when the subscription does not exist.
    """

    @abstractmethod
    async def list(self, limit: int) -> list[DeadLetter]:
        """Return at most `limit` dead letters, oldest first."""

    async def show(self, letter_id: str) -> DeadLetter:
        """Return one dead letter.

        The default searches what `list` returns; a backend that can look up by id overrides it.

        Raises:
            NotFound: There is no dead letter with this id.
        """
        limit = _FIRST_PAGE
        while True:
            dead_letters = await self.list(limit)
            for dead_letter in dead_letters:
                if dead_letter.letter_id == letter_id:
                    return dead_letter
            if len(dead_letters) < limit:
                raise NotFound(f"There is no dead letter {letter_id!r}.", resource=letter_id)
            limit *= 10

    @abstractmethod
    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        """Deliver dead letters to this subscription again; return how many.

        Keep their message id and correlation id; start counting attempts at 1.

        Args:
            letter_ids: Which ones; None for all.
        """

    @abstractmethod
    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        """Delete dead letters for good; return how many.

        Args:
            letter_ids: Which ones; None for all.
        """

    @abstractmethod
    async def keep(self, received: Received, reason: DeadLetterReason) -> None:
        """Store a message with its reason. The push endpoint calls this; `Receiver.dead_letter` need not."""
