"""Group dead letters by what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from totoms.cli.selection import message_type
from totoms.messages.dead_letters import DeadLetter, place_of


@dataclass(frozen=True)
class Group:
    """Dead letters with the same error class and the same place.

    Attributes:
        count: How many there are.
        error_class: The class of the exception; the reason, such as ``lease_expired``, if there was none.
        place: The file and the line of the service; the type of the message if the place is unknown.
        newest: The one that died last.
    """

    count: int
    error_class: str
    place: str
    newest: DeadLetter


def group(dead_letters: Sequence[DeadLetter]) -> list[Group]:
    """Return the groups of these dead letters, the largest first."""
    found: dict[tuple[str, str], list[DeadLetter]] = {}
    for one in dead_letters:
        key = one.reason.error_class or one.reason.reason, place_of(one.reason) or message_type(one)
        found.setdefault(key, []).append(one)
    groups = [Group(len(some), *key, max(some, key=lambda one: one.dead_since)) for key, some in found.items()]
    return sorted(groups, key=lambda one: (-one.count, -one.newest.dead_since))
