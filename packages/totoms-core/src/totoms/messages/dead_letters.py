"""Dead letters: the reason for dead-lettering a message, and the store of one subscription's dead letters."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from totoms.errors import BackendError, NotFound

if TYPE_CHECKING:
    from totoms.messages.receiver import Received

_FIRST_PAGE: Final = 100
"""Dead letters that `show` lists first. Usually there are few, and each may have a body of 256 KiB."""
_LONGEST: Final = 1000
_PLACE: Final = re.compile(r"\(at ([^()]+:[0-9]+) in [^()]+\)$")


@dataclass(frozen=True)
class DeadLetterReason:
    """Why a message was dead-lettered.

    Attributes:
        reason: ``attempts_exhausted``, ``non_retryable``, ``undecodable``, ``lease_expired``; ``invalid`` for data that
            is not valid for its event, ``unknown_version`` for an event newer than its class; or ``undelivered`` for a
            message that the broker could not push.
        error_class: The exception's class, or "FAILED" if the handler returned FAILED.
        description: For people; control characters removed, at most 1,000 characters. It ends with the place in the
            service's code that raised the exception, such as ``(at posts.py:42 in store)``, if there is one.
        attempts: The number of attempts made.
    """

    reason: str
    error_class: str = ""
    description: str = ""
    attempts: int = 0


def with_place(description: str, frame: str) -> str:
    """Return a description that ends with the place where the exception was raised.

    Args:
        description: The text of the exception; cut if both together are too long.
        frame: The place, such as ``posts.py:42 in store``; "" if it is unknown.
    """
    if not frame:
        return description
    place = f"(at {frame})"
    return f"{description[: _LONGEST - len(place) - 1]} {place}".lstrip()


def place_of(reason: DeadLetterReason) -> str:
    """Return the file and the line at the end of a description, such as ``posts.py:42``; "" if it names none."""
    found = _PLACE.search(reason.description)
    return found[1] if found else ""


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

    listing_hides: ClassVar[bool] = False
    """Whether others cannot see the dead letters while they are listed, because the broker can only lease them."""

    async def count(self) -> int | None:
        """Return how many dead letters there are, as the broker reports it; None if only listing them tells."""
        return None

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
    async def keep(self, received: Received, reason: DeadLetterReason) -> str | None:
        """Store a message with its reason. The push endpoint calls this; `Receiver.dead_letter` need not.

        Returns:
            The id of the dead letter, for the log; None if the broker does not tell it.
        """


@dataclass(frozen=True, slots=True)
class HeldLetter:
    """A dead letter that is hidden from others while it is replayed or purged.

    Attributes:
        letter: The dead letter.
        handle: What the backend needs to settle it.
    """

    letter: DeadLetter
    handle: Any


async def replay_letters(
    pages: AsyncGenerator[Sequence[HeldLetter], None],
    letter_ids: Sequence[str] | None,
    publish: Callable[[Sequence[HeldLetter]], Awaitable[Sequence[BackendError | None]]],
    settle: Callable[[Sequence[HeldLetter]], Awaitable[None]],
) -> int:
    """Publish dead letters in the order of `pages`, and settle each after it was published; return how many.

    Each message is replayed once: a dead letter of one that failed again meanwhile is left for the next replay.

    Args:
        pages: Yields each dead letter once, oldest first. It is closed at the end, and then gives back the others.
        letter_ids: Which ones; None for all.
        publish: Publishes some, with a result for each.
        settle: Deletes those that were published.

    Raises:
        BackendError: Of `publish` or `settle`. What was published before is settled.
    """
    wanted = None if letter_ids is None else set(letter_ids)
    replayed: set[str] = set()
    async with aclosing(pages):
        async for page in pages:
            chosen: dict[str, HeldLetter] = {}
            for held in _chosen(page, wanted):
                if held.letter.message_id not in replayed:
                    chosen.setdefault(held.letter.message_id, held)
            results = await publish(list(chosen.values())) if chosen else ()
            sent = [held for held, error in zip(chosen.values(), results, strict=True) if error is None]
            if sent:
                await settle(sent)
            replayed.update(held.letter.message_id for held in sent)
            for error in results:
                if error is not None:
                    raise error
            if wanted is not None and not wanted:
                break
    return len(replayed)


async def purge_letters(
    pages: AsyncGenerator[Sequence[HeldLetter], None],
    letter_ids: Sequence[str] | None,
    settle: Callable[[Sequence[HeldLetter]], Awaitable[None]],
) -> int:
    """Delete dead letters; return how many. See `replay_letters`."""
    wanted = None if letter_ids is None else set(letter_ids)
    purged = 0
    async with aclosing(pages):
        async for page in pages:
            chosen = _chosen(page, wanted)
            if chosen:
                await settle(chosen)
            purged += len(chosen)
            if wanted is not None and not wanted:
                break
    return purged


def _chosen(page: Sequence[HeldLetter], wanted: set[str] | None) -> list[HeldLetter]:
    """Return those that are wanted, and remove them from `wanted`."""
    if wanted is None:
        return list(page)
    chosen = [held for held in page if held.letter.letter_id in wanted]
    wanted.difference_update(held.letter.letter_id for held in chosen)
    return chosen
