"""``python -m totoms dlq``: count, list, group, show, replay, purge and export dead letters, and send a test message.

It works on the backend that the environment names. An error is one line on standard error, with the exit status 1 for
an error of the backend or a dead letter that does not exist, and 2 for wrong arguments or settings.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import click

from totoms.cli import dead_letter_commands as work
from totoms.cli.parameters import PLACE_HELP, TEXT, Parsed, declaration, examples
from totoms.cli.selection import filter_options

_LIMIT: Final = 100
_FASTEST: Final = 10_000
_SLOWEST: Final = 0.001


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1_000_000:
        raise ValueError("must be a number, 1 to 1000000")
    return number


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not _SLOWEST <= number <= _FASTEST:
        raise ValueError(f"must be a number of messages a second, {_SLOWEST:g} to {_FASTEST}")
    return number


subscription = click.argument("subscription", type=TEXT)
letter_ids = click.argument("letter_ids", type=TEXT, nargs=-1, metavar="[LETTER_ID]...")
as_json = click.option("--json", "json", is_flag=True, help="Print JSON.")
every = click.option("--all", "all", is_flag=True, help="All dead letters of the subscription.")


@click.group(
    no_args_is_help=False,
    epilog=examples(
        "python -m totoms dlq subscriptions",
        "python -m totoms dlq groups blog-posts --since 2h",
        "python -m totoms dlq replay blog-posts --all --rate 20",
    ),
)
def dlq() -> None:
    """Count, list, group, show, replay, purge and export the dead letters of a subscription, and send a test message.

    The backend is the one that HYPERSCALER names (default: local). A subscription is named {service}-{topic}, unless
    the service configures another name. On AWS and Google Cloud, dead letters are hidden from other commands while one
    command reads them.
    """


@dlq.command("subscriptions", help=f"List subscriptions with the number of dead letters.\n\n{PLACE_HELP}")
@declaration(required=False)
@as_json
def _subscriptions(**options: Any) -> None:
    work.run(work.subscriptions, SimpleNamespace(**options))


@dlq.command("list")
@subscription
@click.option("--limit", type=Parsed(_positive), default=str(_LIMIT), show_default=True, metavar="N", help="How many.")
@as_json
@filter_options
def _list(**options: Any) -> None:
    """List dead letters, oldest first."""
    work.run(work.list_letters, SimpleNamespace(**options))


@dlq.command("groups")
@subscription
@as_json
@filter_options
def _groups(**options: Any) -> None:
    """Group dead letters by error class and place."""
    work.run(work.groups, SimpleNamespace(**options))


@dlq.command("show")
@subscription
@click.argument("letter_id", type=TEXT)
def _show(**options: Any) -> None:
    """Print one dead letter, with its body."""
    work.run(work.show, SimpleNamespace(**options))


@dlq.command("replay")
@subscription
@letter_ids
@every
@filter_options
@click.option("--rate", type=Parsed(_rate), metavar="N", help="At most N messages a second; by default no limit.")
def _replay(**options: Any) -> None:
    """Deliver dead letters again; their attempts start over."""
    work.run(work.replay, SimpleNamespace(**options))


@dlq.command("purge")
@subscription
@letter_ids
@every
@filter_options
@click.option("--yes", is_flag=True, help="Do not ask before deleting without ids.")
def _purge(**options: Any) -> None:
    """Delete dead letters for good."""
    work.run(work.purge, SimpleNamespace(**options))


@dlq.command("export")
@subscription
@click.argument("file", type=click.Path(path_type=Path))
@letter_ids
@click.option("--with-data", is_flag=True, help="Write the published values; by default fakes of the same shape.")
@filter_options
def _export(**options: Any) -> None:
    """Write dead letters to a new file, for a test. Without ids or filters, all."""
    work.run(work.export, SimpleNamespace(**options))


@dlq.command("send")
@click.argument("destination", type=TEXT, metavar="TOPIC")
@click.option("--service", metavar="MODULE:NAME", help="The declaration that names the topic.")
@click.option("--queue", is_flag=True, help="TOPIC is the name of a queue.")
@click.option("--type", "type", type=TEXT, required=True, metavar="TYPE", help="The type of the message.")
@click.option("--data", default="{}", show_default=True, metavar="DATA", help="JSON, or @FILE.")
def _send(**options: Any) -> None:
    """Publish a test message to a topic or a queue.

    TOPIC is the provider's identifier of the topic; with --service its logical name, or that of a subscription to it.
    """
    work.run(work.send, SimpleNamespace(**options))
