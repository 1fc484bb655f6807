"""``totoms dlq``: count, list, group, show, replay, purge and export dead letters, and send a test message.

It works on the backend that the environment names. An error is one line on standard error, with the exit status 1 for
an error of the backend or a dead letter that does not exist, and 2 for wrong arguments or settings.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from totoms.cli import dead_letter_commands as work
from totoms.cli.manifest import add_declaration
from totoms.cli.selection import add_filters, utf8

_LIMIT: Final = 100
_FASTEST: Final = 10_000
_SLOWEST: Final = 0.001


def add_command(commands: Any) -> None:
    """Add ``dlq`` and its subcommands.

    Args:
        commands: The result of `ArgumentParser.add_subparsers`.
    """
    dlq = commands.add_parser(
        "dlq",
        help="count, list, group, show, replay, purge and export dead letters; send a test message",
        description="Count, list, group, show, replay, purge and export the dead letters of a subscription, and send a "
        "test message. The backend is the one that HYPERSCALER names (default: local). A subscription is named "
        "{service}-{topic}, unless the service configures another name. On AWS and Google Cloud, dead letters are "
        "hidden from other commands while one command reads them.",
    )
    actions = dlq.add_subparsers(title="commands", required=True, metavar="COMMAND")

    counting = _command(
        actions, "subscriptions", work.subscriptions, "list subscriptions with the number of dead letters"
    )
    add_declaration(counting, "whose subscriptions to list; by default all that the backend can list")
    counting.add_argument("--json", action="store_true", help="print JSON")

    listing = _action(actions, "list", work.list_letters, "list dead letters, oldest first")
    listing.add_argument("--limit", type=_positive, default=_LIMIT, metavar="N", help=f"how many (default: {_LIMIT})")
    listing.add_argument("--json", action="store_true", help="print JSON")
    add_filters(listing)

    grouping = _action(actions, "groups", work.groups, "group dead letters by error class and place")
    grouping.add_argument("--json", action="store_true", help="print JSON")
    add_filters(grouping)

    showing = _action(actions, "show", work.show, "print one dead letter, with its body")
    showing.add_argument("letter_id", type=utf8, metavar="LETTER_ID")

    replaying = _action(actions, "replay", work.replay, "deliver dead letters again; their attempts start over")
    _add_selection(replaying)
    replaying.add_argument("--rate", type=_rate, metavar="N", help="at most N messages a second; by default no limit")

    purging = _action(actions, "purge", work.purge, "delete dead letters for good")
    _add_selection(purging)
    purging.add_argument("--yes", action="store_true", help="do not ask before deleting without ids")

    exporting = _action(actions, "export", work.export, "write dead letters to a new file, for a test")
    exporting.add_argument("file", metavar="FILE", type=Path)
    exporting.add_argument("letter_ids", type=utf8, metavar="LETTER_ID", nargs="*", help="by default all")
    exporting.add_argument(
        "--with-data", action="store_true", help="write the published values; by default fakes of the same shape"
    )
    add_filters(exporting)

    sending = _command(actions, "send", work.send, "publish a test message to a topic or a queue")
    sending.add_argument(
        "destination",
        type=utf8,
        metavar="TOPIC",
        help="the provider's identifier of the topic; with --service its logical name, or that of a subscription to it",
    )
    sending.add_argument("--service", metavar="MODULE:NAME", help="the declaration that names the topic")
    sending.add_argument("--queue", action="store_true", help="TOPIC is the name of a queue")
    sending.add_argument("--type", type=utf8, required=True, metavar="TYPE", help="the type of the message")
    sending.add_argument("--data", default="{}", metavar="DATA", help="JSON, or @FILE (default: {})")


def _command(actions: Any, name: str, action: work.Action, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=lambda parsed: work.run(action, parsed))
    return parser


def _action(actions: Any, name: str, action: work.Action, text: str) -> argparse.ArgumentParser:
    parser = _command(actions, name, action, text)
    parser.add_argument("subscription", type=utf8, metavar="SUBSCRIPTION")
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letter_ids", type=utf8, metavar="LETTER_ID", nargs="*")
    parser.add_argument("--all", action="store_true", help="all dead letters of the subscription")
    add_filters(parser)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1_000_000:
        raise argparse.ArgumentTypeError("must be a number, 1 to 1000000")
    return number


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not _SLOWEST <= number <= _FASTEST:
        raise argparse.ArgumentTypeError(f"must be a number of messages a second, {_SLOWEST:g} to {_FASTEST}")
    return number
