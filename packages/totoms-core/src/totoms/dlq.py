"""``totoms dlq``: look at the dead letters of a subscription, deliver them again, delete them.

It works on the backend that the environment names. What goes wrong is one line on standard error; exit status 1 when
the backend said so or a letter is not there, 2 for a mistake in how the command was called or the environment set up.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from totoms.bus import MessageBus
from totoms.describe import printable
from totoms.envelope import DeadLetter
from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError, NotFound, UndecodableMessage
from totoms.messages import TYPE_ATTRIBUTE, decode_message

_LIMIT: Final = 100
_COLUMNS: Final = ("letter_id", "message_id", "type", "attempts", "reason", "error_class", "dead_since")
_Work = Callable[[MessageBus, argparse.Namespace], Awaitable[None]]


def add_command(commands: Any) -> None:
    """Add ``dlq`` and what it can do.

    Args:
        commands: What `ArgumentParser.add_subparsers` returned.
    """
    dlq = commands.add_parser(
        "dlq",
        help="look at dead letters, deliver them again, delete them",
        description="Look at the dead letters of a subscription, deliver them again, delete them. The backend is the "
        "one that HYPERSCALER names (default: local). A subscription is named {service}-{topic}, unless the service "
        "says otherwise.",
    )
    actions = dlq.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = _action(actions, "list", _list, "list dead letters, oldest first")
    listing.add_argument("--limit", type=_positive, default=_LIMIT, metavar="N", help=f"how many (default: {_LIMIT})")
    listing.add_argument("--json", action="store_true", help="print JSON")

    showing = _action(actions, "show", _show, "print one dead letter, with its body")
    showing.add_argument("letter_id", metavar="LETTER_ID")

    replaying = _action(actions, "replay", _replay, "deliver dead letters again; their attempts start over")
    _choice(replaying)

    purging = _action(actions, "purge", _purge, "delete dead letters for good")
    _choice(purging)
    purging.add_argument("--yes", action="store_true", help="do not ask before --all")


def _action(actions: Any, name: str, work: _Work, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("subscription", metavar="SUBSCRIPTION")
    parser.set_defaults(run=lambda parsed: _run(work, parsed))
    return parser


def _choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letter_ids", metavar="LETTER_ID", nargs="*")
    parser.add_argument("--all", action="store_true", help="all letters of the subscription")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1_000_000:
        raise argparse.ArgumentTypeError("must be a number, 1 to 1000000")
    return number


def _run(work: _Work, parsed: argparse.Namespace) -> None:
    if hasattr(parsed, "all") and parsed.all == bool(parsed.letter_ids):
        raise ConfigurationError("Name the letters, or say --all.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal need not know all of Unicode
    if work is _purge and parsed.all and not parsed.yes and not _may_purge(parsed.subscription):
        _tell("Nothing was deleted.")
        return
    asyncio.run(_with_bus(work, parsed))


async def _with_bus(work: _Work, parsed: argparse.Namespace) -> None:
    bus = MessageBus(TotoEnvironment.from_variables(), {})
    try:
        await work(bus, parsed)
    finally:
        await bus.close()


# --- what there is ---


async def _list(bus: MessageBus, parsed: argparse.Namespace) -> None:
    letters = await bus.list_dead_letters(parsed.subscription, parsed.limit + 1)
    rows = [_summary(letter) for letter in letters[: parsed.limit]]
    if parsed.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    elif rows:
        table = [[name.upper().replace("_", " ") for name in _COLUMNS]]
        table += [[printable(str(row[name])) or "-" for name in _COLUMNS] for row in rows]
        widths = [max(len(line[column]) for line in table) for column in range(len(_COLUMNS))]
        for line in table:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            sys.stdout.write("  ".join(cells).rstrip() + "\n")
    else:
        _tell(f"{parsed.subscription} has no dead letters.")
    if len(letters) > parsed.limit:
        _tell(f"There are more than {parsed.limit}: see --limit.")


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "letter_id": letter.letter_id,
        "message_id": letter.message_id,
        "type": _type_of(letter),
        "attempts": letter.reason.attempts,
        "reason": letter.reason.reason,
        "error_class": letter.reason.error_class,
        "description": letter.reason.description,
        "dead_since": _iso(letter.dead_since),
    }


def _type_of(letter: DeadLetter) -> str:
    if TYPE_ATTRIBUTE in letter.attributes:
        return letter.attributes[TYPE_ATTRIBUTE]
    try:
        return decode_message(letter.body).type  # other publishers need not send it beside the body
    except UndecodableMessage:
        return ""


def _iso(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # a time that no calendar has
        return str(seconds)


async def _show(bus: MessageBus, parsed: argparse.Namespace) -> None:
    letter = await _find(bus, parsed.subscription, parsed.letter_id)
    for name, value in {"subscription": letter.subscription, **_summary(letter)}.items():
        sys.stdout.write(f"{name.replace('_', ' ') + ':':<14}{_harmless(str(value)) or '-'}\n")
    for name, value in letter.attributes.items():
        sys.stdout.write(f"attribute:    {_harmless(name)} = {_harmless(str(value))}\n")
    sys.stdout.write(f"body:         {len(letter.body)} bytes\n\n{_pretty(letter.body)}\n")


async def _find(bus: MessageBus, subscription: str, letter_id: str) -> DeadLetter:
    limit = _LIMIT
    while True:  # more and more of them: few dead letters are the rule, and each may have a body of 256 KiB
        letters = await bus.list_dead_letters(subscription, limit)
        for letter in letters:
            if letter.letter_id == letter_id:
                return letter
        if len(letters) < limit:
            raise NotFound(f"{subscription} has no dead letter {letter_id!r}.", resource=letter_id)
        limit *= 10


def _pretty(body: bytes) -> str:
    """Return `body` for a terminal: indented where it is JSON, and without anything that a terminal would obey."""
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "backslashreplace")
    return _harmless(text, but="\n\t")


def _harmless(text: str, but: str = "") -> str:
    # Written as JSON escapes them, so that what was JSON still is.
    return "".join(one if one.isprintable() or one in but else json.dumps(one)[1:-1] for one in text)


# --- what can be done about it ---


async def _replay(bus: MessageBus, parsed: argparse.Namespace) -> None:
    await _each(bus.replay_dead_letters, "Replayed", parsed)


def _may_purge(subscription: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigurationError("Deleting all dead letters for good needs --yes where nobody can be asked.")
    sys.stderr.write(f"Delete all dead letters of {printable(subscription)} for good? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _purge(bus: MessageBus, parsed: argparse.Namespace) -> None:
    await _each(bus.purge_dead_letters, "Deleted", parsed)


async def _each(work: Callable[..., Awaitable[int]], done: str, parsed: argparse.Namespace) -> None:
    if parsed.all:
        number, missing = await work(parsed.subscription), []
    else:  # one by one: a backend tells how many there were, not which
        wanted = dict.fromkeys(parsed.letter_ids)
        counts = {letter_id: await work(parsed.subscription, [letter_id]) for letter_id in wanted}
        number, missing = sum(counts.values()), [letter_id for letter_id, count in counts.items() if not count]
    sys.stdout.write(f"{done} {number} dead letter{'' if number == 1 else 's'} of {printable(parsed.subscription)}.\n")
    if missing:
        raise NotFound(f"{parsed.subscription} has no dead letter {', '.join(map(repr, missing))}.")


def _tell(text: str) -> None:
    sys.stderr.write(f"totoms: {printable(text)}\n")
