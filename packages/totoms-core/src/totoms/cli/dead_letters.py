"""``totoms dlq``: list, show, replay and purge the dead letters of a subscription.

It works on the backend that the environment names. An error is one line on standard error, with the exit status 1 for
an error of the backend or a dead letter that does not exist, and 2 for wrong arguments or settings.
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

from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError, NotFound, UndecodableMessage
from totoms.logging.describe import printable
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetter
from totoms.messages.message import TYPE_ATTRIBUTE, decode_message

_LIMIT: Final = 100
_COLUMNS: Final = ("letter_id", "message_id", "type", "attempts", "reason", "error_class", "dead_since")
_Work = Callable[[MessageBus, argparse.Namespace], Awaitable[None]]


def add_command(commands: Any) -> None:
    """Add ``dlq`` and its subcommands.

    Args:
        commands: The result of `ArgumentParser.add_subparsers`.
    """
    dlq = commands.add_parser(
        "dlq",
        help="list, show, replay and purge dead letters",
        description="List, show, replay and purge the dead letters of a subscription. The backend is the one that "
        "HYPERSCALER names (default: local). A subscription is named {service}-{topic}, unless the service "
        "configures another name.",
    )
    actions = dlq.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = _action(actions, "list", _list, "list dead letters, oldest first")
    listing.add_argument("--limit", type=_positive, default=_LIMIT, metavar="N", help=f"how many (default: {_LIMIT})")
    listing.add_argument("--json", action="store_true", help="print JSON")

    showing = _action(actions, "show", _show, "print one dead letter, with its body")
    showing.add_argument("letter_id", metavar="LETTER_ID")

    replaying = _action(actions, "replay", _replay, "deliver dead letters again; their attempts start over")
    _add_selection(replaying)

    purging = _action(actions, "purge", _purge, "delete dead letters for good")
    _add_selection(purging)
    purging.add_argument("--yes", action="store_true", help="do not ask before --all")


def _action(actions: Any, name: str, work: _Work, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("subscription", metavar="SUBSCRIPTION")
    parser.set_defaults(run=lambda parsed: _run(work, parsed))
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letter_ids", metavar="LETTER_ID", nargs="*")
    parser.add_argument("--all", action="store_true", help="all dead letters of the subscription")


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
        raise ConfigurationError("Give the ids of the dead letters, or --all.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack characters
    if work is _purge and parsed.all and not parsed.yes and not _confirm_purge(parsed.subscription):
        _print_note("Nothing was deleted.")
        return
    asyncio.run(_with_bus(work, parsed))


async def _with_bus(work: _Work, parsed: argparse.Namespace) -> None:
    bus = MessageBus(TotoEnvironment.from_variables(), {})
    try:
        await work(bus, parsed)
    finally:
        await bus.close()


async def _list(bus: MessageBus, parsed: argparse.Namespace) -> None:
    dead_letters = await bus.list_dead_letters(parsed.subscription, parsed.limit + 1)
    rows = [_summary(dead_letter) for dead_letter in dead_letters[: parsed.limit]]
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
        _print_note(f"{parsed.subscription} has no dead letters.")
    if len(dead_letters) > parsed.limit:
        _print_note(f"There are more than {parsed.limit}: see --limit.")


def _summary(dead_letter: DeadLetter) -> dict[str, Any]:
    return {
        "letter_id": dead_letter.letter_id,
        "message_id": dead_letter.message_id,
        "type": _message_type(dead_letter),
        "attempts": dead_letter.reason.attempts,
        "reason": dead_letter.reason.reason,
        "error_class": dead_letter.reason.error_class,
        "description": dead_letter.reason.description,
        "dead_since": _iso(dead_letter.dead_since),
    }


def _message_type(dead_letter: DeadLetter) -> str:
    if TYPE_ATTRIBUTE in dead_letter.attributes:
        return dead_letter.attributes[TYPE_ATTRIBUTE]
    try:
        return decode_message(dead_letter.body).type  # other publishers may not set the attribute
    except UndecodableMessage:
        return ""


def _iso(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # out of range
        return str(seconds)


async def _show(bus: MessageBus, parsed: argparse.Namespace) -> None:
    dead_letter = await bus.show_dead_letter(parsed.subscription, parsed.letter_id)
    for name, value in {"subscription": dead_letter.subscription, **_summary(dead_letter)}.items():
        sys.stdout.write(f"{name.replace('_', ' ') + ':':<14}{_escape(str(value)) or '-'}\n")
    for name, value in dead_letter.attributes.items():
        sys.stdout.write(f"attribute:    {_escape(name)} = {_escape(str(value))}\n")
    sys.stdout.write(f"body:         {len(dead_letter.body)} bytes\n\n{_pretty(dead_letter.body)}\n")


def _pretty(body: bytes) -> str:
    """Return `body` for a terminal: JSON indented, control characters escaped."""
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "backslashreplace")
    return _escape(text, keep="\n\t")


def _escape(text: str, keep: str = "") -> str:
    # With JSON's escapes, so that JSON stays valid.
    return "".join(one if one.isprintable() or one in keep else json.dumps(one)[1:-1] for one in text)


async def _replay(bus: MessageBus, parsed: argparse.Namespace) -> None:
    await _each(bus.replay_dead_letters, "Replayed", parsed)


def _confirm_purge(subscription: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigurationError("Deleting all dead letters needs --yes if there is no terminal to confirm it.")
    sys.stderr.write(f"Delete all dead letters of {printable(subscription)} for good? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _purge(bus: MessageBus, parsed: argparse.Namespace) -> None:
    await _each(bus.purge_dead_letters, "Deleted", parsed)


async def _each(work: Callable[..., Awaitable[int]], done: str, parsed: argparse.Namespace) -> None:
    if parsed.all:
        number, missing = await work(parsed.subscription), []
    else:  # one by one, because a backend returns how many there were, not which
        wanted = dict.fromkeys(parsed.letter_ids)
        counts = {letter_id: await work(parsed.subscription, [letter_id]) for letter_id in wanted}
        number, missing = sum(counts.values()), [letter_id for letter_id, count in counts.items() if not count]
    sys.stdout.write(f"{done} {number} dead letter{'' if number == 1 else 's'} of {printable(parsed.subscription)}.\n")
    if missing:
        raise NotFound(f"{parsed.subscription} has no dead letter {', '.join(map(repr, missing))}.")


def _print_note(text: str) -> None:
    sys.stderr.write(f"totoms: {printable(text)}\n")
