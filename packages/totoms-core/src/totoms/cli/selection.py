"""Which dead letters a command is about: ids, or filters."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import click

from totoms.cli.output import print_note
from totoms.cli.parameters import TEXT, Parsed
from totoms.errors import UndecodableMessage
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetter
from totoms.messages.message import TYPE_ATTRIBUTE, decode_message

_F = TypeVar("_F", bound=Callable[..., Any])

MOST: Final = 10_000
"""Dead letters that are listed to filter them. Each may have a body of 256 KiB."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Filters:
    """What a dead letter must be. A filter that is None lets all through.

    Attributes:
        type: The type of the message.
        reason: Why it is dead, such as ``attempts_exhausted``.
        since: Since when it is dead, in seconds since the epoch.
    """

    type: str | None = None
    reason: str | None = None
    since: float | None = None

    def __bool__(self) -> bool:
        """Return whether there is any filter."""
        return self != Filters()

    def accept(self, dead_letter: DeadLetter) -> bool:
        """Return whether `dead_letter` passes all filters."""
        return (
            (self.type is None or message_type(dead_letter) == self.type)
            and (self.reason is None or dead_letter.reason.reason == self.reason)
            and (self.since is None or dead_letter.dead_since >= self.since)
        )


def filter_options(command: _F) -> _F:
    """Add ``--type``, ``--reason`` and ``--since`` to a command; `filters_of` returns them."""
    since = "Only those dead since 30m, 2h or 1d ago, or since a time such as 2026-12-01T03:00Z (UTC by default)."
    options = [
        click.option("--type", "type", type=TEXT, metavar="TYPE", help="Only messages of this type."),
        click.option(
            "--reason", type=TEXT, metavar="REASON", help="Only those dead for this reason, as `list` shows it."
        ),
        click.option("--since", type=Parsed(_since), metavar="TIME", help=since),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def filters_of(parsed: SimpleNamespace) -> Filters:
    """Return the filters of a command line."""
    return Filters(parsed.type, parsed.reason, parsed.since)


async def find(bus: MessageBus, subscription: str, filters: Filters, limit: int | None = None) -> list[DeadLetter]:
    """Return the oldest dead letters that pass the filters; note on standard error if there are more.

    Args:
        bus: The bus.
        subscription: The name of the subscription.
        filters: The filters.
        limit: How many at most; by default as many as can be filtered.

    Raises:
        BackendError: As for `MessageBus.list_dead_letters`.
    """
    most = MOST if filters or limit is None else limit
    listed = await bus.list_dead_letters(subscription, most + 1)
    note_hiding(bus, subscription)
    found = [one for one in listed[:most] if filters.accept(one)]
    if limit is not None and len(found[: limit + 1]) + (len(listed) > most and not filters) > limit:
        print_note(f"There are more than {limit}: see --limit.")
    elif len(listed) > most:
        print_note(f"Only the oldest {most} dead letters of {subscription} were looked at.")
    return found[:limit]


def note_hiding(bus: MessageBus, subscription: str) -> None:
    """Note that others did not see the dead letters while they were read, if the backend works so."""
    if bus._store(subscription).listing_hides:
        print_note(
            f"On {bus.environment.hyperscaler}, dead letters are hidden from others while one command reads them; now "
            "they are given back."
        )


def message_type(dead_letter: DeadLetter) -> str:
    """Return the type of the message; "" if it has none."""
    if TYPE_ATTRIBUTE in dead_letter.attributes:
        return dead_letter.attributes[TYPE_ATTRIBUTE]
    try:
        return decode_message(dead_letter.body).type  # other publishers may not set the attribute
    except UndecodableMessage:
        return ""


def _since(given: str) -> float:
    now = time.time()
    if match := re.fullmatch(r"([0-9]{1,9})([smhd])", given):
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(given)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("must be like 30m, 2h, 1d or 2026-12-01T03:00Z") from None
    if seconds > now:
        raise ValueError("is in the future")
    return seconds
